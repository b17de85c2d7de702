"""Values that are no text, have no end or no size: refused by their name, or taken; never an error of the server."""

from collections.abc import Iterator

import pytest

from tests.hostile.servers import ANSWERS, attacked
from tests.support.raw import JSON, Client
from tests.support.server import ServerProcess

LINES = {"Content-Type": "application/x-ndjson"}
ENVELOPES = {"Content-Type": "application/vnd.wakeq.envelopes+x-ndjson"}
LENIENT = {**ENVELOPES, "Prefer": "handling=lenient"}
BYTES = {"Content-Type": "application/octet-stream"}

BODIES: list[tuple[str, str, dict[str, str]]] = [
    ("POST", "/messages/json", JSON),
    ("POST", "/messages/legacy", JSON),
    ("POST", "/messages/typed", JSON),
    ("POST", "/messages/any", BYTES),
    ("POST", "/messages/json", LINES),
    ("POST", "/messages/legacy", LINES),
    ("POST", "/messages/json", ENVELOPES),
    ("POST", "/messages/json", LENIENT),
    ("POST", "/messages/json/claim", JSON),
    ("POST", "/messages/json/settle", JSON),
    ("PUT", "/topics/put", JSON),
    ("PUT", "/topics/json/push/p", JSON),
    ("POST", "/topics/json/redrive", JSON),
]
WRAPPED = ["%s", '{"body":%s}', '{"data":{"a":%s}}', '{"type":%s}', '{"id_":%s}', '{"max":%s}', '{"wait_s":%s}',
           '{"lease_s":%s}', '{"ack":[%s]}', '{"nack":[{"lease_id":%s}]}', '{"nack":[{"lease_id":"x","delay_s":%s}]}',
           '{"schema":%s}', '{"schema":{"enum":[%s]}}', '{"schema":{"maximum":%s}}', '{"max_messages":%s}',
           '{"body":1,"delay_s":%s}', '{"body":1,"key":%s}', '{"body":1,"id":%s}', '{"body":1,"headers":{"a":%s}}',
           '{"body_b64":%s}', '{"url":%s}', '{"group":%s}', '{%s:1}']  # fmt: skip
