"""Redis, whose streams are the queue, and its own asynchronous client."""

import logging
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wakeq_bench.peers import PeerUnavailable, environments
from wakeq_bench.peers.contestant import Contestant, Keeps
from wakeq_bench.peers.environments import CONSTRAINTS, Progress, Recipe
from wakeq_bench.processes import HOST, Child, Server, free_ports

_CLIENT = Recipe(
    name="redis-py",
    directory="redis",
    # With its parser in C, which its documentation advises.
    requirements=("redis", "hiredis"),
    constraints=CONSTRAINTS / "redis.txt",
    modules="redis.asyncio, hiredis",
)
_logger = logging.getLogger(__name__)


def prepare(progress: Progress = _logger.info) -> Path:
    """The python of an environment with redis-py, where there is a server too. Raises PeerUnavailable."""
    _program()
    return environments.environment(_CLIENT, progress)


def versions() -> list[str]:
    """Of the server and of what its client consists of. Raises PeerUnavailable."""
    done = subprocess.run([_program(), "--version"], capture_output=True, text=True, check=True)
    return [done.stdout.strip(), *_CLIENT.pins()]


def _program() -> str:
    found = shutil.which("redis-server")
    if found is None:
        raise PeerUnavailable(
            "redis-server is not installed: try `apt-get install redis-server` or `brew install redis`."
        )
    return found


def settings(appendfsync: str) -> dict[str, str]:
    """What is set; everything else is as Redis has it."""
    # A consumer that waits is a connection, and 10,000 are as many as there may be otherwise, publishers included.
    return {"appendonly": "yes", "appendfsync": appendfsync, "save": "", "maxclients": "20000"}


@contextmanager
def server(appendfsync: str, data: Path) -> Iterator[Server]:
    """A server with an append-only file in that directory. Raises PeerUnavailable, ProcessFailed."""
    (port,) = free_ports(1)
    given = {"bind": HOST, "port": str(port), "dir": str(data), **settings(appendfsync)}
    options = [part for name, value in given.items() for part in (f"--{name}", value)]
    with Child("redis-server", [_program(), *options]) as child:
        child.wait_for(lambda line: True if "Ready to accept connections" in line else None)
        yield Server(f"redis://{HOST}:{port}", child)


def _contestant(appendfsync: str, keeps: Keeps) -> Contestant:
    return Contestant(
        key=f"redis-{appendfsync}",
        title=f"Redis Streams, appendfsync {appendfsync}",
        keeps=keeps,
        prepare=prepare,
        server=lambda data: server(appendfsync, data),
        client="redis",
        versions=versions,
        settings=settings(appendfsync),
        remarks=("Redis keeps what is acked: nothing trims the stream.",),
    )


CONTESTANTS = (_contestant("always", "fsync"), _contestant("everysec", "os"))
