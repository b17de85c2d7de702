"""Random bytes, and requests with some of their bytes changed, seeded: all answers are the protocol's."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.servers import ANSWERS, SHORT, attacked
from tests.support.raw import JSON, Client, call, request
from tests.support.server import ServerProcess

SEED = 20_261_129
AT_ONCE = 50
LAST = request("localhost", "GET", "/healthz", headers={"Connection": "close"})
"""Whatever was sent before: it ends with this, or in a time-out, or is refused."""
CHUNKED = {**JSON, "Transfer-Encoding": "chunked"}
BASES = [
    request("localhost", "POST", "/messages/json", b'{"a": [1, 2.5e3, "\\u00fc", null]}', {"Idempotency-Key": "k"}),
    request("localhost", "POST", "/messages/json", None, CHUNKED) + b"5;x=y\r\n[1,2]\r\n0\r\nX: a\r\n\r\n",
    request("localhost", "POST", "/messages/legacy", b'{"type": "t", "data": {"a": 1}}'),
    request("localhost", "POST", "/messages/json", b"1\n2\n", {"Content-Type": "application/x-ndjson"}),
    request("localhost", "POST", "/messages/json/claim", b'{"max": 10, "lease_s": 30}'),
    request("localhost", "POST", "/messages/json/settle", b'{"ack": ["1-2-3-4-5"], "nack": [{"lease_id": "x"}]}'),
    request("localhost", "PUT", "/topics/put", b'{"schema": {"type": "object"}, "lease_s": 5}'),
    request("localhost", "GET", "/topics/json/messages?state=ready&limit=5"),
    request("localhost", "GET", "/messages/legacy?wait=0", headers={"Wakeq-Consumer": "me", "Prefer": "wait=0"}),
    request("localhost", "GET", "/topics/json/consumers?group=default", headers={"Origin": "http://localhost"}),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with attacked(tmp_path_factory.mktemp("data"), *SHORT) as running:
        yield running
        assert call(running, "GET", "/healthz").json() == {"status": "ok"}


def noise(rng: random.Random) -> bytes:
    """Bytes that are nothing, with or without what looks like lines."""
    return rng.choice([b"", b"GET / HTTP/1.1\r\n", b"\r\n"]) + rng.randbytes(rng.randrange(1, 400))


def changed(rng: random.Random) -> bytes:
    """Some requests, one of them changed a little."""
    sent = [bytearray(rng.choice(BASES)) for _ in range(rng.randrange(1, 4))]
    victim = rng.choice(sent)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(victim))
        match rng.randrange(5):
            case 0:
                victim[at] = rng.randrange(256)
            case 1:
                victim[at : at + rng.randrange(1, 9)] = b""
            case 2:
                victim[at:at] = rng.randbytes(rng.randrange(1, 5))
            case 3:
                victim[at:at] = rng.choice([b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"%", b"\xff", b"9" * 30])
            case _:
                other = rng.choice(BASES)
                begin = rng.randrange(len(other))
                victim[at:at] = other[begin : begin + 20]
    return b"".join(sent)


def ask_all(server: ServerProcess, cases: list[bytes]) -> None:
    """All at a time, since many end in a time-out."""
    clients = [Client(server) for _ in cases]
    try:
        for client, sent in zip(clients, cases, strict=True):
            client.socket.sendall(sent + LAST)
        for client, sent in zip(clients, cases, strict=True):
            for answer in client.answers():
                assert answer.status in ANSWERS - {500}, (sent, answer)
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize("number", range(16))
def test_noise_is_answered_as_noise(server: ServerProcess, number: int) -> None:
    rng = random.Random(f"{SEED} noise {number}")
    ask_all(server, [noise(rng) for _ in range(AT_ONCE)])


@pytest.mark.parametrize("number", range(24))
def test_changed_requests_are_answered_as_the_protocol_has_it(server: ServerProcess, number: int) -> None:
    rng = random.Random(f"{SEED} changed {number}")
    ask_all(server, [changed(rng) for _ in range(AT_ONCE)])


def test_pieces_come_in_any_size(tmp_path: Path) -> None:
    """The same requests in pieces as in one have the same answers."""
    with attacked(tmp_path) as patient:
        ask_in_pieces(patient)


def ask_in_pieces(server: ServerProcess) -> None:
    rng = random.Random(f"{SEED} pieces")
    quiet = [base for base in BASES if b"GET" in base[:3] or b"claim" in base or b"settle" in base]
    for _ in range(40):
        sent = b"".join(rng.choices(quiet, k=3)) + LAST
        with Client(server) as whole, Client(server) as cut:
            whole.socket.sendall(sent)
            begin = 0
            while begin < len(sent):
                size = rng.randrange(1, 90)
                cut.socket.sendall(sent[begin : begin + size])
                begin += size
            assert [a.status for a in whole.answers()] == [a.status for a in cut.answers()]
