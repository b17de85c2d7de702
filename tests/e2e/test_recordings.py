"""Every recorded request, made again to a wakeq server, is answered as llama_deploy's own server answered it.

The differences that are intended stand in `docs/protocol.md`. Any other fails here, and so does one that
is listed and doesn't show. `--legacy-wait 0` makes GETs of an empty topic answer at once, as the original does;
that wakeq parks them is a difference of its own, shown below with the others that no recording has.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.differences import RECORDED, Answered, documented
from tests.support.raw import JSON, Answer, Client, wait_parked
from tests.support.recordings import VERSIONS, Recorded, recording
from tests.support.server import ServerProcess, start_server

_MADE_UP_ID = re.compile(rb'"id_":"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"')
_ORIGIN = re.compile(r"^http://[^/]+")
_UNCOMPARED = ("date", "connection")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """With a store, since without one a topic is made by being named, and none is unknown."""
    with start_server(tmp_path, "--legacy-wait", "0", durability="os") as running:
        yield running


def replay(server: ServerProcess, recorded: Recorded) -> Answer:
    with Client(server) as client:
        if recorded.label == "garbage":
            client.socket.sendall(b"garbage\r\n\r\n")
            return client.answer()
        target = _ORIGIN.sub(server.url, recorded.target)
        version = "1.0" if recorded.label == "HTTP/1.0" else "1.1"
        headers = {"Connection": "close", **recorded.request_headers}
        client.ask(recorded.method, target, recorded.sent, headers, version)
        if recorded.interim:
            assert client.head().status == 100
        answer = client.answer(has_body=recorded.method != "HEAD")
        assert recorded.label == "keep-alive header" or client.ended()
        return answer


def comparable(status: int, headers: dict[str, str], body: bytes) -> Answered:
    """Without what differs from run to run: ids that the server makes up, and its address."""
    kept = {name: value for name, value in headers.items() if name not in _UNCOMPARED}
    if "location" in kept:
        kept["location"] = _ORIGIN.sub("http://server", kept["location"])
    return Answered(status, kept, _MADE_UP_ID.sub(b'"id_":"made up"', body))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_recorded_request_is_answered_as_recorded(server: ServerProcess, version: str) -> None:
    seen: set[str] = set()
    for recorded in recording(version):
        answer = replay(server, recorded)
        expected = comparable(recorded.status, recorded.headers, recorded.body)
        recorded = recorded._replace(body=expected.body)
        ours = comparable(answer.status, dict(answer.head.fields), answer.body)
        for difference in RECORDED:
            without = difference.take_back(recorded, ours)
            if without != ours:
                seen.add(difference.name)
            ours = without
        assert ours == expected, f"line {recorded.line}: {recorded.label}: {recorded.method} {recorded.target}"
    assert seen == {difference.name for difference in RECORDED if version in difference.versions}


def test_a_recording_is_read_to_its_last_line() -> None:
    for version in VERSIONS:
        requests = recording(version)
        assert len(requests) == 133
        assert requests[0].label == "home"
        assert (requests[-1].label, requests[-1].interim, requests[-1].status) == ("Expect: 100-continue", True, 200)


@pytest.fixture(scope="module")
def parking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """As it is by default, where a GET of an empty topic is parked."""
    with start_server(tmp_path_factory.mktemp("data")) as running:
        yield running


def an_empty_get_is_parked(server: ServerProcess, client: Client) -> None:
    with Client(server) as consumer:
        consumer.ask("GET", "/messages/parked")
        wait_parked(client, 1)
        client.call("POST", "/messages/parked", b'{"type":"at last"}')
        assert consumer.answer().json()["type"] == "at last"


def a_query_is_obeyed(server: ServerProcess, client: Client) -> None:
    assert client.call("GET", "/messages/query?wait=0").body == b"null"
    assert client.call("GET", "/messages/query", headers={"Prefer": "wait=0"}).body == b"null"
    assert client.call("GET", "/messages/query?wait=long").status == 400
    assert client.call("GET", "/messages/query?group=nobody").json()["code"] == "GROUP_NOT_FOUND"


def a_hang_up_takes_no_message(server: ServerProcess, client: Client) -> None:
    with Client(server) as consumer:
        consumer.ask("GET", "/messages/hang-up")
        wait_parked(client, 1)
        client.ask("POST", "/messages/hang-up", b"{}")
    assert client.answer().status == 200
    assert client.call("GET", "/messages/hang-up").status == 200


def events_are_streamed(server: ServerProcess, client: Client) -> None:
    with Client(server) as consumer:
        consumer.ask("GET", "/messages/events", headers={"Accept": "text/event-stream"})
        assert consumer.head().get("content-type") == "text/event-stream; charset=utf-8"


def lines_are_a_batch(server: ServerProcess, client: Client) -> None:
    lines = {"Content-Type": "application/x-ndjson"}
    assert client.call("POST", "/messages/batch", b"{}\n{}\n", lines).json()["count"] == 2


def a_huge_message_is_refused(server: ServerProcess, client: Client) -> None:
    with Client(server) as publisher:
        publisher.ask("POST", "/messages/huge", headers={**JSON, "Content-Length": str(64 * 1024 * 1024 + 1)})
        assert publisher.answer().status == 413


def a_nested_message_is_delivered(server: ServerProcess, client: Client) -> None:
    data = b"[" * 300 + b"]" * 300
    assert client.call("POST", "/messages/nested", b'{"data":{"a":%b}}' % data).status == 200
    assert b'"data":{"a":%b}' % data in client.call("GET", "/messages/nested").body


def an_unwritable_error_is_written(server: ServerProcess, client: Client) -> None:
    for wrong in (b'{"type":NaN}', b'"\\ud800"', b'{"action":"\\ud800"}'):
        assert client.call("POST", "/messages/wrong", wrong).status == 422


def an_unknown_topic_is_made(server: ServerProcess, client: Client) -> None:
    assert client.call("POST", "/messages/never-made", b"{}").status == 200


def a_long_name_is_refused(server: ServerProcess, client: Client) -> None:
    assert client.call("POST", f"/topics/{'n' * 255}").status == 200
    assert client.call("POST", f"/topics/{'n' * 256}").status == 400


def topics_are_configured_and_dropped(server: ServerProcess, client: Client) -> None:
    assert client.call("PUT", "/topics/configured", b"{}").status == 201
    assert client.call("DELETE", "/topics/configured").status == 204


def attributes_are_obeyed(server: ServerProcess, client: Client) -> None:
    for name, bad in (("Idempotency-Key", "k" * 256), ("Wakeq-Delay", "soon"), ("Wakeq-TTL", "0")):
        assert client.call("POST", "/messages/attributes", b"{}", {**JSON, name: bad}).status == 400
    keyed = {**JSON, "Idempotency-Key": "k"}
    first, again = (client.call("POST", "/messages/attributes", b"{}", keyed) for _ in range(2))
    assert first.head.get("wakeq-seq") == again.head.get("wakeq-seq") is not None


def envelopes_are_a_batch(server: ServerProcess, client: Client) -> None:
    lines = {"Content-Type": "application/vnd.wakeq.envelopes+x-ndjson"}
    assert client.call("POST", "/messages/envelopes", b'{"body":{}}\n{"body":{}}\n', lines).json()["count"] == 2


def calls_of_our_own(server: ServerProcess, client: Client) -> None:
    for path in ("/topics", "/v1", "/healthz", "/readyz", "/metrics"):
        assert client.call("GET", path).status == 200
    assert client.call("GET", "/topics/never-made/messages").status == 200
    for path in ("/messages/own/claim", "/messages/never-made/settle"):
        assert client.call("POST", path, b"{}").status == 200


def comings_are_streamed(server: ServerProcess, client: Client) -> None:
    with Client(server) as watcher:
        watcher.ask("GET", "/events")
        assert watcher.head().get("content-type") == "text/event-stream; charset=utf-8"


def a_consumers_name_is_checked(server: ServerProcess, client: Client) -> None:
    for name, status in (("worker 1", 200), ("n" * 256, 400)):
        assert client.call("GET", "/messages/named?wait=0", headers={"Wakeq-Consumer": name}).status == status


def no_way_to_the_pages(server: ServerProcess, client: Client) -> None:
    for path in ("/docs/", "/redoc/", "/openapi.json/", "/docs/oauth2-redirect"):
        assert client.call("GET", path).json()["detail"] == "Not Found"


def foreigners_are_refused(server: ServerProcess, client: Client) -> None:
    for foreign in ({"Origin": "http://example.org"}, {"Host": "example.org"}):
        assert client.call("GET", "/", headers=foreign).status == 403


@contextmanager
def another(*arguments: str) -> Iterator[Client]:
    """A client of a server with settings of its own."""
    with TemporaryDirectory() as data, start_server(Path(data), *arguments) as server, Client(server) as client:
        yield client


def a_token_is_asked_for(server: ServerProcess, client: Client) -> None:
    with another("--token", "t") as stranger:
        assert stranger.call("GET", "/").status == 401
        assert stranger.call("GET", "/", headers={"Authorization": "Bearer t"}).status == 200


def what_does_not_come_is_not_waited_for(server: ServerProcess, client: Client) -> None:
    with another("--head-timeout", "0.2") as slow:
        slow.socket.sendall(b"GET / HTTP/1.1")
        assert slow.answer().status == 408
        assert slow.ended()


def topics_are_limited(server: ServerProcess, client: Client) -> None:
    with another("--max-topics", "1") as maker:
        assert [maker.call("POST", f"/topics/{name}").status for name in ("a", "b")] == [200, 429]


def two_meanings_are_refused(server: ServerProcess, client: Client) -> None:
    assert client.call("GET", "/healthz", headers={"Host": None}).json()["code"] == "BAD_REQUEST"
    assert client.ended()


def trailers_are_dropped(server: ServerProcess, client: Client) -> None:
    client.ask("POST", "/messages/trailers", None, {**JSON, "Transfer-Encoding": "chunked"})
    client.socket.sendall(b"2\r\n{}\r\n0\r\nHost: example.org\r\n\r\n")
    assert client.answer().status == 200


def a_huge_head_is_refused(server: ServerProcess, client: Client) -> None:
    assert client.call("GET", "/", headers={"X": "x" * 0x10000}).json()["code"] == "HEAD_TOO_LARGE"
    assert client.ended()


def an_upgrade_loses_nothing(server: ServerProcess, client: Client) -> None:
    body, upgrade = b'{"type":"upgrade"}', {"Connection": "Upgrade", "Upgrade": "h2c"}
    assert client.call("POST", "/messages/upgrade", body, upgrade).status == 200
    assert client.call("GET", "/messages/upgrade").json()["type"] == "upgrade"


NOT_RECORDED: dict[str, Callable[[ServerProcess, Client], None]] = {
    "an empty topic: `GET /messages/{topic}`": an_empty_get_is_parked,
    "`GET /messages/{topic}` with `?wait=`, `?group=` or `Prefer: wait=`": a_query_is_obeyed,
    "`GET /messages/{topic}` whose client hangs up": a_hang_up_takes_no_message,
    "`GET /messages/{topic}` with `Accept: text/event-stream`": events_are_streamed,
    "`POST /messages/{topic}` as `application/x-ndjson`": lines_are_a_batch,
    "`POST /messages/{topic}` of more than 64 MiB": a_huge_message_is_refused,
    "`POST /messages/{topic}` nested some hundred levels deep": a_nested_message_is_delivered,
    "`POST /messages/{topic}` where what is wrong is NaN or has a lone surrogate": an_unwritable_error_is_written,
    "`POST /messages/{topic}` to an unknown topic, `--durability memory`": an_unknown_topic_is_made,
    "a topic's name of more than 255 characters": a_long_name_is_refused,
    "`PUT /topics/{topic}`, `DELETE /topics/{topic}`": topics_are_configured_and_dropped,
    "`POST /messages/{topic}` with `Idempotency-Key` or `Wakeq-*`": attributes_are_obeyed,
    "`POST /messages/{topic}` as `application/vnd.wakeq.envelopes+x-ndjson`": envelopes_are_a_batch,
    "`/messages/{topic}/claim`, `/messages/{topic}/settle`, `/topics`, `/topics/{topic}/…`, `/v1`, `/healthz`, "
    "`/readyz`, `/metrics`": calls_of_our_own,
    "`/events`": comings_are_streamed,
    "`GET /messages/{topic}` with `Wakeq-Consumer`": a_consumers_name_is_checked,
    "`/docs/`, `/redoc/`, `/openapi.json/`, `/docs/oauth2-redirect`": no_way_to_the_pages,
    "any request to a server with a token": a_token_is_asked_for,
    "a head or a body that doesn't come": what_does_not_come_is_not_waited_for,
    "a new topic beyond `--max-topics`": topics_are_limited,
    "a foreign `Origin` or `Host`": foreigners_are_refused,
    "what section 7 refuses for its framing": two_meanings_are_refused,
    "trailers": trailers_are_dropped,
    "a head of more than 64 KiB": a_huge_head_is_refused,
    "a body with `Upgrade`": an_upgrade_loses_nothing,
}


@pytest.mark.parametrize("name", NOT_RECORDED)
def test_a_difference_that_no_recording_has(parking: ServerProcess, name: str) -> None:
    with Client(parking) as client:
        NOT_RECORDED[name](parking, client)


def test_every_difference_is_documented_once() -> None:
    assert documented() == [*(difference.name for difference in RECORDED), *NOT_RECORDED]
