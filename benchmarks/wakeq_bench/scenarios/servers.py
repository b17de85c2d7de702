"""The servers that scenarios start: wakeq's, the bare ones, and the original queue of llama_deploy."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wakeq_bench.peers import llama_deploy
from wakeq_bench.processes import HOST, Child, Server, free_ports, json_record
from wakeq_bench.scenarios.raw import call

ORIGINAL_VERSION = "0.8.1"

QUEUE_MESSAGE = b'{"type": "default", "publisher_id": "bench", "data": {"text": "' + b"x" * 120 + b'"}}'
"""What scenarios publish: about 190 bytes, valid for the original queue too."""


@contextmanager
def wakeq_server(*options: str, durability: str = "memory", data: Path | None = None) -> Iterator[Server]:
    """wakeq's own server, which keeps nothing on disk unless it is told to; `data` outlives it."""
    with tempfile.TemporaryDirectory(prefix="wakeq-bench-") as directory:
        command = [sys.executable, "-m", "wakeq", "serve", "--port", "0"]
        command += ["--data", str(data or Path(directory) / "data")]
        # Without a drain: a benchmark leaves leases behind that nobody will settle.
        command += ["--durability", durability, "--log-format", "json", "--drain", "0", *options]
        with Child("wakeq serve", command) as child:
            yield Server(_announced_url(child), child)


@contextmanager
def bare_server(app: str) -> Iterator[Server]:
    """One of the bare ASGI apps of `wakeq_bench.baseline`."""
    with Child(f"bare ASGI app {app}", [sys.executable, "-m", "wakeq_bench.baseline", app]) as child:
        yield Server(_announced_url(child), child)


@contextmanager
def original_queue(python: Path) -> Iterator[Server]:
    """llama_deploy's SimpleMessageQueueServer, run by the python of a peer environment."""
    (port,) = free_ports(1)
    command = [str(python), str(llama_deploy.script("queue")), "--host", HOST, "--port", str(port)]
    with Child("llama_deploy's queue", command) as child:
        child.wait_for_ready()
        yield Server(f"http://{HOST}:{port}", child)


def metric(url: str, name: str) -> int:
    """A total or gauge of a wakeq server, summed over its labels. Raises BrokenAnswer, OSError."""
    text = call(url, "GET", "/metrics").body.decode()
    return metric_in(text, name)


def metric_in(text: str, name: str) -> int:
    """The same, from the text of `/metrics`."""
    lines = (line.rpartition(" ") for line in text.splitlines())
    return int(sum(float(value) for key, _, value in lines if key.partition("{")[0] == name))


def _announced_url(child: Child) -> str:
    def listening(line: str) -> str | None:
        record = json_record(line, "url")
        # wakeq's log names the event; a bare app says nothing else.
        return str(record["url"]) if record and record.get("event", "listening") == "listening" else None

    return child.wait_for(listening)
