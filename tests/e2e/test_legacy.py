"""What llama_deploy's queue server promised and no recording shows: paths, methods, content types, odd bodies."""

from collections.abc import Iterator
from itertools import count

import pytest

from tests.support.raw import JSON, Client, call
from tests.support.server import ServerProcess, start_server

MIB = 1024 * 1024
NUMBERS = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """With a store, so that topics have to be made; empty GETs are answered at once."""
    with start_server(tmp_path_factory.mktemp("data"), "--legacy-wait", "0", durability="os") as running:
        yield running


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server) as connected:
        yield connected


@pytest.fixture
def topic(client: Client) -> str:
    name = f"topic-{next(NUMBERS)}"
    assert client.call("POST", f"/topics/{name}").body == b"null"
    return name


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("POST", "/", "GET"),
        ("DELETE", "/?a=b", "GET"),
        ("HEAD", "/topics/x", "DELETE, GET, POST, PUT"),
        ("OPTIONS", "/topics/x", "DELETE, GET, POST, PUT"),
        ("PATCH", "/messages/x", "GET, POST"),
        ("TRACE", "/messages/x", "GET, POST"),
        ("GET", "/messages/x/claim", "POST"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(client: Client, method: str, target: str, allow: str) -> None:
    answer = client.call(method, target)
    assert (answer.status, answer.head.get("allow")) == (405, allow)
    assert method == "HEAD" or answer.json()["detail"] == "Method Not Allowed"


@pytest.mark.parametrize(
    ("method", "target", "location"),
    [
        ("GET", "/messages/x/", "/messages/x"),
        ("GET", "/messages/x//", "/messages/x"),
        ("POST", "/messages/x/?a=b&c", "/messages/x?a=b&c"),
        ("PUT", "/topics/x/", "/topics/x"),
        ("GET", "/messages/%C3%BC/", "/messages/%C3%BC"),
    ],
)
def test_a_slash_at_the_end_is_led_away(
    server: ServerProcess, client: Client, method: str, target: str, location: str
) -> None:
    answer = client.call(method, target)
    assert (answer.status, answer.head.get("location"), answer.body) == (307, server.url + location, b"")


def test_a_redirect_without_a_host_names_the_server(server: ServerProcess) -> None:
    answer = call(server, "GET", "/messages/x/", headers={"Host": None}, version="1.0")
    assert answer.head.get("location") == f"{server.url}/messages/x"


@pytest.mark.parametrize(
    "target", ["//", "/messages//x", "/topics/x/y", "/messages/x%2Fy", "/messages/x/y/", "/Topics/x"]
)
def test_any_other_path_is_not_found(client: Client, target: str) -> None:
    answer = client.call("GET", target)
    assert (answer.status, answer.json()["detail"]) == (404, "Not Found")


def test_parameters_that_mean_nothing_are_ignored(client: Client, topic: str) -> None:
    client.call("POST", f"/messages/{topic}?timeout=5&x", b'{"type":"a"}')
    assert client.call("GET", f"/messages/{topic}?timeout=no&lease=&&=").json()["type"] == "a"
    assert client.call("GET", "/?x=y").json()["service_name"] == "message_queue"


@pytest.mark.parametrize("name", ["..", "%2E%2E", "a%20b", "%C3%BC", "a;b", "a:b@c", "a%25", "%", "%zz", "-"])
def test_a_topic_may_have_any_name(client: Client, name: str) -> None:
    assert client.call("POST", f"/topics/{name}").status == 200
    client.call("POST", f"/messages/{name}", b'{"type":"named"}')
    assert client.call("GET", f"/messages/{name}").json()["type"] == "named"


def test_competing_consumers_get_each_message_once(server: ServerProcess, client: Client, topic: str) -> None:
    for number in range(20):
        client.call("POST", f"/messages/{topic}", b'{"type":"%d"}' % number)
    with Client(server) as other:
        types = [(client, other)[turn % 2].call("GET", f"/messages/{topic}").json()["type"] for turn in range(20)]
    assert types == [str(number) for number in range(20)]
    assert client.call("GET", f"/messages/{topic}").body == b"null"


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("APPLICATION/JSON", 200),
        ("application/json ; charset=latin-1", 200),
        ("application/problem+json", 200),
        ("application/jsonx", 422),
        ("text/json", 422),
        ("application/x-www-form-urlencoded", 422),
        ("multipart/form-data", 422),
        ("nonsense", 422),
        (None, 422),
    ],
)
def test_a_content_type_that_is_not_json_is_refused(
    client: Client, topic: str, content_type: str | None, status: int
) -> None:
    answer = client.call("POST", f"/messages/{topic}", b"{}", {"Content-Type": content_type})
    assert answer.status == status
    if status == 422:
        assert answer.json()["detail"][0] == {
            "type": "model_attributes_type",
            "loc": ["body"],
            "msg": "Input should be a valid dictionary or object to extract fields from",
            "input": "{}",
        }
        assert client.call("GET", f"/messages/{topic}").body == b"null"


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b'{"data":{"a":%b}}' % (b"9" * 4000), b'"data":{"a":%b}' % (b"9" * 4000)),
        (b'{"data":{"a":[NaN,-Infinity,{"b":1e400}]}}', b'"data":{"a":[null,null,{"b":null}]}'),
        (b'{"data":{"a":[1.0,-0.0,0.1,18446744073709551616]}}', b'"data":{"a":[1.0,-0.0,0.1,18446744073709551616]}'),
        (b'{"type":"\\ud800"}', b'"type":"\\ud800"'),
        (b'{"id_":"\\udfff\\u00fc"}', b'"id_":"\\udfff\\u00fc"'),
        (b'{"stats":{"publish_time":"\\ud800"}}', b'"publish_time":"\\ud800"'),
        (b'{"unknown":["\\ud800",NaN,12345678901234567890123]}', b'"unknown":["\\ud800",null,12345678901234567890123]'),
        (b'{"type":"\\ud83d\\ude00"}', b'"type":"\xf0\x9f\x98\x80"'),
        (b'\xef\xbb\xbf{"type":"marked"}', b'"type":"marked"'),
        ('{"type":"wide"}'.encode("utf-16"), b'"type":"wide"'),
    ],
)
def test_an_odd_body_is_delivered(client: Client, topic: str, body: bytes, kept: bytes) -> None:
    assert client.call("POST", f"/messages/{topic}", body).body == b"null"
    assert kept in client.call("GET", f"/messages/{topic}").body


