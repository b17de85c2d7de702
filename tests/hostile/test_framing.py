"""Requests that can be read in two ways, or in none (RFC 9112): refused and closed; odd ones are taken."""

from collections.abc import Iterator

import pytest

from tests.hostile.servers import assert_refused, attacked
from tests.support.raw import JSON, Client, call, metric, request
from tests.support.server import ServerProcess
from wakeq_server.settings import HEAD_MAX_BYTES

HOST = b"Host: localhost\r\n"
GET = b"GET /healthz HTTP/1.1\r\n"
POST = b"POST /messages/json HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = GET + HOST + b"\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with attacked(tmp_path_factory.mktemp("data"), "--legacy-heartbeat", "0.02") as running:
        yield running


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server) as client:
        yield client


HEADS = {
    "length and coding": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n1234",
    "one length twice": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "lengths in a list": POST + b"Content-Length: 2, 2\r\n\r\n{}",
    "a plus": POST + b"Content-Length: +2\r\n\r\n{}",
    "a minus": POST + b"Content-Length: -1\r\n\r\n{}",
    "a length of nothing": POST + b"Content-Length:\r\n\r\n{}",
    "a length with a blank": POST + b"Content-Length: 1 2\r\n\r\n{}",
    "a length in hex": POST + b"Content-Length: 0x2\r\n\r\n{}",
    "a length with a fraction": POST + b"Content-Length: 2.0\r\n\r\n{}",
    "a length in other digits": POST + "Content-Length: ٢\r\n\r\n{}".encode(),
    "a length beyond 64 bits": POST + b"Content-Length: 18446744073709551616\r\n\r\n{}",
    "a coding that isn't chunked": POST + b"Transfer-Encoding: gzip\r\n\r\n",
    "a coding beneath chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a coding on top of chunked": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked in two headers": POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n2\r\n{}\r\n0\r\n\r\n",
    "two codings": POST + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "almost chunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked after a control character": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a blank before the colon": POST + b"Content-Length : 2\r\n\r\n{}",
    "a tab before the colon": POST + b"Content-Length\t: 2\r\n\r\n{}",
    "a folded header": GET + HOST + b"X: a\r\n b\r\n\r\n",
    "a folded length": POST + b"Content-Length:\r\n 2\r\n\r\n{}",
    "a blank before the first header": GET + b" X: a\r\n" + HOST + b"\r\n",
    "bare line feeds": b"GET /healthz HTTP/1.1\nHost: localhost\n\n",
    "a bare line feed between headers": GET + b"Host: localhost\nX: a\r\n\r\n",
    "a bare line feed at the end": GET + HOST + b"\n" + NEXT,
    "a bare carriage return in a value": GET + HOST + b"X: a\rb\r\n\r\n",
    "a bare carriage return between headers": GET + HOST + b"X: a\rY: b\r\n\r\n",
    "NUL in a value": GET + HOST + b"X: a\0b\r\n\r\n",
    "NUL in a name": GET + HOST + b"X\0: a\r\n\r\n",
    "a control character in a value": GET + HOST + b"X: a\x01b\r\n\r\n",
    "DEL in a value": GET + HOST + b"X: a\x7fb\r\n\r\n",
    "a name that is no token": GET + HOST + b"X(): a\r\n\r\n",
    "a name that isn't ASCII": GET + HOST + b"X\xff: a\r\n\r\n",
    "no name": GET + HOST + b": a\r\n\r\n",
    "no colon": GET + HOST + b"nothing\r\n\r\n",
    "no Host": GET + b"\r\n",
    "two Hosts": GET + HOST * 2 + b"\r\n",
    "two Hosts in one": GET + b"Host: localhost, localhost\r\n\r\n",
    "a Host with a blank": GET + b"Host: local host\r\n\r\n",
    "a Host with a path": GET + b"Host: localhost/x\r\n\r\n",
    "a Host with a user": GET + b"Host: me@localhost\r\n\r\n",
    "a Host with two ports": GET + b"Host: localhost:80:80\r\n\r\n",
    "a Host of many bytes": GET + b"Host: " + b"a" * 300 + b"\r\n\r\n",
    "a Host that isn't ASCII": GET + b"Host: localhost\xff\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2.0": b"GET /healthz HTTP/2.0\r\n" + HOST + b"\r\n",
    "HTTP/1.2": b"GET /healthz HTTP/1.2\r\n" + HOST + b"\r\n",
    "HTTP/0.9": b"GET /healthz HTTP/0.9\r\n" + HOST + b"\r\n",
    "another protocol": b"GET /healthz SIP/2.0\r\n" + HOST + b"\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "a proxy's preface": b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + NEXT,
    "a method in lower case": b"get /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "an unknown method": b"BREW /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT": b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target that is a host": b"GET localhost HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target that is a query": b"GET ?wait=0 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target with a tab": b"GET /heal\tthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target with NUL": b"GET /heal\0thz HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target in UTF-8": "GET /messages/ü HTTP/1.1\r\n".encode() + HOST + b"\r\n",
    "a query in UTF-8": "GET /messages/json?group=ü HTTP/1.1\r\n".encode() + HOST + b"\r\n",
    "another scheme": b"GET ftp://localhost/healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "a URL without a host": b"GET http:///healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "a URL with a user": b"GET http://me@localhost/healthz HTTP/1.1\r\n" + HOST + b"\r\n",
}


