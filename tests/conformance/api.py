"""The protocol as the suite speaks it: plain requests, requests that stay parked, and streams."""

import itertools
import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import httpx

from wakeq._sse import ServerSentEvent, SSEParser

PATIENCE_S = 20.0
"""A bound for failures: what takes so long never comes."""
ARRIVES_S = 10.0
"""How long a claim waits for what must come at once, or as soon as a lease or a delay of the test is over."""

Json = dict[str, Any]


class Answer:
    """A whole answer."""

    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.content = response.read()

    def json(self) -> Any:
        """Its body."""
        return json.loads(self.content)

    def bodies(self) -> list[Any]:
        """Of an answer to a claim: the messages' bodies."""
        return [delivery["body"] for delivery in self.json()["messages"]]


class Request:
    """A request on a connection of its own, whose answer is read when it is wanted."""

    def __init__(self, url: str, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        self.connection = HTTPConnection(str(parts.hostname), parts.port, timeout=PATIENCE_S)
        self.connection.request(method, path, body, dict(headers))

    def answer(self) -> Answer:
        """Wait for it."""
        with self.connection.getresponse() as response:
            return Answer(response)

    def close(self) -> None:
        """Hang up."""
        self.connection.close()


class EventStream(Request):
    """An open stream. ``received`` is every byte of it so far."""

    def __init__(self, url: str, path: str, headers: Mapping[str, str]) -> None:
        super().__init__(url, "GET", path, None, {"accept": "text/event-stream", **headers})
        self.response = self.connection.getresponse()
        self.received = b""
        self._parser = SSEParser()
        self._events: deque[ServerSentEvent] = deque()

    def next(self) -> ServerSentEvent:
        """The next event; EOFError where the stream has ended."""
        until = time.monotonic() + PATIENCE_S
        while not self._events:
            piece = self.response.read1(65_536)
            if not piece:
                raise EOFError(self.received)
            self.received += piece
            self._events += self._parser.feed(piece)
            assert self._events or time.monotonic() < until, "nothing comes but heartbeats"
        return self._events.popleft()

    def take(self, count: int) -> list[Any]:
        """That many events' data, which is JSON."""
        return [json.loads(self.next().data) for _ in range(count)]

    def close(self) -> None:
        """Hang up."""
        self.response.close()
        super().close()


class Queue:
    """One server, and the topics of one test; on the way out these go, and with them whatever waits there."""

    def __init__(self, url: str, http: httpx.Client, *, auto_creates: bool) -> None:
        self.url = url
        self.http = http
        self.auto_creates = auto_creates
        self._numbers = itertools.count(1)
        self._name = uuid4().hex[:12]
        self._open = ExitStack()
        self._topics: list[str] = []

    def hang_up(self) -> None:
        """Close whatever waits."""
        self._open.close()

    def close(self) -> None:
        """Hang up, and delete the topics."""
        self.hang_up()
        for name in self._topics:
            self.http.delete(f"/topics/{name}")

    # Topics

    def new_name(self) -> str:
        """A topic name that nobody uses."""
        name = f"conformance.{self._name}.{next(self._numbers)}"
        self._topics.append(name)
        return name

    def topic(self, **config: Any) -> str:
        """A new topic."""
        name = self.new_name()
        assert self.http.put(f"/topics/{name}", json=config).status_code == 201
        return name

    def info(self, topic: str) -> Json:
        """TopicInfo."""
        answer = self.http.get(f"/topics/{topic}")
        assert answer.status_code == 200, answer.text
        info: Json = answer.json()
        return info

    def group(self, topic: str, name: str = "default") -> Json:
        """GroupInfo."""
        group: Json = self.info(topic)["groups"][name]
        return group

    def standing(self, topic: str, group: str = "default") -> Json:
        """How a group stands, without its dead letters and what changes by itself."""
        info = self.group(topic, group)
        return {name: info[name] for name in ("ready", "delayed", "leased", "parked")}

    def wait_until(self, topic: str, group: str = "default", **standing: int | range) -> None:
        """Ask until a group stands so: a server tells nobody that it has parked somebody."""
        wanted = {name: value if isinstance(value, range) else [value] for name, value in standing.items()}
        until = time.monotonic() + PATIENCE_S
        while not all((now := self.group(topic, group))[name] in values for name, values in wanted.items()):
            assert time.monotonic() < until, f"{now} never became {standing}"

    def add_group(self, topic: str, *names: str) -> None:
        """New groups."""
        for name in names:
            assert self.http.put(f"/topics/{topic}/groups/{name}").status_code == 201

    # Messages

    def post(
        self,
        topic: str,
        content: bytes,
        content_type: str | None = "application/json",
        headers: Mapping[str, str | bytes] | None = None,
    ) -> httpx.Response:
        """Publish one body."""
        fields: dict[str, str | bytes] = {} if content_type is None else {"content-type": content_type}
        content_and_headers: Any = {"content": content, "headers": fields | dict(headers or {})}
        return self.http.post(f"/messages/{topic}", **content_and_headers)

    def batch(self, topic: str, content: bytes, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Publish an NDJSON body."""
        return self.post(topic, content, "application/x-ndjson", headers)

    def envelopes(
        self, topic: str, *lines: Any, lenient: bool = False, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Publish envelopes; a line that is bytes goes as it is."""
        body = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
        prefer = {"prefer": "handling=lenient"} if lenient else {}
        return self.post(topic, body, "application/vnd.wakeq.envelopes+x-ndjson", {**prefer, **(headers or {})})

    def send(self, topic: str, body: Any = None, **attributes: Any) -> int:
        """Publish one JSON value with what an envelope may say of it; its seq."""
        answer = self.envelopes(topic, {"body": body, **attributes})
        assert answer.status_code == 200, answer.text
        seq: int = answer.json()["first_seq"]
        return seq

    def publish(self, topic: str, *bodies: Any) -> list[int]:
        """Publish JSON values in one batch; their seqs."""
        answer = self.batch(topic, b"\n".join(json.dumps(body).encode() for body in bodies))
        assert answer.status_code == 200, answer.text
        published = answer.json()
        assert published["count"] == len(bodies)
        return list(range(published["first_seq"], published["last_seq"] + 1))

    def claim(self, topic: str, **ask: Any) -> list[Json]:
        """Claim; the deliveries."""
        answer = self.http.post(f"/messages/{topic}/claim", json=ask)
        assert answer.status_code == 200, answer.text
        messages: list[Json] = answer.json()["messages"]
        return messages

    def claim_one(self, topic: str, **ask: Any) -> Json:
        """Claim the one message that is there, or comes."""
        (delivery,) = self.claim(topic, **{"wait_s": ARRIVES_S, **ask})
        return delivery

    def settle(self, topic: str, **lines: Sequence[Any]) -> list[str]:
        """Settle; the status of each line."""
        answer = self.http.post(f"/messages/{topic}/settle", json=lines)
        assert answer.status_code == 200, answer.text
        return [result["status"] for result in answer.json()["results"]]

    def die(self, topic: str, *reasons: str | None, **ask: Any) -> list[Json]:
        """Make the next messages dead letters, for these reasons; their last deliveries."""
        deliveries = self.claim(topic, max=len(reasons), **ask)
        lines = [
            {"lease_id": lease, "reason": reason} for lease, reason in zip(leases(deliveries), reasons, strict=True)
        ]
        assert self.settle(topic, dead=lines) == ["ok"] * len(lines)
        return deliveries

    def peek(self, topic: str, **query: Any) -> list[Json]:
        """Look at messages."""
        answer = self.http.get(f"/topics/{topic}/messages", params=query)
        assert answer.status_code == 200, answer.text
        messages: list[Json] = answer.json()["messages"]
        return messages

    def do(self, topic: str, action: str, body: Any = None, **query: Any) -> Any:
        """Purge, redrive, pause or resume; the answer."""
        answer = self.http.post(f"/topics/{topic}/{action}", json=body, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    # What waits

    def start(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Request:
        """Send a request, and read its answer later."""
        request = Request(self.url, method, path, body, headers or {})
        self._open.callback(request.close)
        return request

    def park(self, topic: str, **ask: Any) -> Request:
        """A claim that is parked when this returns."""
        group = ask.get("group", "default")
        waiting = self.group(topic, group)["parked"]
        body = json.dumps({"wait_s": 50, **ask}).encode()
        request = self.start("POST", f"/messages/{topic}/claim", body)
        self.wait_until(topic, group, parked=waiting + 1)
        return request

    def stream(self, topic: str, headers: Mapping[str, str] | None = None, **query: Any) -> EventStream:
        """A stream whose head has come."""
        rest = f"?{urlencode(query)}" if query else ""
        stream = EventStream(self.url, f"/messages/{topic}{rest}", headers or {})
        self._open.callback(stream.close)
        return stream

    def events(self, *topics: str) -> EventStream:
        """An open `GET /events` of these topics; of all where none is named."""
        stream = EventStream(self.url, f"/events?topics={','.join(topics)}" if topics else "/events", {})
        self._open.callback(stream.close)
        return stream


def bodies(deliveries: Sequence[Json]) -> list[Any]:
    """The messages' bodies."""
    return [delivery["body"] for delivery in deliveries]


def leases(deliveries: Sequence[Json]) -> list[str]:
    """The lease ids."""
    return [delivery["lease_id"] for delivery in deliveries]
