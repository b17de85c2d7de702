"""Which connections the kernel is told to probe."""

import socket
from collections.abc import Iterator

import pytest

from wakeq_server.connection import set_timeouts, watch_peer
from wakeq_server.settings import TCP_PROBE_AFTER_S, TCP_PROBE_EVERY_S, TCP_USER_TIMEOUT_S


@pytest.fixture
def accepted() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        set_timeouts(listener)
        with socket.create_connection(listener.getsockname()):
            connection, _ = listener.accept()
            with connection:
                yield connection


@pytest.mark.parametrize(
    ("address", "probed"), [("10.1.2.3", 1), ("fd00::1", 1), ("127.0.0.1", 0), ("127.8.8.8", 0), ("::1", 0)]
)
def test_only_other_machines_are_probed(accepted: socket.socket, address: str, probed: int) -> None:
    watch_peer(accepted, address)
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == probed


def test_three_probes_may_get_lost(accepted: socket.socket) -> None:
    options = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_USER_TIMEOUT]
    assert [accepted.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [
        TCP_PROBE_AFTER_S,
        TCP_PROBE_EVERY_S,
        TCP_USER_TIMEOUT_S * 1000,
    ]
    assert TCP_PROBE_AFTER_S + 3 * TCP_PROBE_EVERY_S <= TCP_USER_TIMEOUT_S
