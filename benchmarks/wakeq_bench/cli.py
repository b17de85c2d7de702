"""The `wakeq bench` command: parses, calls a scenario, prints what it found."""

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

from wakeq_bench.measure import ProcessGone
from wakeq_bench.peers import PeerUnavailable
from wakeq_bench.processes import ProcessFailed, ending_on_signals
from wakeq_bench.report import Report, show, write_json
from wakeq_bench.scenarios import depth as depth_scenario
from wakeq_bench.scenarios import idle as idle_scenario
from wakeq_bench.scenarios import latency as latency_scenario
from wakeq_bench.scenarios import parked as parked_scenario
from wakeq_bench.scenarios import recovery as recovery_scenario
from wakeq_bench.scenarios import requests as requests_scenario
from wakeq_bench.scenarios import task as task_scenario
from wakeq_bench.scenarios import throughput as throughput_scenario
from wakeq_bench.scenarios import wake as wake_scenario
from wakeq_bench.scenarios import writer as writer_scenario
from wakeq_bench.scenarios.brokers import BROKERS
from wakeq_bench.scenarios.contestants import CONTESTANTS
from wakeq_bench.scenarios.parker import connections_possible
from wakeq_bench.scenarios.raw import BrokenAnswer
from wakeq_bench.scenarios.wrk import WrkFailed

app = typer.Typer(no_args_is_help=True, help="Measure what polling costs, and what waiting costs.")

_KEYS = [contestant.key for contestant in CONTESTANTS]
_BROKERS = [broker.key for broker in BROKERS]
_EXPECTED = (
    PeerUnavailable,
    ProcessFailed,
    ProcessGone,
    BrokenAnswer,
    parked_scenario.ParkingFailed,
    WrkFailed,
    OSError,
)


def _counts(text: str) -> str:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter("numbers above 0 with commas between them, as in 2,20,100")
    return text


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _among(allowed: Collection[str]) -> Callable[[list[str] | None], list[str]]:
    """A check of a repeatable option; without any, everything that is allowed."""

    def check(names: list[str] | None) -> list[str]:
        unknown = [name for name in names or [] if name not in allowed]
        if unknown:
            raise typer.BadParameter(f"{', '.join(unknown)} is not among {', '.join(allowed)}")
        return names or list(allowed)

    return check


def _repeatable(allowed: Collection[str]) -> Any:
    return typer.Option(callback=_among(allowed), help=f"Only these; repeatable. All: {', '.join(allowed)}.")


def _writable(path: Path | None) -> Path | None:
    # Asked before an hour of measuring, not after.
    if path is not None and not os.access(path if path.exists() else path.parent, os.W_OK):
        raise typer.BadParameter(f"{path} cannot be written")
    return path


Json = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", dir_okay=False, callback=_writable, help="Write samples and environment there."
    ),
]


@app.command()
def idle(
    consumers: Annotated[str, typer.Option(callback=_counts, help="How many, one measurement each.")] = "2,20,100",
    seconds: Annotated[float, typer.Option(min=1, help="Length of each window.")] = 120.0,
    contestant: Annotated[
        list[str] | None,
        _repeatable(_KEYS),
    ] = None,
    json: Json = None,
) -> None:
    """CPU, requests and wakes of consumers that wait while nothing is published."""
    counts = _numbers(consumers)
    _run(lambda console: idle_scenario.run(counts, seconds, contestant or _KEYS, console), json)


@app.command()
def parked(
    connections: Annotated[int, typer.Option(min=2, help="How many park on one topic.")] = 10_000,
    seconds: Annotated[float, typer.Option(min=1, help="Longest window of idleness.")] = 60.0,
    json: Json = None,
) -> None:
    """Memory, idle CPU and wakes with thousands of consumers parked."""
    possible = connections_possible(connections)
    if possible < connections:
        raise typer.BadParameter(f"this machine's limit of open files allows {possible:,} (`ulimit -Hn`)")
    _run(lambda console: parked_scenario.run(connections, seconds, console), json)


@app.command()
def requests(
    pairs: Annotated[int, typer.Option(min=1, help="How often both servers are measured, in turns.")] = 5,
    seconds: Annotated[int, typer.Option(min=1, help="Length of each run of wrk.")] = 10,
    publish: Annotated[bool, typer.Option("--publish", help="Measure publishing too.")] = False,
    durability: Annotated[
        Literal["memory", "os", "fsync"], typer.Option(help="How wakeq keeps what is published.")
    ] = "memory",
    json: Json = None,
) -> None:
    """Requests per second under wrk."""
    loads = [requests_scenario.POLL, *(requests_scenario.PUBLISHES if publish else [])]
    _run(lambda console: requests_scenario.run(loads, durability, pairs, seconds, console), json)