@pytest.mark.parametrize(
    "body",
    [b'{"data":{"a":%b}}' % (b"9" * 5000), b'{"data":{"a":%b%b}}' % (b"[" * 9999, b"]" * 9999), b'{"type":"\xc3"}'],
)
def test_a_body_that_can_not_be_parsed_is_refused_in_the_originals_words(
    client: Client, topic: str, body: bytes
) -> None:
    answer = client.call("POST", f"/messages/{topic}", body)
    assert (answer.status, answer.json()["detail"]) == (400, "There was an error parsing the body")


def test_a_body_may_come_in_chunks_and_byte_by_byte(client: Client, topic: str) -> None:
    client.ask("POST", f"/messages/{topic}", headers={**JSON, "Transfer-Encoding": "chunked"})
    for byte in b'5\r\n{"typ\r\n9\r\ne":"bits"\r\n1\r\n}\r\n0\r\n\r\n':
        client.socket.sendall(bytes([byte]))
    assert client.answer().body == b"null"
    assert client.call("GET", f"/messages/{topic}").json()["type"] == "bits"


def test_an_absolute_target_is_its_path(server: ServerProcess, client: Client, topic: str) -> None:
    target = f"{server.url}/messages/{topic}"
    assert client.call("POST", target, b'{"type":"by proxy"}').body == b"null"
    assert client.call("GET", target).json()["type"] == "by proxy"
    assert client.call("GET", f"{server.url}/").status == 200


def test_requests_sent_at_once_are_answered_in_order(client: Client, topic: str) -> None:
    client.ask("POST", f"/messages/{topic}", b'{"type":"a"}')
    client.ask("POST", f"/messages/{topic}", b'{"type":"b"}')
    client.ask("GET", f"/messages/{topic}")
    client.ask("GET", f"/messages/{topic}")
    assert [client.answer().body, client.answer().body] == [b"null", b"null"]
    assert [client.answer().json()["type"], client.answer().json()["type"]] == ["a", "b"]


def test_forty_mebibytes_come_back_as_they_went(client: Client, topic: str) -> None:
    text = b"x" * (40 * MIB)
    assert client.call("POST", f"/messages/{topic}", b'{"data":{"a":"%b"}}' % text).body == b"null"
    assert b'"data":{"a":"%b"}' % text in client.call("GET", f"/messages/{topic}").body


def test_more_than_64_mebibytes_are_refused_while_they_come(server: ServerProcess, client: Client, topic: str) -> None:
    chunk = b"100000\r\n%b\r\n" % (b" " * MIB)
    with Client(server) as publisher:
        publisher.ask("POST", f"/messages/{topic}", headers={**JSON, "Transfer-Encoding": "chunked"})
        for _ in range(65):
            publisher.socket.sendall(chunk)
        answer = publisher.answer()
    assert (answer.status, answer.json()["code"]) == (413, "MESSAGE_TOO_LARGE")
    assert client.call("GET", f"/messages/{topic}").body == b"null"
