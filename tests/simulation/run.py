"""Runs one simulation from a seed."""

import asyncio
import tempfile
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.simulation.disk import Disk, MemoryDisk, SqliteDisk
from tests.simulation.loop import VirtualLoop
from tests.simulation.model import Violated
from tests.simulation.world import World

STORES = ("memory", "sqlite")


class Outcome(NamedTuple):
    """What became of a simulation."""

    step: int
    violation: str
    """Empty: all went well."""
    lines: list[str]
    counts: dict[str, int]


def simulate(seed: int, steps: int, store: str = "memory") -> Outcome:
    """The same seed gives the same history, byte for byte."""
    if store == "memory":
        return _simulate(MemoryDisk(), seed, steps)
    with tempfile.TemporaryDirectory() as root:
        return _simulate(SqliteDisk(Path(root), Random(seed)), seed, steps)


def _simulate(disk: Disk, seed: int, steps: int) -> Outcome:
    # Every other seed runs tasks in asyncio's own order.
    loop = VirtualLoop(Random(seed) if seed % 2 else None)
    loop.set_exception_handler(lambda *_: None)
    world = World(loop, disk, seed)
    violation = ""
    try:
        loop.run_until_complete(world.run(steps))
    except Violated as broken:
        violation = str(broken)
    finally:
        _abandon(loop, world)
    return Outcome(world.step, violation, world.lines, world.checker.counts)


def _abandon(loop: VirtualLoop, world: World) -> None:
    """End what a violation has left running."""
    tasks = asyncio.all_tasks(loop)
    for client in world.clients.values():
        client.dead = True
    if world.server is not None:
        world.server.store.dead = True
        world.server.calls.finish_all()
    for _ in range(20):
        for task in tasks:
            task.cancel()
        loop.run_until_complete(_turns())
    loop.close()


async def _turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
