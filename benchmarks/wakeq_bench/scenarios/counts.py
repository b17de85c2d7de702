"""What one message takes, in numbers that do not depend on the machine: calls, memory, system calls, instructions.

Each number is the difference between so many messages and twice as many, divided by them, so that what a server does
once is none of it. Messages go one after the other over bare sockets, so a busy machine changes nothing but the time
it takes. `counts.json` has the bounds that they are held to: a change that crosses one costs every message something.
"""

import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field
from rich.console import Console

from wakeq_bench.parameters import Names, Parameters, among
from wakeq_bench.processes import HOST, Child, ProcessFailed, Server
from wakeq_bench.report import Figure, Measure, Missing, Overview, Report, Series, Target, readable
from wakeq_bench.scenarios.costs import claim_and_ack, one_message
from wakeq_bench.scenarios.progress import Work
from wakeq_bench.scenarios.raw import Connection, call, made, request
from wakeq_bench.scenarios.servers import QUEUE_MESSAGE, announced_url, serve_command, wakeq_server

KINDS = ("calls", "blocks", "system calls", "instructions")
_AS_A_RULE = KINDS[:3]
OPERATIONS = ("publish", "claim and ack", "wake and ack")
BOUNDS = Path(__file__).with_name("counts.json")

_TOPIC = "t"
_PROBE = "probe"
_START_PLANNED_S = 2.0
_EACH_PLANNED_S = 0.002
_TOOL_MAX_S = 20.0
# How often somebody waits depends on who comes first.
_WAITING = "futex,sched_yield,?epoll_wait,?epoll_pwait"
_ATTACHED = re.compile(r"strace: Process \d+ attached")
_TOTAL = re.compile(r"^\s*(\d+)(?:\s+\d+)?\s+total$")
_TOTALS = re.compile(r"^totals: (\d+)", re.MULTILINE)


class Counts(Parameters):
    """What `counts` can be told."""

    kind: Annotated[Names, among(*KINDS)] = Field(
        list(_AS_A_RULE), description="what is counted; instructions take a minute"
    )
    messages: int = Field(100, ge=10, description="how many, beside twice as many")
    rounds: int = Field(5, ge=1, description="how often, of which the median counts")


@dataclass(frozen=True)
class Found:
    """One kind of number: a sample a round, by operation."""

    kind: str
    samples: dict[str, list[float]]


class Uncountable(RuntimeError):
    """What this machine can't count; the message says why."""


def planned_s(given: Counts) -> float:
    """About how long it takes."""
    return len(given.kind) * (_START_PLANNED_S + 3 * given.messages * given.rounds * _EACH_PLANNED_S)


def run(given: Counts, console: Console) -> Report:
    """Count; what can't be counted here is named. Raises ProcessFailed, BrokenAnswer, OSError."""
    report = Report("counts", "What a message takes, on any machine", given.model_dump())
    found: list[Found] = []
    with Work(console, planned_s(given)) as work:
        for kind in given.kind:
            work.step(kind)
            try:
                with _COUNTING[kind]() as (server, count):
                    samples = _samples(server, count, given)
                found.append(Found(kind, left_over(samples) if kind == "blocks" else samples))
            except Uncountable as error:
                report.missing.append(Missing(kind, str(error)))
            work.done(planned_s(given) / len(given.kind))
    report.samples = [{"kind": one.kind, **one.samples} for one in found]
    report.measures = [Measure(one.kind, f"{one.kind.capitalize()} of a message", "", "lower", "none") for one in found]
    report.series = [Series(one.kind, name, samples) for one in found for name, samples in one.samples.items()]
    report.figures = figures(found, bounds())
    report.overview = Overview(["a message", *OPERATIONS], [_row(one) for one in found])
    report.notes.append(
        "Of the server's process, messages in memory. A resumed coroutine is a call. Blocks are of Python's memory: "
        "what a published message holds while it waits, and what is left of one that has been acked, whose outcome is "
        "remembered for a while. System calls are without those that wait. "
        "`wake and ack` is a claim that waits, the publish that wakes it, and its ack."
    )
    return report


def bounds() -> dict[str, dict[str, float]]:
    """The most that each kind may be, by operation."""
    kept: dict[str, dict[str, float]] = json.loads(BOUNDS.read_text(encoding="utf-8"))
    return kept


def figures(found: Sequence[Found], kept: dict[str, dict[str, float]]) -> list[Figure]:
    """Each number beside its bound."""
    shown = []
    for one in found:
        for name, samples in one.samples.items():
            most = kept.get(one.kind, {}).get(name)
            target = None if most is None else Target("<=", most)
            shown.append(Figure(f"{one.kind}: {name}", round(statistics.median(samples), 2), "", target))
    return shown


def _row(found: Found) -> list[str]:
    return [found.kind, *(readable(round(statistics.median(found.samples[name]), 2)) for name in OPERATIONS)]


def left_over(samples: dict[str, list[float]]) -> dict[str, list[float]]:
    """Of blocks that one message takes and another operation gives back: what is left when it is acked."""
    publish, settle = samples["publish"], samples["claim and ack"]
    left = [taken + given_back for taken, given_back in zip(publish, settle, strict=True)]
    return {**samples, "claim and ack": left}


# Operations