@pytest.mark.parametrize("sent", HEADS.values(), ids=HEADS)
def test_a_head_that_can_be_read_in_two_ways_is_refused(client: Client, sent: bytes) -> None:
    client.socket.sendall(sent)
    assert_refused(client.answer())
    assert client.ended()


@pytest.mark.parametrize("sent", HEADS.values(), ids=HEADS)
def test_it_is_refused_however_it_comes(client: Client, sent: bytes) -> None:
    """A byte at a time, and behind a request that is answered."""
    client.socket.sendall(NEXT)
    assert client.answer().status == 200
    for byte in sent:
        try:
            client.socket.sendall(bytes([byte]))
        except ConnectionError:
            break
    assert_refused(client.answer())
    assert client.ended()


@pytest.mark.parametrize("sent", HEADS.values(), ids=HEADS)
def test_what_comes_behind_it_is_no_request(server: ServerProcess, client: Client, sent: bytes) -> None:
    with Client(server) as monitor:
        before = metric(monitor, "wakeq_requests_total")
        client.socket.sendall(sent + NEXT * 3)
        (refused,) = client.answers()
        assert_refused(refused)
        assert metric(monitor, "wakeq_requests_total") - before == 1


BODIES = {
    "no size": b"zz\r\n{}\r\n0\r\n\r\n",
    "a size of nothing": b"\r\n{}\r\n0\r\n\r\n",
    "a size in decimals": b"2.0\r\n{}\r\n0\r\n\r\n",
    "a prefix": b"0x2\r\n{}\r\n0\r\n\r\n",
    "a plus": b"+2\r\n{}\r\n0\r\n\r\n",
    "a minus": b"-2\r\n{}\r\n0\r\n\r\n",
    "a blank behind the size": b"2 \r\n{}\r\n0\r\n\r\n",
    "a blank before the size": b" 2\r\n{}\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"10000000000000002\r\n{}\r\n0\r\n\r\n",
    "a size that is too small": b"1\r\n{}\r\n0\r\n\r\n",
    "a size that is too large": b"3\r\n{}\r\n0\r\n\r\n",
    "no line break behind the data": b"2\r\n{}0\r\n\r\n",
    "bare line feeds": b"2\n{}\n0\n\n",
    "a bare line feed behind the size": b"2\n{}\r\n0\r\n\r\n",
    "a bare line feed behind the data": b"2\r\n{}\n0\r\n\r\n",
    "a bare carriage return behind the size": b"2\r{}\r\n0\r\n\r\n",
    "a line feed in an extension": b"2;a\n=b\r\n{}\r\n0\r\n\r\n",
    "a control character in an extension": b"2;a\x01\r\n{}\r\n0\r\n\r\n",
    "a trailer that is no header": b"2\r\n{}\r\n0\r\nnothing\r\n\r\n",
    "a folded trailer": b"2\r\n{}\r\n0\r\nX: a\r\n b\r\n\r\n",
    "a trailer that is a length": b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n",
}


