"""What is written when, in one turn of the event loop."""

import asyncio
from collections.abc import Callable

import pytest

from wakeq._serving.sending import LARGE_BYTES, Sending, Turn


class Wire(asyncio.Transport):
    """Notes what comes, in its order with that of others."""

    def __init__(self, name: str, log: list[tuple[str, object]]) -> None:
        super().__init__()
        self._name = name
        self._log = log

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._log.append((self._name, bytes(data)))

    def write_eof(self) -> None:
        self._log.append((self._name, "eof"))

    def close(self) -> None:
        self._log.append((self._name, "close"))

    def abort(self) -> None:
        self._log.append((self._name, "abort"))

    def get_write_buffer_size(self) -> int:
        return sum(len(what) for name, what in self._log if name == self._name and isinstance(what, bytes))


class Loop:
    """What is to be done when the turn ends."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def end(self) -> None:
        """End the turn."""
        calls, self.calls = self.calls, []
        for call in calls:
            call()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def log() -> list[tuple[str, object]]:
    return []


@pytest.fixture
def wires(loop: Loop, log: list[tuple[str, object]]) -> tuple[Sending, Sending]:
    turn = Turn(loop.calls.append)
    return Sending(Wire("a", log), turn), Sending(Wire("b", log), turn)


def test_the_first_is_written_at_once(
    loop: Loop, log: list[tuple[str, object]], wires: tuple[Sending, Sending]
) -> None:
    wires[0].write(b"1")
    assert log == [("a", b"1")]
    loop.end()
    wires[1].write(b"2")
    assert log == [("a", b"1"), ("b", b"2")]


def test_the_others_are_written_when_the_turn_ends(
    loop: Loop, log: list[tuple[str, object]], wires: tuple[Sending, Sending]
) -> None:
    a, b = wires
    a.write(b"1")
    b.write(b"2")
    a.write(b"3")
    b.write(b"4")
    assert log == [("a", b"1")]
    loop.end()
    assert log == [("a", b"1"), ("b", b"24"), ("a", b"3")]
    assert loop.calls == []


@pytest.mark.parametrize("call", ["write_eof", "close", "abort", "get_write_buffer_size"])
def test_what_else_is_asked_comes_after_what_was_written(
    call: str, log: list[tuple[str, object]], wires: tuple[Sending, Sending]
) -> None:
    a, b = wires
    a.write(b"1")
    b.write(b"2")
    getattr(b, call)()
    assert log[:2] == [("a", b"1"), ("b", b"2")]


def test_what_is_held_counts_as_unsent(wires: tuple[Sending, Sending]) -> None:
    a, b = wires
    a.write(b"1")
    b.write(b"234")
    assert b.get_write_buffer_size() == 3


def test_large_parts_are_not_held(loop: Loop, log: list[tuple[str, object]], wires: tuple[Sending, Sending]) -> None:
    a, b = wires
    a.write(b"1")
    b.write(b"2")
    b.write(bytes(LARGE_BYTES))
    assert log == [("a", b"1"), ("b", b"2"), ("b", bytes(LARGE_BYTES))]
    loop.end()
    assert len(log) == 3