@app.command()
def depth(
    case: Annotated[
        list[str] | None,
        _repeatable(depth_scenario.CASES),
    ] = None,
    messages: Annotated[int, typer.Option(min=10_000, help="How many wait in the case `deep`.")] = 1_000_000,
    topics: Annotated[int, typer.Option(min=100, help="How many there are in the case `topics`.")] = 100_000,
    rounds: Annotated[int, typer.Option(min=1, help="How often each rate is measured.")] = 5,
    idle: Annotated[float, typer.Option(min=1, help="Seconds of each window of idleness.")] = 60.0,
    json: Json = None,
) -> None:
    """What waiting messages, topics, groups and keys cost those that don't wait."""
    sizes = depth_scenario.Sizes(messages=messages, topics=topics, rounds=rounds, idle_s=idle)
    _run(lambda console: depth_scenario.run(case or list(depth_scenario.CASES), sizes, console), json)


@app.command()
def throughput(
    mode: Annotated[list[str] | None, _repeatable(throughput_scenario.MODES)] = None,
    contestant: Annotated[list[str] | None, _repeatable(_BROKERS)] = None,
    batch: Annotated[
        str, typer.Option(callback=_counts, help="Messages a batch, one measurement each; up to 1,000.")
    ] = "1,10,100",
    in_flight: Annotated[int, typer.Option(min=1, max=64, help="Batches published at a time.")] = 4,
    calls: Annotated[int, typer.Option(min=1, max=1_000, help="Single publishes at a time, when concurrent.")] = 100,
    size: Annotated[int, typer.Option(min=12, max=1_000_000, help="Bytes of a message.")] = 100,
    seconds: Annotated[float, typer.Option(min=1, help="Length of each window.")] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured, in turns.")] = 3,
    json: Json = None,
) -> None:
    """From publish to ack, beside Redis Streams and NATS JetStream."""
    batches = _numbers(batch)
    if max(batches) > throughput_scenario.BATCH_MAX:
        raise typer.BadParameter(f"a batch has at most {throughput_scenario.BATCH_MAX:,} messages")
    sizes = throughput_scenario.Sizes(batches, in_flight, calls, size, seconds, rounds)
    modes, keys = mode or list(throughput_scenario.MODES), contestant or _BROKERS
    _run(lambda console: throughput_scenario.run(modes, keys, sizes, console), json)


@app.command()
def latency(
    way: Annotated[list[str] | None, _repeatable(latency_scenario.WAYS)] = None,
    rates: Annotated[
        str, typer.Option(callback=_counts, help="Messages a second, one measurement each.")
    ] = "10,100,1000",
    seconds: Annotated[float, typer.Option(min=1, help="Length of each window.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured, in turns.")] = 3,
    json: Json = None,
) -> None:
    """From when a message was due to its consumer, in an open loop."""
    ways = [one for one in latency_scenario.WAYS if one in (way or latency_scenario.WAYS)]
    _run(lambda console: latency_scenario.run(ways, _numbers(rates), seconds, rounds, console), json)


@app.command()
def recovery(
    messages: Annotated[int, typer.Option(min=1, help="How many of 1 KB are stored.")] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="How often the server is killed and started.")] = 3,
    json: Json = None,
) -> None:
    """From kill -9 to ready, and publishing during a backup."""
    _run(lambda console: recovery_scenario.run(messages, rounds, console), json)


@app.command()
def task(
    tasks: Annotated[int, typer.Option(min=1, help="How many of each kind in a round.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured, in turns.")] = 3,
    json: Json = None,
) -> None:
    """Tasks through llama_deploy, on its own queue and with the plug-in on wakeq."""
    _run(lambda console: task_scenario.run(tasks, rounds, console), json)


@app.command()
def writer(
    seconds: Annotated[int, typer.Option(min=2, help="Length of each window.")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured, in turns.")] = 3,
    json: Json = None,
) -> None:
    """Commits beside a saturated event loop."""
    _run(lambda console: writer_scenario.run(seconds, rounds, console), json)


@app.command()
def wake(
    rounds: Annotated[int, typer.Option(min=1, help="Messages published, one at a time.")] = 2_000,
    json: Json = None,
) -> None:
    """From a publish to the parked consumer."""
    _run(lambda console: wake_scenario.run(rounds, console), json)


def _run(scenario: Callable[[Console], Report], json: Path | None) -> None:
    progress = Console(stderr=True)
    try:
        with ending_on_signals():
            report = scenario(progress)
        show(report, Console())
        if json is not None:
            write_json(report, json)
    except _EXPECTED as error:
        progress.print(f"[red]{escape(str(error))}[/red]", soft_wrap=True)
        raise typer.Exit(1) from error
