"""Tasks by wakeq's own client: one after the other, many at a time, and their events as they are seen."""

import json
import statistics
import time
from dataclasses import dataclass

import anyio
import httpx

import wakeq
from wakeq_bench.measure import CpuWindow
from wakeq_bench.scenarios.raw import BrokenAnswer
from wakeq_bench.scenarios.task_systems import SERVICE, TASK_MAX_S, System

_ECHO = {"user_msg": "hello"}
_WANTED = "echo: hello"


@dataclass(frozen=True)
class Rate:
    """What many at a time came to."""

    per_s: float
    cpu_ms: dict[str, float]
    """CPU of a task, by process."""


def round_trips(system: System, count: int) -> list[float]:
    """Seconds of so many tasks, one after the other, from creation to result. Raises WakeqError, BrokenAnswer."""
    return anyio.run(_round_trips, system, count)


async def _round_trips(system: System, count: int) -> list[float]:
    found = []
    async with wakeq.AsyncControlPlane(system.control_plane_url) as control:
        for _ in range(count + 1):
            session = await control.create_session()
            started = time.perf_counter()
            await _run(control, session)
            found.append(time.perf_counter() - started)
    # The first made the connections.
    return found[1:]


async def _run(control: wakeq.AsyncControlPlane, session: str) -> None:
    result = await control.run(SERVICE, _ECHO, session_id=session)
    if result != _WANTED:
        raise BrokenAnswer(f"a task ended with {result!r}")


def rate(system: System, at_a_time: int, seconds: float) -> Rate:
    """Tasks a second, so many at a time. Raises WakeqError, BrokenAnswer, ProcessGone."""
    return anyio.run(_rate, system, at_a_time, seconds)


async def _rate(system: System, at_a_time: int, seconds: float) -> Rate:
    done = 0

    async def work(control: wakeq.AsyncControlPlane) -> None:
        nonlocal done
        session = await control.create_session()
        while True:
            await _run(control, session)
            done += 1

    async with wakeq.AsyncControlPlane(system.control_plane_url) as control, anyio.create_task_group() as tasks:
        for _ in range(at_a_time):
            tasks.start_soon(work, control)
        await anyio.sleep(seconds / 4)
        window, before = CpuWindow(system.pids), done
        await anyio.sleep(seconds)
        count, elapsed, spent = done - before, window.seconds, window.spent()
        tasks.cancel_scope.cancel()
    return Rate(count / elapsed, {name: 1000 * used / max(1, count) for name, used in spent.items()})


def watched(system: System, events: int, pause_s: float = 0.0) -> tuple[float, list[float]]:
    """Seconds of a task with so many events, until it has ended, and how long each took from its emission to here.

    Raises WakeqError, BrokenAnswer.
    """
    return _complete(system, events, *anyio.run(_watched, system, {**_ECHO, "events": events, "pause": pause_s}))


async def _watched(system: System, arguments: dict[str, object]) -> tuple[float, list[float]]:
    late: list[float] = []
    async with wakeq.AsyncControlPlane(system.control_plane_url) as control:
        session = await control.create_session()
        started = time.perf_counter()
        task_id = await control.create_task(session, SERVICE, arguments)
        async with control.events(session, task_id) as events:
            async for event in events:
                _note(event.data, late)
        return time.perf_counter() - started, late


def watched_as_lines(system: System, events: int, pause_s: float = 0.0) -> tuple[float, list[float]]:
    """The same as llama_deploy's clients are sent it. Raises BrokenAnswer, httpx.HTTPError."""
    arguments = {**_ECHO, "events": events, "pause": pause_s}
    late: list[float] = []
    with httpx.Client(base_url=system.control_plane_url, timeout=TASK_MAX_S, trust_env=False) as http:
        session = http.post("/sessions/create").json()
        started = time.perf_counter()
        task = http.post(
            f"/sessions/{session}/tasks", json={"input": json.dumps(arguments), "service_id": SERVICE}
        ).json()
        with http.stream("GET", f"/sessions/{session}/tasks/{task}/result_stream") as stream:
            for line in stream.iter_lines():
                _note(json.loads(line), late)
        seconds = time.perf_counter() - started
    return _complete(system, events, seconds, late)


def _note(data: dict[str, object], late: list[float]) -> None:
    seen = time.time()
    inner = data.get("_data", data)
    if isinstance(inner, dict) and "at" in inner:
        late.append(seen - inner["at"])


def _complete(system: System, events: int, seconds: float, late: list[float]) -> tuple[float, list[float]]:
    if len(late) != events:
        raise BrokenAnswer(f"of {events} events of a task through {system.name}, {len(late)} were seen")
    return seconds, late


def median_ms(seconds: list[float]) -> float:
    """In milliseconds."""
    return 1000 * statistics.median(seconds)