@pytest.mark.parametrize("sent", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/messages/json"),
        ("POST", "/messages/json/claim"),
        ("POST", "/messages/json/settle"),
        ("PUT", "/topics/made"),
        ("PUT", "/topics/json/push/p"),
    ],
)
def test_chunks_that_lie_are_refused_and_change_nothing(
    server: ServerProcess, client: Client, sent: bytes, method: str, target: str
) -> None:
    head = request("localhost", method, target, None, {**JSON, "Transfer-Encoding": "chunked"})
    for first in (head + sent, head):
        with Client(server) as attacker:
            attacker.socket.sendall(first)
            if first == head:
                attacker.socket.sendall(sent)
            answer = attacker.answer()
            assert (answer.status, answer.json()["code"]) == (400, "BAD_REQUEST")
            assert answer.head.get("connection") == "close"
            assert attacker.ended()
    assert client.call("GET", "/topics/json").json()["messages"] == 0
    assert client.call("GET", "/topics/made").status == 404


@pytest.mark.parametrize("sent", BODIES.values(), ids=BODIES)
def test_chunks_that_lie_end_a_started_answer_without_an_end(client: Client, sent: bytes) -> None:
    client.ask("GET", "/messages/legacy?wait=60", None, {"Transfer-Encoding": "chunked"})
    client.socket.sendall(b"1\r\n \r\n" + sent)
    answer = client.answer()
    assert (answer.status, answer.json()["code"]) == (400, "BAD_REQUEST")
    assert client.ended()


def test_a_body_that_nobody_reads_must_not_lie_either(client: Client) -> None:
    client.ask("POST", "/topics/unread", None, {"Transfer-Encoding": "chunked"})
    client.socket.sendall(b"zz\r\n" + NEXT)
    answer = client.answer()
    assert answer.status == 200
    assert client.ended()


