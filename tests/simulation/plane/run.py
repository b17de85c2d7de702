"""Runs one simulation of the control plane from a seed."""

import asyncio
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import structlog
from anyio._backends import _asyncio

from tests.simulation.loop import VirtualLoop
from tests.simulation.model import Violated
from tests.simulation.plane.world import World
from tests.simulation.run import Outcome
from wakeq_control.state.base import StateStore
from wakeq_control.state.memory import MemoryStore
from wakeq_control.state.sqlite import SqliteStore


class _InOrder(dict[Any, None]):
    """A set that is gone through in the order in which things came into it.

    anyio cancels the tasks of a scope in the order of a set, which is that of their places in memory.
    """

    def add(self, one: object) -> None:
        self[one] = None

    def discard(self, one: object) -> None:
        self.pop(one, None)

    remove = dict.__delitem__


def simulate(seed: int, steps: int, store: str = "memory") -> Outcome:
    """The same seed gives the same history, byte for byte."""
    if store == "memory":
        return _simulate(MemoryStore(), seed, steps)
    with TemporaryDirectory() as directory:
        kept = SqliteStore(Path(directory))
        try:
            return _simulate(kept, seed, steps)
        finally:
            kept.close()


def _simulate(store: StateStore, seed: int, steps: int) -> Outcome:
    # Every other seed runs tasks in asyncio's own order.
    loop = VirtualLoop(Random(seed) if seed % 2 else None)
    loop.set_exception_handler(lambda *_: None)
    with _seeded(seed), _silent(), patch.object(_asyncio, "set", _InOrder, create=True):
        world = World(loop, store, seed)
        violation = ""
        try:
            loop.run_until_complete(world.run(steps))
        except Violated as broken:
            violation = str(broken)
        finally:
            _abandon(loop, world)
    return Outcome(world.step, violation, world.lines, world.counts)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """What the product draws, such as delays before it tries again."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


@contextmanager
def _silent() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), cache_logger_on_first_use=False
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def _abandon(loop: VirtualLoop, world: World) -> None:
    """End what still runs."""
    if world.server is not None:
        world.server.dead = world.server.store.dead = True
        world.server.calls.finish_all()
    for _ in range(20):
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(_turns())
    loop.close()


async def _turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
