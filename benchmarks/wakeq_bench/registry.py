"""The scenarios, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from wakeq_bench.parameters import Parameters
from wakeq_bench.report import Report
from wakeq_bench.scenarios import (
    client,
    depth,
    idle,
    latency,
    parked,
    recovery,
    requests,
    task,
    throughput,
    wake,
    writer,
)


@dataclass(frozen=True)
class Scenario:
    """What is measured, what it can be told, and how long that takes."""

    name: str
    summary: str
    parameters: type[Parameters]
    run: Callable[[Any, Console], Report]
    """Raises what `wakeq_bench.running.EXPECTED` names."""
    planned_s: Callable[[Any], float]
    quick: Mapping[str, Any] = field(default_factory=dict)
    """Parameters by which it is over in seconds."""


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "idle",
            "CPU, requests and wakes of consumers that wait while nothing is published",
            idle.Idle,
            idle.run,
            idle.planned_s,
            {"consumers": [20], "seconds": 2.0, "only": ["polling-original", "sse"]},
        ),
        Scenario(
            "latency",
            "from when a message was due to its consumer, in an open loop",
            latency.Latency,
            latency.run,
            latency.planned_s,
            {"rates": [100], "seconds": 1.0, "rounds": 1},
        ),
        Scenario(
            "throughput",
            "from publish to ack, through each queue's own client",
            throughput.Throughput,
            throughput.run,
            throughput.planned_s,
            {"batch": [100], "seconds": 1.0, "rounds": 1},
        ),
        Scenario(
            "recovery",
            "from kill -9 to ready, and publishing during a backup",
            recovery.Recovery,
            recovery.run,
            recovery.planned_s,
            {"messages": 10_000, "rounds": 1},
        ),
        Scenario(
            "task",
            "whole tasks through llama_deploy, through wakeq, and through both",
            task.Tasks,
            task.run,
            task.planned_s,
            {"tasks": 1, "rounds": 1, "lossy": 1, "idle": 2.0, "rate": 1.0},
        ),
        Scenario(
            "client",
            "what wakeq's own client adds to bare sockets, and does while it waits",
            client.Client,
            client.run,
            client.planned_s,
            {"messages": 20, "drained": 2_000, "rounds": 1, "seconds": 1.0, "imports": 1},
        ),
        Scenario(
            "parked",
            "memory, idle CPU and wakes with thousands of consumers parked",
            parked.Parked,
            parked.run,
            parked.planned_s,
            {"connections": 200, "seconds": 1.0},
        ),
        Scenario(
            "requests",
            "requests a second under wrk, beside a bare ASGI app",
            requests.Requests,
            requests.run,
            requests.planned_s,
            {"rounds": 1, "seconds": 1},
        ),
        Scenario(
            "depth",
            "what waiting messages, topics, groups and keys cost those that don't wait",
            depth.Depth,
            depth.run,
            depth.planned_s,
            {"case": ["keys"], "backlog": 20_000, "rounds": 1},
        ),
        Scenario(
            "writer",
            "commits beside a saturated event loop",
            writer.Writer,
            writer.run,
            writer.planned_s,
            {"seconds": 2, "rounds": 1},
        ),
        Scenario(
            "wake",
            "from a publish to the parked consumer, beside a bare ASGI app",
            wake.Wakes,
            wake.run,
            wake.planned_s,
            {"rounds": 100},
        ),
    )
}
