"""The queue and the control plane of a deployment: where they listen, and that they do so there again."""

import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import anyio.abc

from wakeq_control.deploy.errors import DeploymentFailed
from wakeq_control.deploy.process import Process, server_job
from wakeq_control.deploy.unit import Unit


class Place(NamedTuple):
    """Where a server is to listen."""

    host: str
    port: int | None
    """None: the usual one, or any other if that is taken; 0: any."""
    usual: int
    field: str = ""
    """Where the file says so."""


class Server:
    """One of the two."""

    def __init__(
        self,
        command: tuple[str, str],
        place: Place,
        more: Callable[[], Sequence[str]],
        ahead: dict[str, Process],
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        """``command``: its name for people, and for `wakeq`. ``more``: its other options, as of when it begins.

        ``ahead``: those that load already, of which it takes its own.
        """
        self.name, self._command = command
        self._place = place
        self._more = more
        self._is_usual_taken = False
        loading = ahead.pop(self.name, None)
        self.unit = Unit(server_job(self.name), lambda: {"arguments": self._arguments()}, tasks, loading)

    @property
    def url(self) -> str:
        """Where it is reached from this machine, from its first start on."""
        url = self.unit.url
        return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")

    async def run(self) -> None:
        """Have it listen. Raises DeploymentFailed."""
        problem = await self.unit.run()
        if problem is not None and self._place.port is None and not self._is_usual_taken:
            # Somebody may have come first since it was free.
            self._is_usual_taken = True
            problem = await self.unit.load() or await self.unit.run()
        if problem is not None and self._place.field and problem.detail.startswith("can't listen"):
            # Its options are not the user's, who has the file.
            hint = "its host must be an address of this machine, and its port one that nobody has; 0 is a free one"
            raise DeploymentFailed(f"{self._place.field}: {problem.detail}", hint)
        if problem is not None:
            raise DeploymentFailed(f"the {self.name} can't be started: {problem.detail}", problem.hint)

    def _arguments(self) -> list[str]:
        return [self._command, "--host", self._place.host, "--port", str(self._port()), *self._more()]

    def _port(self) -> int:
        before = urlsplit(self.unit.url).port
        if before is not None:
            return before
        if self._place.port is not None:
            return self._place.port
        self._is_usual_taken = self._is_usual_taken or not _is_free(self._place.host, self._place.usual)
        return 0 if self._is_usual_taken else self._place.usual


def _is_free(host: str, port: int) -> bool:
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(info[0], info[1]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(info[4])
            # Merely bound, two servers may have one port.
            probe.listen()
    except OSError:
        return False
    return True
