"""Unmodified clients, all those of one python in one process, which is started for the first."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.compat.peer_process import START_MAX_S, PeerProcess, peer
from wakeq_bench.peers.llama_deploy import script

SCRIPT = Path(__file__).parent / "scripts" / "clients.py"


class Clients:
    """Those of one run of the tests."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        """They end with the stack."""
        self._directory = directory
        self._stack = stack
        self._running: dict[Path, PeerProcess] = {}

    def run(self, python: Path, control_plane_url: str, service: str, *options: str) -> dict[str, Any]:
        """What a client says of one task."""
        return self._said(python, "client", "--control-plane-url", control_plane_url, "--service", service, *options)

    def publish(self, python: Path, queue_url: str, *options: str) -> dict[str, Any]:
        """What a publisher says of its messages."""
        return self._said(python, "publisher", "--url", queue_url, *options)

    def _said(self, python: Path, name: str, *arguments: str) -> dict[str, Any]:
        if python not in self._running:
            errors = self._directory / f"{len(self._running)}.log"
            self._running[python] = self._stack.enter_context(
                peer(python, SCRIPT, script(name).parent, errors=errors, is_asked=True)
            )
        asked = self._running[python]
        asked.ask(json.dumps([name, *arguments]))
        return asked.record(START_MAX_S)
