"""Idle connections are closed in time, by one timer."""

import asyncio
from collections.abc import Callable
from typing import Any

from wakeq_server.idle import Idle

KEPT_S = 75.0


class Timer:
    """A timer of `Loop`."""

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call = call


class Loop:
    """A loop whose time is set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        """Now."""
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> Any:
        """Set a timer."""
        self.timers.append(Timer(when, call))
        return self.timers[-1]

    def call_later(self, after_s: float, call: Callable[[], None]) -> Any:
        """Set a timer."""
        return self.call_at(self.now + after_s, call)

    def run_to(self, now: float) -> None:
        """Let time pass."""
        while due := [timer for timer in self.timers if timer.when <= now]:
            self.now = due[0].when
            self.timers.remove(due[0])
            due[0].call()
        self.now = now


class Peer:
    """A connection."""

    closed = False

    def close_idle(self) -> None:
        """See `Closable`."""
        self.closed = True


def start() -> tuple[Loop, Idle]:
    loop = Loop()
    as_loop: asyncio.AbstractEventLoop = loop  # type: ignore[assignment]
    return loop, Idle(as_loop, KEPT_S)


def test_each_is_closed_when_its_time_is_over() -> None:
    loop, idle = start()
    first, second = Peer(), Peer()
    idle.enter(first)
    loop.run_to(10.0)
    idle.enter(second)
    loop.run_to(KEPT_S - 0.1)
    assert (first.closed, second.closed) == (False, False)
    loop.run_to(KEPT_S)
    assert (first.closed, second.closed) == (True, False)
    loop.run_to(KEPT_S + 10.0)
    assert second.closed
    assert loop.timers == []


def test_one_that_was_used_has_its_time_anew() -> None:
    loop, idle = start()
    peer = Peer()
    idle.enter(peer)
    loop.run_to(50.0)
    idle.leave(peer)
    idle.enter(peer)
    loop.run_to(50.0 + KEPT_S - 0.1)
    assert not peer.closed
    loop.run_to(50.0 + KEPT_S)
    assert peer.closed


def test_there_is_one_timer_and_none_without_an_idle_connection() -> None:
    loop, idle = start()
    peers = [Peer() for _ in range(100)]
    for peer in peers:
        idle.enter(peer)
    assert len(loop.timers) == 1
    for peer in peers:
        idle.leave(peer)
    loop.run_to(KEPT_S)
    assert loop.timers == []
    assert not any(peer.closed for peer in peers)
