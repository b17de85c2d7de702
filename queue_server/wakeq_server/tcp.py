"""What TCP is asked and told: how soon dead peers are found, and whether a peer has what it was sent."""

import fcntl
import socket
import sys
import termios
from contextlib import suppress
from typing import Any

from wakeq._serving.hosts import is_loopback
from wakeq_server.settings import TCP_PROBE_AFTER_S, TCP_PROBE_EVERY_S, TCP_USER_TIMEOUT_S

_TCP_ESTABLISHED = 1
_TCP_CLOSE_WAIT = 8


def set_timeouts(listener: socket.socket) -> None:
    """How soon dead peers are found; connections inherit it from the listening socket.

    Without it a consumer whose machine has lost its network takes messages with it for a quarter of an hour.
    """
    options = {
        "TCP_KEEPIDLE": TCP_PROBE_AFTER_S,
        "TCP_KEEPINTVL": TCP_PROBE_EVERY_S,
        "TCP_USER_TIMEOUT": TCP_USER_TIMEOUT_S * 1000,
    }
    for name, value in options.items():
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def watch_peer(sock: Any, address: str) -> None:
    """Have the kernel probe a silent connection, unless its client is on this machine.

    There, nothing gets cut off without a reset; but the probes of thousands of parked consumers fall together, more
    than the loopback device queues are lost, and connections that are well would be ended.
    """
    if not is_loopback(address):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def bear_with(sock: socket.socket, timeout_s: float) -> None:
    """How long a peer may leave written bytes unacknowledged, or, which Linux takes for the same, take none."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # The connection may have ended just now.
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(timeout_s * 1000))


def is_open(sock: socket.socket) -> bool:
    """Whether neither side has closed the connection, as far as the system tells."""
    return _tcp_state(sock) in (None, _TCP_ESTABLISHED)


def peer_has_read(sock: socket.socket) -> bool:
    """Whether a peer that has closed its side had read every byte sent to it.

    TCP knows: who closes a socket with unread bytes, or gets bytes after closing it, answers with a reset; and bytes
    sent to one who closed before are not acknowledged. A clean end with nothing outstanding is a satisfied client.
    """
    if _tcp_state(sock) not in (None, _TCP_CLOSE_WAIT):
        return False
    try:
        outstanding = int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        return not outstanding and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except OSError:
        return False


def _tcp_state(sock: socket.socket) -> int | None:
    """The connection's state; None where the system doesn't tell."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] if hasattr(socket, "TCP_INFO") else None
    except OSError:
        return None
