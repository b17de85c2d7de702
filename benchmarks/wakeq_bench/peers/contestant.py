"""What a queue has to be to be measured: a server that the benchmark starts, and a script for its usual client."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from wakeq_bench.measure import ProcessGone
from wakeq_bench.peers import PeerUnavailable
from wakeq_bench.peers.environments import Progress, script
from wakeq_bench.processes import Child, ProcessFailed, Server
from wakeq_bench.scenarios.raw import BrokenAnswer

FAILURES = (PeerUnavailable, ProcessFailed, ProcessGone, BrokenAnswer, OSError)
"""What one contestant may fail with, which is no reason to lose what the others do."""

Keeps = Literal["memory", "os", "fsync"]
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Contestant:
    """A queue in one way to keep its messages and one to hand them out."""

    key: str
    title: str
    keeps: Keeps
    """Where a message is for certain when its publish is confirmed."""
    prepare: Callable[[Progress], Path]
    """The python that runs the client. Raises PeerUnavailable, whose sentence says how to install what is missing."""
    server: Callable[[Path], AbstractContextManager[Server]]
    """Starts it on a directory of its own, which may hold what it stored before. Raises ProcessFailed."""
    client: str
    """The script in `peers/scripts`, without `load_`."""
    versions: Callable[[], Sequence[str]]
    settings: Mapping[str, str] = field(default_factory=dict)
    """What its server is told; everything else is as it comes."""
    way: str = ""
    """How the script consumes, where it has several ways."""
    batches: bool = True
    """Whether its client takes and acks many messages at a time."""
    groups: bool = True
    """Whether several groups can each have every message."""
    restarts: bool = True
    """Whether messages are there after its process was killed."""
    consumers_max: int = 10_000
    """Idle consumers beyond which it is not asked for more."""
    http: bool = False
    """Whether HTTP is what it speaks."""
    takes_per_s: float | None = None
    """Messages a second that a consumer takes at most, where it pauses between them."""
    idle_period_s: float = 0.0
    """Once in so many seconds each of its consumers does something while nothing happens."""
    waits_only: bool = False
    """Whether it is another's queue or client, and only how it waits is its own."""
    requests: Callable[[str], int] | None = None
    """How many its server has answered, where that counts them itself, the one that asks included."""
    remarks: tuple[str, ...] = ()
    """What a reader has to know to compare it fairly."""

    @contextmanager
    def serving(self, data: Path | None = None) -> Iterator[Server]:
        """Its server; `data` outlives it. Raises PeerUnavailable, ProcessFailed."""
        with (
            tempfile.TemporaryDirectory(prefix="wakeq-bench-") as directory,
            self.server(data or Path(directory)) as one,
        ):
            yield one

    @contextmanager
    def working(self, server: Server, python: Path, job: str, options: Sequence[str] = ()) -> Iterator[Child]:
        """Its client at a job. Raises ProcessFailed."""
        command = [
            str(python),
            str(script(f"load_{self.client}")),
            job,
            "--url",
            server.url,
            "--way",
            self.way,
            *options,
        ]
        with Child(f"the client of {self.key}", command) as client:
            yield client

    @contextmanager
    def loaded(self, python: Path, job: str, options: Sequence[str] = ()) -> Iterator[tuple[Server, Child]]:
        """Its server and its client at a job. Raises PeerUnavailable, ProcessFailed."""
        with self.serving() as server, self.working(server, python, job, options) as client:
            yield server, client

    def described(self) -> dict[str, object]:
        """For whoever reads results."""
        return {
            "title": self.title,
            "keeps": self.keeps,
            "settings": dict(self.settings),
            "versions": list(self.versions()),
            "remarks": list(self.remarks),
        }