class Client:
    """Two connections to a server with a topic."""

    def __init__(self, server: Server, stack: ExitStack) -> None:
        self._url = server.url
        self._publisher, self._consumer = (stack.enter_context(Connection(server.url)) for _ in range(2))
        self._publish = request(server.url, "POST", f"/messages/{_TOPIC}", QUEUE_MESSAGE)
        self._wait = request(server.url, "POST", f"/messages/{_TOPIC}/claim", b'{"wait_s": 60}')
        self._healthz = request(server.url, "GET", "/healthz")

    def publish(self) -> None:
        """One message."""
        made(self._publisher.exchange(self._publish))

    def claim_and_ack(self) -> None:
        """One that is there."""
        claim_and_ack(self._url, self._consumer, _TOPIC, b"{}")

    def wake_and_ack(self) -> None:
        """A claim, the message that it waits for, and the ack."""
        self._consumer.send(self._wait)
        # Answered behind the claim, which then waits.
        self.probe()
        self.publish()
        lease = one_message(self._consumer.receive())["lease_id"]
        settle = request(self._url, "POST", f"/messages/{_TOPIC}/settle", json.dumps({"ack": [lease]}).encode())
        made(self._consumer.exchange(settle))

    def probe(self) -> None:
        """What is answered at once."""
        made(self._publisher.exchange(self._healthz))


def _samples(server: Server, count: Callable[[Callable[[], None]], int], given: Counts) -> dict[str, list[float]]:
    made(call(server.url, "PUT", f"/topics/{_TOPIC}", {"schema": "json"}))
    with ExitStack() as stack:
        client = Client(server, stack)
        each: dict[str, Callable[[], None]] = {
            _PROBE: client.probe,
            "wake and ack": client.wake_and_ack,
            "publish": client.publish,
            "claim and ack": client.claim_and_ack,
        }
        for once in each.values():
            _repeat(once, given.messages)()
        samples: dict[str, list[float]] = {name: [] for name in each}
        for _ in range(given.rounds):
            for name, once in each.items():
                few, many = (count(_repeat(once, times * given.messages)) for times in (1, 2))
                samples[name].append((many - few) / given.messages)
    probes = samples.pop(_PROBE)
    samples["wake and ack"] = [whole - probe for whole, probe in zip(samples["wake and ack"], probes, strict=True)]
    return {name: samples[name] for name in OPERATIONS}


def _repeat(once: Callable[[], None], times: int) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(times):
            once()

    return repeated


# Ways to count

Counting = tuple[Server, Callable[[Callable[[], None]], int]]


@contextmanager
def _told_by_itself(kind: str) -> Iterator[Counting]:
    with tempfile.TemporaryDirectory(prefix="wakeq-bench-") as directory:
        command = [sys.executable, "-m", "wakeq_bench.counted", kind, *serve_command(Path(directory))]
        with Child(f"wakeq serve, {kind} counted", command) as child:
            port = int(child.wait_for_record("control")["control"])
            server = Server(announced_url(child), child)

            def so_far() -> int:
                with socket.create_connection((HOST, port)) as control, control.makefile("rb") as answer:
                    return int(json.load(answer)[kind])

            def count(work: Callable[[], None]) -> int:
                before = so_far()
                work()
                return so_far() - before

            yield server, count


@contextmanager
def _told_by_strace() -> Iterator[Counting]:
    _find("strace")
    options = ["-f", "-c", "-U", "calls,errors,name", "-e", f"trace=!{_WAITING}"]
    with wakeq_server() as server:

        def count(work: Callable[[], None]) -> int:
            with Child("strace", ["strace", *options, "-p", str(server.child.pid)]) as watching:
                try:
                    watching.wait_for(_ATTACHED.search, _TOOL_MAX_S)
                    work()
                    os.kill(watching.pid, signal.SIGINT)
                    return int(watching.wait_for(_TOTAL.search, _TOOL_MAX_S)[1])
                except ProcessFailed as error:
                    raise Uncountable(" ".join(str(error).split())) from error

        yield server, count


@contextmanager
def _told_by_callgrind() -> Iterator[Counting]:
    _find("valgrind")
    with tempfile.TemporaryDirectory(prefix="wakeq-bench-") as directory:
        out = Path(directory) / "out"
        # Starting is a hundred thousand times as long as a message: not counted, it takes a quarter of the time.
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        command = [*valgrind, sys.executable, "-m", "wakeq", *serve_command(Path(directory) / "data")]
        with Child("wakeq serve under valgrind", command) as child:
            server = Server(announced_url(child), child)
            _callgrind("-i", "on", child)

            def count(work: Callable[[], None]) -> int:
                _callgrind("-z", "", child)
                work()
                _callgrind("-d", "", child)
                (dump,) = Path(directory).glob("out.*")
                found = int(_TOTALS.search(dump.read_text(encoding="utf-8"))[1])  # type: ignore[index]
                dump.unlink()
                return found

            yield server, count


def _callgrind(option: str, value: str, child: Child) -> None:
    command = ["callgrind_control", *([f"{option}"] if not value else [f"{option}", value]), str(child.pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TOOL_MAX_S, check=False)
    if done.returncode != 0:
        raise Uncountable(" ".join((done.stderr or done.stdout).split()))


def _find(program: str) -> None:
    if shutil.which(program) is None:
        raise Uncountable(f"{program} is not installed: try `apt-get install {program}`.")


_COUNTING: dict[str, Callable[[], AbstractContextManager[Counting]]] = {
    "calls": lambda: _told_by_itself("calls"),
    "blocks": lambda: _told_by_itself("blocks"),
    "system calls": _told_by_strace,
    "instructions": _told_by_callgrind,
}
