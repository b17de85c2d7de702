"""uvicorn, quiet: it wakes when there is something to do.

uvicorn's own `Server` wakes ten times a second to look at a flag, and idle isn't idle then; it ends by raising the
signal again, and a drained server has exited well; and it sets a `Date` on that tick.
"""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import uvicorn
import uvicorn.server

BACKLOG = 4_096
"""Connections that may wait to be accepted."""
KEEP_ALIVE_S = 75
"""Longer than any client's own, so that no client reuses a connection that is just being closed."""
_FINISH_S = 5
"""How long answers that are being written have when the server is told to stop."""


class _State(uvicorn.server.ServerState):
    """Headers of every answer, with a `Date` (RFC 9110, 6.6.1) made at most once a second and only when asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._headers: list[tuple[bytes, bytes]] = []

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._headers = [(b"date", formatdate(now, usegmt=True).encode())]
        return self._headers

    @default_headers.setter
    def default_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        """uvicorn sets it when it starts; ours are made when they are read."""


class QuietServer(uvicorn.Server):
    """Runs until `main_loop`, which a subclass has, returns."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state = _State()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are received in `main_loop`, and not raised again."""
        yield


def configure(app: Any, protocol: Any) -> uvicorn.Config:
    """uvicorn's settings: nothing of its own is logged, and connections are made by ``protocol``."""
    return uvicorn.Config(
        app, http=protocol, ws="none", lifespan="off", access_log=False, log_config=None,
        server_header=False, proxy_headers=False, backlog=BACKLOG, timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=_FINISH_S,
    )  # fmt: skip


def listen(
    host: str,
    port: int,
    refuse: Callable[[str, str], Exception],
    *,
    host_option: str = "--host",
    port_option: str | None = None,
    prepare: Callable[[socket.socket], None] = lambda listener: None,
) -> socket.socket:
    """A listening socket; ``prepare`` sets what its connections inherit.

    Where there can't be one, raises what ``refuse`` makes of a sentence and a hint, in which the options are named.
    """
    try:
        return _listener(host, port, prepare)
    except OSError as error:
        another = f"another port with {port_option}" if port_option else "another port"
        hint = f"is another server running there? name {another}, or 0 for a free one"
        if isinstance(error, socket.gaierror):
            hint = f"name an address of this machine with {host_option}"
        raise refuse(f"can't listen on {host}:{port}: {error.strerror or error}", hint) from error


def _listener(host: str, port: int, prepare: Callable[[socket.socket], None]) -> socket.socket:
    info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(info[0], info[1])
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        prepare(listener)
        listener.bind(info[4])
        # Merely bound, two servers may have one port.
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def shown_url(listener: socket.socket) -> str:
    """Where it listens."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
