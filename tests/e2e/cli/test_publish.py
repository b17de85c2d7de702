"""`wakeq publish` against a real server."""

import httpx

from tests.support.cli import Wakeq, refused, said, standing


def test_publish_says_where_it_went_and_keeps_every_digit(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    body = b'{"n": 123456789012345678901234567890, "x": 1.10}'
    assert said(wakeq("publish", topic, body.decode())) == f"published message 1 to topic {topic}"
    assert http.get(f"/messages/{topic}?wait=0").content == body
    for arguments in ((), ("-",)):
        said(wakeq("publish", topic, *arguments, stdin=b' "from stdin"\n'))
        assert http.get(f"/messages/{topic}?wait=0").json() == "from stdin"


def test_publish_takes_attributes(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    options = "--delay 1h --ttl 2h --idempotency-key i"
    assert said(wakeq(f"publish {topic} 1 {options}")) == said(wakeq(f"publish {topic} 1 {options}"))
    assert standing(http, topic)["delayed"] == 1
    assert "idempotency key" in refused(wakeq(f"publish {topic} 2 --idempotency-key i"))
    said(wakeq("publish", topic, "2", "--key", "ü"))
    assert http.get(f"/topics/{topic}/messages").json()["messages"][0]["key"] == "ü"
    assert refused(wakeq("publish", topic, "2", "--key", " x")).startswith("key: ")


def test_publish_takes_bytes_where_the_topic_does(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    assert "not JSON" in refused(wakeq(f"publish {topic} hello"), 2)
    assert "octet-stream" in refused(wakeq(f"publish {topic} hello --raw"))
    http.put(f"/topics/{topic}", json={"schema": "any"})
    said(wakeq("publish", topic, "--raw", stdin=b"\xff\x00"))
    assert http.get(f"/messages/{topic}?wait=0").content == b"\xff\x00"


def test_publish_to_a_full_topic(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    http.put(f"/topics/{topic}", json={"max_messages": 1})
    said(wakeq(f"publish {topic} 1"))
    assert topic in refused(wakeq(f"publish {topic} 2"))
