"""`wakeq publish` against a real server."""

import json
import re
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support.cli import Terminal, Wakeq, ended, misused, refused, said, standing, started
from tests.support.server import STOP_S, ServerProcess, start_server


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


def test_publish_takes_a_file(wakeq: Wakeq, http: httpx.Client, topic: str, tmp_path: Path) -> None:
    file = tmp_path / "body.json"
    file.write_text('{\n  "n": 1.10\n}\n')
    assert said(wakeq(f"publish {topic} --file {file}")) == f"published message 1 to topic {topic}"
    assert http.get(f"/messages/{topic}?wait=0").content == file.read_bytes()
    assert "No such file" in refused(wakeq(f"publish {topic} -f {tmp_path}/none"), 2)
    assert "directory" in refused(wakeq(f"publish {topic} -f {tmp_path}"), 2)
    assert refused(wakeq(f"publish {topic} 1 -f {file}"), 2) == "there are two messages, BODY and --file"


def test_publish_takes_headers(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    said(wakeq("publish", topic, "1", "--header", "Color=light blue", "--header", "x=a=b"))
    (peeked,) = http.get(f"/topics/{topic}/messages").json()["messages"]
    assert peeked["headers"] == {"color": "light blue", "x": "a=b"}
    assert "'color' is no header; write NAME=VALUE" in misused(wakeq(f"publish {topic} 1 --header color"))
    assert refused(wakeq("publish", topic, "1", "--header", "a b=c")).startswith("headers: 'a b' has other characters")


@pytest.mark.parametrize(
    ("body", "says", "hint"),
    [
        (
            '{"a":\n  x}',
            "the body is not JSON: unexpected character, expected a JSON value, line 2, column 3",
            "quotes",
        ),
        ("1\n2\n", "the body is not JSON: unexpected content after document, line 2, column 1", "--ndjson"),
        (" \n", "the body is empty", "quotes"),
    ],
)
def test_a_body_that_is_not_json_is_told_where(wakeq: Wakeq, topic: str, body: str, says: str, hint: str) -> None:
    result = wakeq("publish", topic, stdin=body)
    assert refused(result, 2) == says
    assert hint in result.stderr


# Lines


def bodies(http: httpx.Client, topic: str) -> list[bytes]:
    """All that is there, as it was published."""
    taken = []
    while body := http.get(f"/messages/{topic}?wait=0").content:
        taken.append(body)
    return taken


def lines(count: int) -> bytes:
    return b"".join(b'{"n": %d}\n' % number for number in range(1, count + 1))


def test_a_message_a_line(wakeq: Wakeq, http: httpx.Client, topic: str, tmp_path: Path) -> None:
    content = b'{"n": 1.10}\n\n  "two"  \r\n[123456789012345678901234567890]'
    (tmp_path / "lines").write_bytes(content)
    for arguments in ((), ("-",), ("--file", f"{tmp_path}/lines")):
        told = said(wakeq("publish", topic, "--ndjson", *arguments, stdin=content))
        assert re.fullmatch(rf"published 3 messages to topic {topic} in \d+\.\d s, [\d,]+ a second", told)
        assert bodies(http, topic) == [b'{"n": 1.10}', b'"two"', b"[123456789012345678901234567890]"]
    assert said(wakeq("publish", topic, "--ndjson", stdin=b"\n")) == f"published 0 messages to topic {topic}"


def test_order_is_kept_over_batches(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    said(wakeq("publish", topic, "--ndjson", stdin=lines(2_500)))
    assert standing(http, topic)["ready"] == 2_500
    for after in (0, 999, 1_999, 2_499):
        (peeked,) = http.get(f"/topics/{topic}/messages?after={after}&limit=1").json()["messages"]
        assert peeked["body"] == {"n": after + 1}


@pytest.mark.parametrize(("good", "published"), [(0, 0), (5, 0), (1_000, 1_000), (1_500, 1_000)])
def test_a_line_that_is_not_json_is_named_and_nothing_of_its_batch_published(
    wakeq: Wakeq, http: httpx.Client, topic: str, good: int, published: int
) -> None:
    result = wakeq("publish", topic, "--ndjson", stdin=lines(good) + b'\n{"n": \n' + lines(3))
    reached = f"lines 1 to {published} are published, and nothing behind them" if published else "nothing is published"
    bad = f"wakeq: line {good + 2} is not JSON: unexpected end of data, column 6"
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [reached, bad, "hint: each line is one JSON value"]
    assert standing(http, topic)["ready"] == published


def test_a_line_that_the_server_refuses_is_named_by_its_own_number(
    wakeq: Wakeq, http: httpx.Client, topic: str
) -> None:
    http.put(f"/topics/{topic}", json={"schema": {"type": "object", "required": ["n"]}})
    result = wakeq("publish", topic, "--ndjson", stdin=lines(1_002) + b"\n\n{}\n")
    reached, message, hint = result.stderr.splitlines()
    assert result.exit_code == 1
    assert reached == "lines 1 to 1000 are published, and nothing behind them"
    assert message.startswith("wakeq: line 1005: ")
    assert hint.startswith("hint: `wakeq topics show TOPIC`")
    assert standing(http, topic)["ready"] == 1_000


def test_lenient_leaves_out_what_is_refused(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    http.put(f"/topics/{topic}", json={"schema": {"type": "object", "required": ["n"]}})
    result = wakeq("publish", topic, "--ndjson", "--lenient", stdin=lines(2) + b"\n{}\nx\n" + lines(1_200))
    assert result.exit_code == 1
    assert result.stdout.startswith(f"published 1,202 messages to topic {topic} in ")
    second, first, last = sorted(result.stderr.splitlines())
    assert first == "left out: line 5 is not JSON: unexpected character, expected a JSON value, column 1"
    assert second.startswith("left out: line 4: ")
    assert last == "wakeq: 2 lines left out"
    assert standing(http, topic)["ready"] == 1_202
    peeked = http.get(f"/topics/{topic}/messages?limit=4").json()["messages"]
    assert [one["body"]["n"] for one in peeked] == [1, 2, 1, 2]


def test_lenient_ends_at_what_is_wrong_with_all(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    http.put(f"/topics/{topic}", json={"max_messages": 5})
    result = wakeq("publish", topic, "--ndjson", "--lenient", stdin=lines(10))
    assert (result.exit_code, result.stdout) == (1, "")
    reached, message, _ = result.stderr.splitlines()
    assert reached == "nothing is published; whether lines 1 to 10 are isn't known"
    assert topic in message
    assert refused(wakeq(f"publish {topic} 1 --lenient"), 2) == "--lenient says what to do with lines"


def test_a_topic_that_is_full_says_from_where_to_go_on(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    http.put(f"/topics/{topic}", json={"max_messages": 1_500})
    result = wakeq("publish", topic, "--ndjson", stdin=lines(2_000))
    assert result.exit_code == 1
    assert result.stderr.startswith("lines 1 to 1000 are published, and nothing behind them\nwakeq: ")
    assert standing(http, topic)["ready"] == 1_000


@pytest.mark.parametrize("lenient", [[], ["--lenient"]], ids=["whole", "lenient"])
def test_attributes_are_for_each_line(wakeq: Wakeq, http: httpx.Client, topic: str, lenient: list[str]) -> None:
    options = ["--ndjson", *lenient, "--ttl", "1h", "--key", "k", "--header", "Color=light blue"]
    said(wakeq("publish", topic, *options, stdin=b'{"n": 1.10}\n2\n'))
    messages = http.get(f"/topics/{topic}/messages").json()["messages"]
    assert [(one["key"], one["headers"]) for one in messages] == [("k", {"color": "light blue"})] * 2
    assert http.get(f"/messages/{topic}?wait=0").content == b'{"n": 1.10}'
    result = wakeq("publish", topic, "--ndjson", *lenient, "--delay", "1h", stdin=b"3\n\n4")
    assert (result.exit_code, standing(http, topic)["delayed"]) == (0, 2)
    http.put(f"/topics/{topic}", json={"schema": {"type": "integer"}})
    result = wakeq("publish", topic, "--ndjson", *lenient, "--delay", "1h", stdin=b'5\n\n"6"\n')
    assert result.exit_code == 1
    assert "line 3" in result.stderr
    result = wakeq("publish", topic, "--ndjson", *lenient, "--header", "a b=c", stdin=b"7\n")
    assert (result.exit_code, "headers: 'a b' has other characters" in result.stderr) == (1, True)


@pytest.mark.parametrize("option", ["1", "--raw", "--idempotency-key i"])
def test_what_is_about_one_message_is_refused_with_many(
    wakeq: Wakeq, http: httpx.Client, topic: str, option: str
) -> None:
    says = refused(wakeq(f"publish {topic} --ndjson {option}"), 2)
    assert says == f"{option.split()[0].replace('1', 'BODY')} is about one message, and --ndjson reads many"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 1)])
def test_lines_are_published_as_they_come(
    server: ServerProcess, http: httpx.Client, topic: str, number: signal.Signals, code: int
) -> None:
    process = started(server, "publish", topic, "--ndjson", stdin=subprocess.PIPE)
    assert process.stdin is not None
    for body in (b"1\n", b"2\n"):
        process.stdin.write(body)
        process.stdin.flush()
        answer = http.post(f"/messages/{topic}/claim", json={"wait_s": STOP_S}, timeout=2 * STOP_S)
        (delivery,) = answer.json()["messages"]
        assert delivery["body"] == json.loads(body)
    # What is on its way is finished; its input is still open.
    process.send_signal(number)
    process.wait(STOP_S)
    assert ended(process) == (code, "", "lines 1 to 2 are published, and nothing behind them\n")


def test_a_server_that_is_not_there_is_told_at_once(wakeq: Wakeq, free_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{free_tcp_port}"
    assert refused(wakeq("publish", "jobs", "--ndjson", "--url", url, stdin=lines(1))).startswith(
        f"no answer from {url}"
    )


def test_lines_ride_out_a_server_that_restarts(tmp_path: Path) -> None:
    with start_server(tmp_path, durability="os") as server:
        httpx.put(f"{server.url}/topics/jobs", json={})
        process = started(server, "publish", "jobs", "--ndjson", stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(b"1\n")
        process.stdin.flush()
        assert httpx.get(f"{server.url}/messages/jobs?wait={STOP_S}", timeout=2 * STOP_S).content == b"1"
        server.terminate()
    process.stdin.write(b"2\n")
    process.stdin.close()
    process.stdin = None
    with start_server(tmp_path, durability="os", port=server.port) as server:
        code, out, err = ended(process)
        assert (code, err) == (0, "")
        assert out.startswith("published 2 messages to topic jobs in ")
        (peeked,) = httpx.get(f"{server.url}/topics/jobs/messages").json()["messages"]
        assert peeked["body"] == 2


def test_a_terminal_is_shown_how_far_it_has_come(server: ServerProcess, http: httpx.Client, topic: str) -> None:
    with Terminal(server, "publish", topic, "--ndjson", stdin=subprocess.PIPE) as terminal:
        assert terminal.process.stdin is not None
        terminal.process.stdin.write(lines(3))
        terminal.process.stdin.flush()
        terminal.read_until(r"3 messages +\d+/s")
        terminal.process.stdin.close()
        terminal.process.stdin = None
        terminal.read_until(rf"published 3 messages to topic {topic} in ")
        assert terminal.end()[0] == 0
