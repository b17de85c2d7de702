"""How the environments of other systems fail: in one sentence, and so that the next try starts afresh."""

from pathlib import Path

import pytest

from wakeq_bench.peers import PeerUnavailable
from wakeq_bench.peers.llama_deploy import environment, versions

pytestmark = [pytest.mark.compat, pytest.mark.slow]


def test_an_unknown_version_names_the_known_ones() -> None:
    with pytest.raises(PeerUnavailable, match=r"0\.0\.1 is not among .* 0\.4\.2, .* 0\.8\.1\.$"):
        environment("0.0.1")


def test_versions_are_sorted_as_versions() -> None:
    assert versions() == ["0.4.2", "0.5.1", "0.6.1", "0.7.2", "0.8.1"]


def test_a_failed_installation_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAKEQ_PEERS_DIR", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for _ in range(2):
        steps: list[str] = []
        with pytest.raises(PeerUnavailable, match=r"^llama_deploy 0\.8\.1 could not be installed: .*\.$"):
            environment("0.8.1", steps.append)
        assert len(steps) == 2
