"""What a worker asks of the control plane."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import anyio

from wakeq._connection import SILENCE_S, Connection, path_segment
from wakeq._errors import raise_for_answer, read_answer
from wakeq_control.codec import dump, load

_TIMEOUT_S = 10.0
"""How long it may be silent where it isn't asked to wait."""


class ControlPlane:
    """One control plane."""

    def __init__(self, connection: Connection) -> None:
        """Made by `open_control_plane`."""
        self._connection = connection

    async def queue_url(self) -> str:
        """Where the queue is. Raises WakeqError."""
        answer = await self._connection.ask("GET", "/queue_config")
        raise_for_answer(answer)
        return read_answer(answer, _queue_url)

    async def register(self, service: str, about: dict[str, Any]) -> str:
        """Register a service of workers; returns what the names of all topics begin with. Raises WakeqError."""
        answer = await self._connection.ask("PUT", f"/v1/services/{quote(service, safe='')}", content=dump(about))
        raise_for_answer(answer)
        return read_answer(answer, lambda said: str(said["topic_namespace"]))

    async def leave(self, worker: str) -> None:
        """Be given no more tasks. Raises WakeqError."""
        answer = await self._connection.ask("DELETE", f"/v1/workers/{path_segment(worker)}")
        raise_for_answer(answer)

    async def deregister(self, service: str) -> None:
        """Forget a service. Raises WakeqError."""
        path = f"/services/deregister?service_name={quote(service, safe='')}"
        raise_for_answer(await self._connection.ask("POST", path))

    @asynccontextmanager
    async def link(self, worker: str, number: int) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Open a worker's link: what it must know of its attempts, as it comes. Raises WakeqError, also as it comes."""
        async with self._connection.stream(self._link(worker, number), [], SILENCE_S) as response:
            yield _lines(response)

    async def say(self, worker: str, number: int, content: bytes) -> list[dict[str, Any]]:
        """What the control plane answers to what attempts say over a link. Raises WakeqError."""
        answer = await self._connection.ask("POST", self._link(worker, number), content=content)
        raise_for_answer(answer)
        return read_answer(answer, lambda said: list(said["answers"]))

    def _link(self, worker: str, number: int) -> str:
        return f"/v1/workers/{path_segment(worker)}/links/{number}"


def _queue_url(said: Any) -> str:
    config = said["SimpleMessageQueueConfig"]
    host = f"[{config['host']}]" if ":" in config["host"] else config["host"]
    return f"{'https' if config['use_ssl'] else 'http'}://{host}:{config['port']}"


async def _lines(parts: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    rest = b""
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield load(line)


@asynccontextmanager
async def open_control_plane(url: str, token: str | None) -> AsyncIterator[ControlPlane]:
    """A control plane, whose connections are closed on the way out. Raises ValueError where the URL is none.

    ``token`` is what it asks for, if it does.
    """
    connection = Connection(url, token=token, timeout=_TIMEOUT_S, transport=None)
    try:
        yield ControlPlane(connection)
    finally:
        with anyio.CancelScope(shield=True):
            await connection.aclose()
