"""The servers that scenarios start: wakeq's, the bare ones, and the original queue of llama_deploy."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wakeq_bench.peers import llama_deploy
from wakeq_bench.processes import HOST, Child, Server, free_ports, json_record
from wakeq_bench.scenarios.raw import call, made

ORIGINAL_VERSION = "0.8.1"

QUEUE_MESSAGE = b'{"type": "default", "publisher_id": "bench", "data": {"text": "' + b"x" * 120 + b'"}}'
"""What scenarios publish: about 190 bytes, valid for the original queue too."""


@contextmanager
def wakeq_server(*options: str, durability: str = "memory", data: Path | None = None) -> Iterator[Server]:
    """wakeq's own server, which keeps nothing on disk unless it is told to; `data` outlives it."""
    with tempfile.TemporaryDirectory(prefix="wakeq-bench-") as directory:
        arguments = serve_command(data or Path(directory) / "data", durability, *options)
        with Child("wakeq serve", [sys.executable, "-m", "wakeq", *arguments]) as child:
            yield Server(announced_url(child), child)


def serve_command(data: Path, durability: str = "memory", *options: str) -> list[str]:
    """The arguments of `wakeq` that start a server whose address `announced_url` reads."""
    # Without a drain: a benchmark leaves leases behind that nobody will settle.
    stored = ["--data", str(data), "--durability", durability]
    return ["serve", "--port", "0", *stored, "--log-format", "json", "--drain", "0", *options]


@contextmanager
def server_pair(durability: str) -> Iterator[tuple[Server, Server]]:
    """Two of them with an empty topic `t` each: one to be filled, and one to be measured beside it, in turns."""
    with wakeq_server(durability=durability) as full, wakeq_server(durability=durability) as plain:
        for server in (full, plain):
            made(call(server.url, "PUT", "/topics/t", {"max_deliveries": 0}))
        yield full, plain


@contextmanager
def bare_server(app: str) -> Iterator[Server]:
    """One of the bare ASGI apps of `wakeq_bench.baseline`."""
    with Child(f"bare ASGI app {app}", [sys.executable, "-m", "wakeq_bench.baseline", app]) as child:
        yield Server(announced_url(child), child)


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


def requests_total(url: str) -> int:
    """Requests that a wakeq server has answered, this one included."""
    return metric(url, "wakeq_requests_total")


def metric_in(text: str, name: str) -> int:
    """The same, from the text of `/metrics`."""
    lines = (line.rpartition(" ") for line in text.splitlines())
    return int(sum(float(value) for key, _, value in lines if key.partition("{")[0] == name))


def announced_url(child: Child) -> str:
    """Where a server that has just been started listens. Raises ProcessFailed."""

    def listening(line: str) -> str | None:
        record = json_record(line, "url")
        # wakeq's log names the event; a bare app says nothing else.
        return str(record["url"]) if record and record.get("event", "listening") == "listening" else None

    return child.wait_for(listening)
