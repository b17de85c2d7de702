"""The ways to wait for a message that `wakeq bench run idle` compares: a server, and consumers on it."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from wakeq_bench.peers import llama_deploy
from wakeq_bench.processes import Child, Server
from wakeq_bench.report import Target
from wakeq_bench.scenarios.consumers import TOPIC_PREFIX
from wakeq_bench.scenarios.relay import counting_relay
from wakeq_bench.scenarios.servers import ORIGINAL_VERSION, metric, original_queue, wakeq_server

REFERENCE = "polling-original"
_REQUESTS_TOTAL = "wakeq_requests_total"


@dataclass(frozen=True)
class Running:
    """A contestant at work: two processes, and a count of requests that does not cost them anything in between."""

    server: Server
    consumers: Child
    requests: Callable[[], int]
    requests_of_counting: int = 0
    """How many requests one call of `requests` makes itself."""


@dataclass(frozen=True)
class Contestant:
    """A server and its consumers; `start` takes their number and the python of the original's environment."""

    key: str
    title: str
    start: Callable[[int, Path | None], AbstractContextManager[Running]]
    needs_original: bool = False
    times_less_min: Target | None = None
    """How much less CPU than the reference it should take, with 100 consumers."""
    requests_max: Target | None = None
    """Requests per second that 2 consumers should not exceed."""


@contextmanager
def _polling_original(count: int, python: Path | None) -> Iterator[Running]:
    assert python is not None
    with original_queue(python) as server, _consumers("poll", server.url, count) as consumers:
        yield Running(server, consumers, lambda: int(consumers.ask("requests")["requests"]))


def _on_wakeq(way: str) -> Callable[[int, Path | None], AbstractContextManager[Running]]:
    @contextmanager
    def start(count: int, _python: Path | None) -> Iterator[Running]:
        with wakeq_server() as server, _consumers(way, server.url, count) as consumers:
            yield _counted_by_wakeq(server, consumers)

    return start


@contextmanager
def _original_on_original(count: int, python: Path | None) -> Iterator[Running]:
    assert python is not None
    with ExitStack() as stack:
        server = stack.enter_context(original_queue(python))
        relay = stack.enter_context(counting_relay(server.url))
        consumers = stack.enter_context(_original_consumers(python, relay.url, count, {}))
        yield Running(server, consumers, lambda: relay.requests)


def _original_on_wakeq(
    *options: str, client_kwargs: dict[str, object] | None = None
) -> Callable[[int, Path | None], AbstractContextManager[Running]]:
    @contextmanager
    def start(count: int, python: Path | None) -> Iterator[Running]:
        assert python is not None
        with (
            wakeq_server(*options) as server,
            _original_consumers(python, server.url, count, client_kwargs or {}) as consumers,
        ):
            yield _counted_by_wakeq(server, consumers)

    return start


def _counted_by_wakeq(server: Server, consumers: Child) -> Running:
    return Running(server, consumers, lambda: metric(server.url, _REQUESTS_TOTAL), requests_of_counting=1)


@contextmanager
def _consumers(way: str, url: str, count: int) -> Iterator[Child]:
    command = [sys.executable, "-m", "wakeq_bench.scenarios.consumers", way, "--url", url, "--topics", str(count)]
    with Child(f"{count} consumers ({way})", command) as child:
        child.wait_for_ready()
        yield child


@contextmanager
def _original_consumers(python: Path, url: str, count: int, client_kwargs: dict[str, object]) -> Iterator[Child]:
    command = [str(python), str(llama_deploy.script("consumers")), "--url", url, "--topics", str(count)]
    command += ["--topic-prefix", TOPIC_PREFIX, "--client-kwargs", json.dumps(client_kwargs)]
    with Child(f"{count} consumers (llama_deploy's client)", command) as child:
        child.wait_for_ready()
        yield child


CONTESTANTS = (
    Contestant(REFERENCE, f"polling every 50 ms, llama_deploy {ORIGINAL_VERSION}", _polling_original, True),
    Contestant("polling-wakeq", "polling every 50 ms, wakeq ?wait=0", _on_wakeq("poll-nowait")),
    Contestant(
        "original-original", f"llama_deploy's client on llama_deploy {ORIGINAL_VERSION}", _original_on_original, True
    ),
    Contestant(
        "original-wakeq",
        "llama_deploy's client, unmodified, on wakeq",
        _original_on_wakeq(),
        needs_original=True,
        times_less_min=Target(">=", 80),
        requests_max=Target("<=", 0.05),
    ),
    Contestant(
        "original-noverify",
        "the same, client_kwargs verify: false",
        _original_on_wakeq(client_kwargs={"verify": False}),
        needs_original=True,
    ),
    Contestant(
        "original-silent",
        "llama_deploy's client on wakeq, heartbeats off",
        _original_on_wakeq("--legacy-heartbeat", "0"),
        needs_original=True,
        times_less_min=Target(">=", 25),
    ),
    Contestant("long-poll", "long poll, wakeq ?wait=60", _on_wakeq("long-poll")),
    Contestant("sse", "stream of server-sent events, wakeq", _on_wakeq("sse"), times_less_min=Target(">=", 400)),
)
"""The reference first: the others are measured against it."""
