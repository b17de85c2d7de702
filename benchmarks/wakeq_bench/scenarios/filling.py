"""Topics filled over HTTP before something is measured on them."""

from collections.abc import Sequence

from wakeq_bench.processes import Server
from wakeq_bench.scenarios.raw import Connection, made, request

BATCH = 5_000
LINES = "application/x-ndjson"
ENVELOPES = "application/vnd.wakeq.envelopes+x-ndjson"
KILOBYTE = b'{"text": "' + b"x" * 1_000 + b'"}'
"""A message of a little over 1 KB."""


def fill(server: Server, topic: str, bodies: Sequence[bytes], count: int) -> None:
    """Publish `bodies` again and again until there are `count` messages. Raises BrokenAnswer, OSError."""
    for published in range(0, count, len(bodies)):
        publish_lines(server, topic, bodies[: count - published], LINES)


def publish_lines(server: Server, topic: str, lines: Sequence[bytes], content_type: str) -> None:
    """Publish a batch, a message a line. Raises BrokenAnswer, OSError."""
    posting = request(server.url, "POST", f"/messages/{topic}", b"\n".join(lines), content_type)
    with Connection(server.url) as connection:
        made(connection.exchange(posting))
