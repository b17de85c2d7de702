"""The queues that `wakeq bench throughput` compares: a server, and a script that loads it through its usual client."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from wakeq_bench.peers import nats, redis
from wakeq_bench.peers.environments import Progress, script
from wakeq_bench.processes import Child, Server
from wakeq_bench.scenarios.servers import wakeq_server


@dataclass(frozen=True, eq=False)
class Broker:
    """A queue in one way to keep its messages."""

    key: str
    title: str
    settings: Mapping[str, str]
    """What its server is told; everything else is as it comes."""
    prepare: Callable[[Progress], Path]
    """The python that runs the client. Raises PeerUnavailable."""
    server: Callable[[], AbstractContextManager[Server]]
    script: str
    versions: Callable[[], Sequence[str]]

    @contextmanager
    def loaded(self, python: Path, options: Sequence[str]) -> Iterator[tuple[Server, Child]]:
        """A server and its client at work. Raises PeerUnavailable, ProcessFailed."""
        with self.server() as server:
            command = [str(python), str(script(self.script)), "--url", server.url, *options]
            with Child(f"the client of {self.key}", command) as client:
                yield server, client


def _wakeq(durability: str) -> Broker:
    return Broker(
        f"wakeq-{durability}",
        f"wakeq, {durability}",
        {"durability": durability},
        lambda _progress: Path(sys.executable),
        lambda: wakeq_server(durability=durability),
        "load_wakeq",
        # Those of wakeq and what it stands on are in the environment of every report.
        list,
    )


def _redis(appendfsync: str) -> Broker:
    return Broker(
        f"redis-{appendfsync}",
        f"Redis Streams, appendfsync {appendfsync}",
        redis.settings(appendfsync),
        redis.prepare,
        lambda: redis.server(appendfsync),
        "load_redis",
        redis.versions,
    )


def _nats(name: str, sync_interval: str | None) -> Broker:
    return Broker(
        f"nats-{name}",
        f"NATS JetStream, files, sync_interval {sync_interval or 'as it comes (2 minutes)'}",
        nats.settings(sync_interval),
        nats.prepare,
        lambda: nats.server(sync_interval),
        "load_nats",
        nats.versions,
    )


BROKERS = (
    _wakeq("fsync"),
    _wakeq("os"),
    _wakeq("memory"),
    _redis("always"),
    _redis("everysec"),
    _nats("always", "always"),
    _nats("default", None),
)