TAKEN = {
    "line breaks before the request": (b"\r\n\r\n" + NEXT, 200),
    "a value in Latin-1": (GET + HOST + b"X: \xff\r\n\r\n", 200),
    "an empty value": (GET + HOST + b"X:\r\n\r\n", 200),
    "an empty Host": (GET + b"Host:\r\n\r\n", 200),
    "a Host with a port": (GET + b"Host: localhost:8001\r\n\r\n", 200),
    "a Host that is an address": (GET + b"Host: [::1]:8001\r\n\r\n", 200),
    "HTTP/1.0 without a Host": (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    "a URL": (b"GET http://localhost:8001/healthz HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    "a URL without a path": (b"GET HTTP://localhost HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    "a URL with a query alone": (b"GET http://localhost?x=y HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    "a URL of another host": (b"GET http://example.org/healthz HTTP/1.1\r\n" + HOST + b"\r\n", 403),
    "a Host that isn't the URL's": (b"GET http://localhost/healthz HTTP/1.1\r\nHost: example.org\r\n\r\n", 200),
    "the server as a whole": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "a path that is none here": (b"GET //healthz HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "Chunked": (POST + b"Transfer-Encoding: Chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200),
    "sizes with zeros and capitals": (CHUNKED + b"00A\r\n" + b" " * 10 + b"\r\n002\r\n{}\r\n000\r\n\r\n", 200),
    "an extension": (CHUNKED + b'2;a="b;c"\r\n{}\r\n0;d\r\n\r\n', 200),
    "a trailer": (CHUNKED + b"2\r\n{}\r\n0\r\nX: a\r\n\r\n", 200),
    "a length with zeros": (POST + b"Content-Length: 002\r\n\r\n{}", 200),
    "an upgrade": (GET + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 200),
    "an upgrade with a body": (
        POST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}", 200
    ),
    "an upgrade with chunks": (
        POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "status"), TAKEN.values(), ids=TAKEN)
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_what_is_only_odd_is_taken_in_any_pieces(client: Client, sent: bytes, status: int, piece: int) -> None:
    whole = (
        sent if b"1.0\r\n" in sent else sent + request("localhost", "GET", "/readyz", headers={"Connection": "close"})
    )
    for begin in range(0, len(whole), piece):
        client.socket.sendall(whole[begin : begin + piece])
    answers = client.answers()
    assert [answer.status for answer in answers] == ([status] if whole is sent else [status, 200])
    if b"POST" in sent:
        assert call_and_drop(client) == b"{}"


def call_and_drop(client: Client) -> bytes:
    """The message, which is taken."""
    with Client(client.server) as other:
        return other.call("GET", "/messages/json").body.strip()


@pytest.mark.parametrize("name", ["Host", "Origin", "Authorization", "Idempotency-Key", "Wakeq-Delay"])
def test_trailers_are_no_headers(client: Client, name: str) -> None:
    client.socket.sendall(CHUNKED + b"2\r\n{}\r\n0\r\n" + name.encode() + b": \xff/example.org\r\n\r\n")
    assert client.answer().status == 200
    assert call_and_drop(client) == b"{}"


# Sizes

ENDLESS = {
    "one header": [GET + HOST + b"X: ", b"x" * 1000],
    "many headers": [GET + HOST, b"X: xxxx\r\n" * 100],
    "a target": [b"GET /", b"x" * 1000],
    "a name": [GET, b"x" * 1000],
}


@pytest.mark.parametrize("first_and_more", ENDLESS.values(), ids=ENDLESS)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_head_without_end_is_too_large(client: Client, first_and_more: list[bytes], at_once: bool) -> None:
    first, more = first_and_more
    pieces = [first, *[more] * (HEAD_MAX_BYTES // len(more) + 1)]
    for piece in [b"".join(pieces)] if at_once else pieces:
        client.socket.sendall(piece)
    assert_refused(client.answer(), 431, "HEAD_TOO_LARGE")
    assert client.ended()


@pytest.mark.parametrize("at_once", [True, False])
def test_a_whole_head_that_is_too_large_is_refused(client: Client, at_once: bool) -> None:
    head = request("localhost", "GET", "/healthz", headers={"X": "x" * HEAD_MAX_BYTES})
    for piece in [head] if at_once else [head[:-2], head[-2:]]:
        client.socket.sendall(piece)
    assert_refused(client.answer(), 431, "HEAD_TOO_LARGE")
    assert client.ended()


@pytest.mark.parametrize("at_once", [True, False])
def test_a_head_as_large_as_may_be_is_taken(client: Client, at_once: bool) -> None:
    head = request("localhost", "GET", "/healthz", headers={"X": "x" * (HEAD_MAX_BYTES - 200)})
    for piece in [head] if at_once else [head[:-2], head[-2:]]:
        client.socket.sendall(piece)
    assert client.answer().status == 200


def test_a_small_head_behind_a_large_body_is_taken(client: Client) -> None:
    body = b'"' + b"x" * 200_000 + b'"'
    client.socket.sendall(request("localhost", "POST", "/messages/json", body) + NEXT[:-2])
    assert client.answer().status == 200
    client.socket.sendall(NEXT[-2:])
    assert client.answer().status == 200
    assert call_and_drop(client) == body


BETWEEN = {
    "an extension": [b"2;", b"x" * 1000],
    "many extensions": [b"", b"1;" + b"x" * 1000 + b"\r\n1\r\n"],
    "a trailer": [b"2\r\n{}\r\n0\r\nX: ", b"x" * 1000],
    "many trailers": [b"2\r\n{}\r\n0\r\n", b"X: xxxx\r\n" * 100],
}


@pytest.mark.parametrize("first_and_more", BETWEEN.values(), ids=BETWEEN)
def test_what_chunks_have_about_them_has_an_end(client: Client, first_and_more: list[bytes]) -> None:
    first, more = first_and_more
    client.socket.sendall(CHUNKED + first)
    # What comes in the same reading as the head, at most 256 KiB, isn't counted.
    for _ in range((HEAD_MAX_BYTES + (256 << 10)) // 1000 + 1):
        client.socket.sendall(more)
    answer = client.answer()
    assert (answer.status, answer.json()["code"]) == (431, "HEAD_TOO_LARGE")
    assert client.ended()
    with Client(client.server) as other:
        assert other.call("GET", "/messages/json").status == 204


def test_a_body_in_small_chunks_is_taken(server: ServerProcess, client: Client) -> None:
    body = b'"' + b"x" * 100_000 + b'"'
    client.socket.sendall(CHUNKED)
    client.socket.sendall(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
    assert client.answer().status == 200
    assert call(server, "GET", "/messages/json").body == body