WRAPPED_LARGE = ["%s", '{"body":%s}', '{"data":{"a":%s}}', '{"ack":[%s]}', '{"schema":%s}', "{%s:1}"]
VALUES: dict[str, bytes] = {
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "deep and open": b"[" * 200_000,
    "many digits": b"9" * 5_000,
    "very many digits": b"-" + b"9" * 200_000,
    "a large exponent": b"1e400",
    "a larger exponent": b"1e99999999999999999999",
    "a small exponent": b"1e-400",
    "2^63": b"9223372036854775808",
    "2^64": b"18446744073709551616",
    "many decimals": b"0." + b"3" * 100_000,
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "a lone surrogate": b'"\\ud800"',
    "a surrogate in the wrong order": b'"\\udc00\\ud800"',
    "a lone surrogate as bytes": b'"\xed\xa0\x80"',
    "no UTF-8": b'"\xff\xfe"',
    "cut UTF-8": b'"\xc3"',
    "an overlong slash": b'"\xc0\xaf"',
    "NUL": b'"a\0b"',
    "escaped NUL": b'"\\u0000"',
    "a line break": b'"a\nb"',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "no JSON": b"{'a':1}",
    "nothing": b"",
    "a long string": b'"' + b"x" * 500_000 + b'"',
    "one name many times": b'{"a":1' + b',"a":1' * 50_000 + b"}",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with attacked(tmp_path_factory.mktemp("data"), "--auto-create-topics") as running:
        yield running


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with attacked(tmp_path_factory.mktemp("data"), "--durability", "os") as running:
        yield running


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("kind", ["server", "stored"])
def test_no_value_in_a_body_is_an_error_of_the_server(request: pytest.FixtureRequest, kind: str, value: bytes) -> None:
    with Client(request.getfixturevalue(kind)) as client:
        client.call("PUT", "/topics/typed", b'{"schema":{"type":"object","properties":{"a":{"$ref":"#"}}}}', JSON)
        client.call("POST", "/topics/legacy")
        for method, target, headers in BODIES:
            for wrapped in WRAPPED if len(value) < 10_000 else WRAPPED_LARGE:
                body = wrapped.encode().replace(b"%s", value)
                answer = client.call(method, target, body, headers)
                assert answer.status in ANSWERS - {500}, (method, target, wrapped, answer)
                if answer.status >= 400:
                    assert answer.json()["code"], (method, target, wrapped)
        # Whatever was taken is handed out.
        for topic in ("json", "legacy", "typed", "any", "put"):
            assert client.call("GET", f"/topics/{topic}/messages?limit=100").status in (200, 404)
            while (answer := client.call("POST", f"/messages/{topic}/claim", b'{"max":1000}')).status == 200:
                if not answer.json()["messages"]:
                    break


NAMES = ["%FF", "%C3", "%C3%28", "%ED%A0%80", "%C0%AF", "%F8%88%80%80%80", "a%FFb", "%80"]
NAMED = [
    ("POST", "/topics/{}"),
    ("PUT", "/topics/{}"),
    ("GET", "/topics/{}"),
    ("DELETE", "/topics/{}"),
    ("PUT", "/topics/json/groups/{}"),
    ("PUT", "/topics/json/push/{}"),
    ("GET", "/messages/{}?wait=0"),
    ("POST", "/messages/{}"),
    ("POST", "/messages/{}/claim"),
    ("POST", "/messages/{}/settle"),
    ("GET", "/{}"),
]
ASKED = [
    ("GET", "/messages/json?wait=0&group={}"),
    ("GET", "/topics/json/messages?state={}"),
    ("GET", "/topics?after={}"),
    ("GET", "/topics/json/consumers?group={}"),
    ("POST", "/topics/json/purge?group={}"),
    ("GET", "/messages/json?{}=1"),
]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_text_is_no_name(server: ServerProcess, name: str) -> None:
    with Client(server) as client:
        topics = {topic["name"] for topic in client.call("GET", "/topics").json()["topics"]}
        for method, target in NAMED + ASKED:
            answer = client.call(method, target.format(name), b"{}" if method != "GET" else None)
            assert (answer.status, answer.json()["code"]) == (400, "BAD_REQUEST"), (method, target)
            assert "UTF-8" in answer.json()["detail"]
        assert {topic["name"] for topic in client.call("GET", "/topics").json()["topics"]} == topics


HEADERS = ["Wakeq-Consumer", "Idempotency-Key", "Wakeq-Delay", "Wakeq-TTL", "Wakeq-Ordering-Key", "Wakeq-H-a",
           "Wakeq-H-é", "traceparent", "Prefer", "Content-Type", "Accept", "Origin", "Authorization", "Expect",
           "Connection", "Accept-Encoding", "Access-Control-Request-Method"]  # fmt: skip
HEADER_VALUES = [b"\xff\xfe", b"\xed\xa0\x80", b"\xc3", b"x" * 10_000, b"9" * 10_000, b"-1", b"1e400", b"nan", b"inf",
                 b"", b",,,", b"=", b"wait=1e999", b"wait=-inf", b'wait="', b";;;", b"a\tb", "٣".encode(),
                 b"application/json; charset=\xff", b"application/x-ndjson\xff"]  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_no_value_of_a_header_is_an_error_of_the_server(server: ServerProcess, name: str) -> None:
    for value in HEADER_VALUES:
        for method, target in (("POST", "/messages/any"), ("GET", "/messages/any?wait=0"), ("OPTIONS", "/topics")):
            with Client(server) as client:
                head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n"
                length = "Content-Length: 2\r\n" if method == "POST" else ""
                body = b"{}" if length else b""
                client.socket.sendall((head + length).encode() + name.encode() + b": " + value + b"\r\n\r\n" + body)
                if name == "Accept":
                    continue
                answer = client.answer()
                assert answer.status in ANSWERS - {500}, (method, value)


QUERIES = {
    "/messages/json?wait={}": 400,
    "/messages/json?lease={}&prefetch=1": 0,
    "/topics/json/messages?limit={}": 400,
    "/topics/json/messages?after={}": 0,
    "/topics?limit={}": 400,
    "/topics?after={}": 200,
    "/events?topics=%00{}": 0,
}
NUMBERS = [
    "9" * 5_000,
    "1e400",
    "-1e400",
    "nan",
    "inf",
    "-1",
    "%D9%A3%D9%A3%D9%A3",
    "0x10",
    "",
    "+-1",
    "1" + "0" * 25,
]


@pytest.mark.parametrize("number", NUMBERS)
def test_no_number_in_a_query_is_an_error_of_the_server(
    server: ServerProcess, stored: ServerProcess, number: str
) -> None:
    for target, status in QUERIES.items():
        for where in (server, stored):
            with Client(where) as client:
                headers = {"Accept": "text/event-stream"} if "lease" in target else {}
                client.ask("GET", target.format(number), headers=headers)
                answer = client.head()
                assert answer.status in ANSWERS - {500}, target
                assert status in (0, answer.status), (target, answer)
