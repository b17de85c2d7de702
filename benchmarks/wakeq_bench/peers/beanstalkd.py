"""beanstalkd with its log of changes, and aiostalk, which is greenstalk for asyncio."""

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
    name="aiostalk",
    directory="beanstalkd",
    requirements=("aiostalk",),
    constraints=CONSTRAINTS / "beanstalkd.txt",
    modules="aiostalk",
)
_MESSAGE_MAX_BYTES = 2_000_000
_logger = logging.getLogger(__name__)


def prepare(progress: Progress = _logger.info) -> Path:
    """The python of an environment with aiostalk, where there is a server too. Raises PeerUnavailable."""
    _program()
    return environments.environment(_CLIENT, progress)


def versions() -> list[str]:
    """Of the server and of its client. Raises PeerUnavailable."""
    done = subprocess.run([_program(), "-v"], capture_output=True, text=True, check=True)
    return [done.stdout.strip(), *_CLIENT.pins()]


def _program() -> str:
    found = shutil.which("beanstalkd")
    if found is None:
        raise PeerUnavailable(
            "beanstalkd is not installed: try `apt-get install beanstalkd` or `brew install beanstalkd`."
        )
    return found


@contextmanager
def server(sync_every_ms: int | None, data: Path) -> Iterator[Server]:
    """A server that logs to that directory. Raises PeerUnavailable, ProcessFailed."""
    (port,) = free_ports(1)
    synced = [] if sync_every_ms is None else ["-f", str(sync_every_ms)]
    command = [_program(), "-V", "-l", HOST, "-p", str(port), "-b", str(data), "-z", str(_MESSAGE_MAX_BYTES), *synced]
    with Child("beanstalkd", command) as child:
        child.wait_for(lambda line: True if line.startswith("bind ") else None)
        yield Server(f"beanstalk://{HOST}:{port}", child)


def _contestant(name: str, title: str, keeps: Keeps, sync_every_ms: int | None) -> Contestant:
    return Contestant(
        key=f"beanstalkd-{name}",
        title=f"beanstalkd, log {title}",
        keeps=keeps,
        prepare=prepare,
        server=lambda data: server(sync_every_ms, data),
        client="beanstalkd",
        versions=versions,
        settings={} if sync_every_ms is None else {"-f": str(sync_every_ms)},
        groups=False,
        remarks=("Neither the protocol nor the client has batches: their messages go one after the other.",),
    )


CONTESTANTS = (
    _contestant("always", "synced before each answer", "fsync", 0),
    _contestant("default", "synced every 50 ms, as it comes", "os", None),
)
