"""Protocol, section 4.3: what becomes of a closed stream's messages."""

import json
import socket
from urllib.parse import urlsplit

from tests.conformance.api import PATIENCE_S, Queue, bodies, leases
from wakeq._sse import SSEParser


def test_written_messages_come_back_within_the_grace(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, "a", "b")
    stream = queue.stream(topic, lease=500, grace=0.5)
    stream.take(2)
    stream.close()
    first = queue.claim_one(topic)
    assert (first["body"], first["attempt"]) == ("a", 2)
    assert bodies(queue.claim(topic, max=5)) == ["b"]


def test_without_a_grace_they_come_back_at_once(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, *range(3))
    stream = queue.stream(topic, lease=500, grace=0)
    held = stream.take(3)
    parked = queue.park(topic, max=5)
    stream.close()
    deliveries = parked.answer().json()["messages"] + queue.claim(topic, max=5)
    assert [(d["body"], d["attempt"]) for d in deliveries] == [(0, 2), (1, 2), (2, 2)]
    assert queue.settle(topic, ack=leases(held)) == ["stale"] * 3


def test_who_extends_within_the_grace_keeps_the_message(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, "kept", "left")
    stream = queue.stream(topic, lease=500, grace=1)
    kept, _ = stream.take(2)
    stream.close()
    queue.wait_until(topic, parked=0)
    assert queue.settle(topic, extend=[{"lease_id": kept["lease_id"], "lease_s": 500}]) == ["ok"]
    assert queue.claim_one(topic)["body"] == "left"
    # Both graces began together: had nobody extended it, it would be here too.
    assert queue.claim(topic) == []
    assert queue.settle(topic, ack=[kept["lease_id"]]) == ["ok"]


def test_who_settles_within_the_grace_is_not_late(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, "a")
    stream = queue.stream(topic, lease=500, grace=100)
    (delivery,) = stream.take(1)
    stream.close()
    assert queue.settle(topic, ack=[delivery["lease_id"]]) == ["ok"]
    queue.wait_until(topic, ready=0, leased=0)


def test_the_lease_is_what_the_stream_asked_for_and_no_grace_lengthens_it(queue: Queue) -> None:
    topic = queue.topic(lease_s=500)
    queue.publish(topic, "a")
    stream = queue.stream(topic, lease=1, grace=600)
    stream.take(1)
    stream.close()
    assert queue.claim_one(topic)["attempt"] == 2


def test_what_no_stream_took_is_not_touched_by_its_end(queue: Queue) -> None:
    topic = queue.topic()
    queue.publish(topic, *range(3))
    stream = queue.stream(topic, lease=500, prefetch=1, grace=0)
    stream.take(1)
    claimed = queue.claim_one(topic, lease_s=500)
    stream.close()
    queue.wait_until(topic, ready=2, leased=1)
    assert [(d["body"], d["attempt"]) for d in queue.claim(topic, max=5)] == [(0, 2), (2, 1)]
    assert queue.settle(topic, ack=[claimed["lease_id"]]) == ["ok"]


class SlowReader:
    """A stream whose client reads nothing until it has said that it will send nothing more."""

    def __init__(self, url: str, path: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect((str(parts.hostname), parts.port))
        head = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: text/event-stream\r\n\r\n"
        self.socket.sendall(head.encode())

    def hang_up(self) -> list[int]:
        """End the stream; the bodies' first items of all events that had been written."""
        self.socket.shutdown(socket.SHUT_WR)
        received = b""
        while piece := self.socket.recv(1 << 20):
            received += piece
        self.socket.close()
        events = SSEParser().feed(unchunked(received.partition(b"\r\n\r\n")[2]))
        return [json.loads(event.data)["body"][0] for event in events]


def unchunked(data: bytes) -> bytes:
    """The body in a chunked answer, whose end may be missing."""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        body += data[:length]
        data = data[length + 2 :]
    return body


def test_what_was_not_written_is_undone_at_once(queue: Queue) -> None:
    topic, count = queue.topic(), 20
    reader = SlowReader(queue.url, f"/messages/{topic}?lease=500&grace=500&prefetch=1000")
    queue.wait_until(topic, parked=1)
    for number in range(count):
        queue.publish(topic, [number, "x" * 900_000])
    written = reader.hang_up()
    assert written == list(range(len(written)))
    assert 0 < len(written) < count
    # Of the one that was just being written either may be true.
    queue.wait_until(topic, leased=range(len(written) + 1), ready=range(count - len(written), count))
    left = queue.claim(topic, max=count)
    assert [(d["body"][0], d["attempt"]) for d in left] == [(n, 1) for n in range(count - len(left), count)]
