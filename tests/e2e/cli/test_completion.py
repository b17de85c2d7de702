"""What a shell is offered for a key press: commands, and the names that a server knows."""

import httpx
import pytest

from tests.support.cli import ended, started
from tests.support.server import STOP_S, ServerProcess, start_server

# A shell is not kept waiting, but a machine that is busy with other tests may be slower than that.
PATIENT = f"import wakeq.cli._complete as complete; complete._PATIENCE_S = {STOP_S}; "


def offered(server: ServerProcess, line: str, **env: str) -> list[str]:
    """What bash would offer at the end of that line; whatever happens, nothing else is said."""
    words = line.split(" ")
    asked = {"_WAKEQ_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), **env}
    code, out, err = ended(started(server, env=asked, before=PATIENT))
    assert (code, err) == (0, "")
    return out.split()


@pytest.fixture(scope="module", autouse=True)
def named(http: httpx.Client) -> None:
    for name in ("jobs", "jobs-done", "orders"):
        assert http.put(f"/topics/{name}", json={}).status_code == 201
    assert http.put("/topics/jobs/groups/audit").status_code == 201


def test_commands(server: ServerProcess) -> None:
    assert offered(server, "wakeq pub") == ["publish"]
    assert offered(server, "wakeq topics pa") == ["pause"]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("wakeq publish j", ["jobs", "jobs-done"]),
        ("wakeq consume ", ["jobs", "jobs-done", "orders"]),
        ("wakeq topics show o", ["orders"]),
        ("wakeq stats orders jobs-", ["jobs-done"]),
        ("wakeq groups list nothing", []),
        ("wakeq consume jobs --group ", ["default", "audit"]),
        ("wakeq consume --group a", []),
        ("wakeq peek jobs --group au", ["audit"]),
        ("wakeq peek nowhere --group ", []),
    ],
)
def test_topics_and_groups(server: ServerProcess, line: str, names: list[str]) -> None:
    assert offered(server, line) == names


def test_names_come_from_the_server_that_the_line_has(server: ServerProcess, free_tcp_port: int) -> None:
    nowhere = f"http://127.0.0.1:{free_tcp_port}"
    assert offered(server, f"wakeq publish --url {nowhere} j") == []
    assert offered(server, f"wakeq publish --url {server.url} o", WAKEQ_URL=nowhere) == ["orders"]
    assert offered(server, "wakeq publish --url no-url j") == []
    assert offered(server, "wakeq publish j", WAKEQ_URL="no-url") == []


def test_a_server_that_says_no_offers_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    with start_server(tmp_path_factory.mktemp("data"), "--token", "s3cret") as guarded:
        assert offered(guarded, "wakeq publish j") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_be_given_the_script(server: ServerProcess, shell: str) -> None:
    code, out, err = ended(started(server, env={"_WAKEQ_COMPLETE": f"source_{shell}"}))
    assert (code, err) == (0, "")
    assert f"_WAKEQ_COMPLETE=complete_{shell}" in out
