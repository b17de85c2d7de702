"""What a worker asks of the control plane."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import anyio
import httpx

import wakeq
from wakeq._connection import SILENCE_S, Connection, parts_of
from wakeq._errors import raise_for_answer, read_answer
from wakeq_control.codec import dump, load

_TIMEOUT_S = 10.0
"""How long it may be silent where it isn't asked to wait."""
_JSON = [(b"content-type", b"application/json")]


class ControlPlane:
    """One control plane."""

    def __init__(self, connection: Connection) -> None:
        """Made by `open_control_plane`."""
        self._connection = connection

    async def queue_url(self) -> str:
        """Where the queue is. Raises WakeqError."""
        answer = await self._connection.ask("GET", self._connection.url("/queue_config"))
        raise_for_answer(answer)
        return read_answer(answer, _queue_url)

    @asynccontextmanager
    async def registration(self, service: str, about: dict[str, Any]) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Register a service of workers: a line when that is done, and then silence until the control plane ends.

        Raises WakeqError, from the iteration too.
        """
        path = f"/v1/services/{quote(service, safe='')}/registration"
        async with self._lines(path, about) as lines:
            yield lines

    async def deregister(self, service: str) -> None:
        """Forget a service. Raises WakeqError."""
        url = self._connection.url(f"/services/deregister?service_name={quote(service, safe='')}")
        raise_for_answer(await self._connection.ask("POST", url))

    @asynccontextmanager
    async def attempt(
        self, session_id: str, task_id: str, about: dict[str, Any]
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """What a worker must know of its task, as it comes: it begins an attempt, or goes on with one that it names.

        Raises WakeqError, from the iteration too.
        """
        path = f"/sessions/{quote(session_id, safe='')}/tasks/{quote(task_id, safe='')}/attempts"
        async with self._lines(path, about) as lines:
            yield lines

    @asynccontextmanager
    async def _lines(self, path: str, body: dict[str, Any]) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        url = self._connection.url(path)
        try:
            async with self._connection.stream(url, _JSON, SILENCE_S, content=dump(body)) as response:
                yield _lines(parts_of(response))
        except httpx.TransportError as error:
            raise wakeq.ServerUnavailable(f"the control plane can't be reached: {error!r}") from error


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
