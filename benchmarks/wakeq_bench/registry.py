"""The scenarios, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from wakeq_bench.parameters import Parameters
from wakeq_bench.report import Report
from wakeq_bench.scenarios import (
    client,
    counts,
    deployment,
    depth,
    fanout,
    idle,
    latency,
    mixed,
    parked,
    recovery,
    requests,
    scale,
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


_FEW = ["wakeq-memory", "redis-everysec"]
"""Who is in a quick form where contestants are told apart: wakeq, and one that is soon installed."""
_ALONE = ["wakeq-memory"]

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "idle",
            "CPU, wake-ups, requests, bytes of consumers that wait while nothing is published",
            idle.Idle,
            idle.run,
            idle.planned_s,
            {
                "consumers": [20],
                "seconds": 2.0,
                "whole_periods": False,
                "warm_up": 0.5,
                "wakes": 2,
                "only": _ALONE,
            },
        ),
        Scenario(
            "latency",
            "from when a message was due to its handler, in an open loop",
            latency.Latency,
            latency.run,
            latency.planned_s,
            {"part": ["clients"], "rates": [100], "seconds": 1.0, "rounds": 1, "only": _ALONE},
        ),
        Scenario(
            "throughput",
            "from publish to ack, through each queue's own client",
            throughput.Throughput,
            throughput.run,
            throughput.planned_s,
            {"mode": ["batches"], "batch": [100], "seconds": 1.0, "rounds": 1, "only": _FEW},
        ),
        Scenario(
            "fanout",
            "one publish to many groups, each of which has every message",
            fanout.Fanout,
            fanout.run,
            fanout.planned_s,
            {"groups": [10], "seconds": 1.0, "rounds": 1, "only": _ALONE},
        ),
        Scenario(
            "scale",
            "what a message costs with more parked consumers, topics and waiting messages",
            scale.Scale,
            scale.run,
            scale.planned_s,
            {"axis": ["depth"], "depth": [0, 5_000], "messages": 30, "rounds": 1},
        ),
        Scenario(
            "mixed",
            "a day of a deployment of agents, the same for everybody",
            mixed.Mixed,
            mixed.run,
            mixed.planned_s,
            {"tasks": 10, "seconds": 2.0, "rounds": 1, "only": _ALONE},
        ),
        Scenario(
            "recovery",
            "from kill -9 to ready, and publishing during a backup",
            recovery.Recovery,
            recovery.run,
            recovery.planned_s,
            {"part": ["contestants"], "stored": 1_000, "rounds": 1, "only": ["wakeq-fsync"]},
        ),
        Scenario(
            "task",
            "whole tasks through llama_deploy, through wakeq, and through both",
            task.Tasks,
            task.run,
            task.planned_s,
            {"only": ["losses"], "tasks": 1, "rounds": 1, "lossy": 1, "idle": 2.0, "rate": 1.0},
        ),
        Scenario(
            "deployment",
            "the start of a deployment file, its tasks by commands and clients, and its idleness",
            deployment.Deployment,
            deployment.run,
            deployment.planned_s,
            {"only": ["start", "run"], "rounds": 1},
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
            {"kind": ["claim"], "connections": 100, "seconds": 1.0, "wakes": 20, "rounds": 1},
        ),
        Scenario(
            "requests",
            "requests a second under wrk, beside a bare ASGI app",
            requests.Requests,
            requests.run,
            requests.planned_s,
            {"rounds": 1, "seconds": 1, "publish": False},
        ),
        Scenario(
            "depth",
            "what waiting messages, topics, groups and keys cost those that don't wait",
            depth.Depth,
            depth.run,
            depth.planned_s,
            {"case": ["keys"], "backlog": 5_000, "rounds": 1},
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
            {"rounds": 50},
        ),
        Scenario(
            "counts",
            "calls, memory and system calls of a message, which are the same on every machine",
            counts.Counts,
            counts.run,
            counts.planned_s,
            {"messages": 50, "rounds": 1},
        ),
    )
}
