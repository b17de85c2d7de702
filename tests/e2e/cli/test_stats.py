"""`wakeq stats`: a table for people, lines for programs, and both as time goes on."""

import json
import re
import signal
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support.cli import Terminal, Wakeq, die, ended, misused, publish, refused, said, started
from tests.support.server import ServerProcess, start_server


def test_a_line_of_json_a_topic_where_there_is_no_terminal(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    http.put(f"/topics/{topic}/groups/audit")
    publish(http, topic, 1, 2, 3)
    die(http, topic, 1)
    http.post(f"/messages/{topic}/claim", json={})
    (line,) = said(wakeq(f"stats {topic}")).split("\n")
    shown = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", shown.pop("at"))
    assert shown.pop("published_per_s") > 0
    assert shown.pop("delivered_per_s") > shown.pop("settled_per_s") > 0
    assert shown.pop("oldest_age_s") > 0
    assert shown == {
        "topic": topic, "paused": False, "messages": 3, "bytes": 3,
        "ready": 4, "delayed": 0, "leased": 1, "dead": 1, "parked": 0,
    }  # fmt: skip


def test_all_topics_or_those_that_are_named(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    names = [json.loads(line)["topic"] for line in said(wakeq("stats")).split("\n")]
    assert names == [one["name"] for one in http.get("/topics?limit=1000").json()["topics"]]
    http.put("/topics/another", json={})
    names = [json.loads(line)["topic"] for line in said(wakeq(f"stats {topic} another {topic} --json")).split("\n")]
    assert names == [topic, "another"]


def test_an_unknown_topic_is_refused_by_its_name(wakeq: Wakeq, topic: str) -> None:
    assert refused(wakeq(f"stats {topic} nowhere")) == "topic nowhere not found"


def test_how_often_goes_with_watch(wakeq: Wakeq) -> None:
    assert refused(wakeq("stats --every 1s"), 2) == "--every says how often --watch shows it"
    assert "at least 0.1s" in misused(wakeq("stats --watch --every 0"))


def test_a_terminal_is_shown_a_table(server: ServerProcess, http: httpx.Client) -> None:
    topic = "paused"
    http.put(f"/topics/{topic}", json={})
    publish(http, topic, 1, 2)
    http.post(f"/topics/{topic}/pause")
    with Terminal(server, "stats", topic) as terminal:
        code, shown = terminal.end()
    header, line = re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()
    assert code == 0
    assert header.split() == ["topic", "ready", "delayed", "leased", "dead", "parked", "in/s", "out/s", "oldest"]
    assert re.fullmatch(rf"{topic} \(paused\) +2 +0 +0 +0 +0 +0\.\d +0\.0 +\ds", line)


def test_without_colour_there_is_none(server: ServerProcess, topic: str) -> None:
    with Terminal(server, "stats", topic, env={"NO_COLOR": "1"}) as terminal:
        _, shown = terminal.end()
    assert not re.search(r"\x1b\[[\d;]*(3|4|9|10)\d[\d;]*m", shown)


def test_it_is_shown_again_until_it_is_interrupted(server: ServerProcess, http: httpx.Client) -> None:
    topic = "watched"
    http.put(f"/topics/{topic}", json={})
    with Terminal(server, "stats", topic, "--watch", "--every", "100ms") as terminal:
        terminal.read_until(rf"{topic} +0 ")
        publish(http, topic, 1)
        terminal.read_until(rf"{topic} +1 ")
        terminal.process.send_signal(signal.SIGINT)
        code, shown = terminal.end()
    assert code == 130
    assert "\x1b[?25h" in shown, "the cursor is left hidden"


def test_the_busiest_are_shown_where_there_is_no_room_for_all(tmp_path: Path) -> None:
    with start_server(tmp_path) as server, httpx.Client(base_url=server.url, verify=False) as http:
        for number in range(40):
            http.put(f"/topics/topic-{number:02}", json={})
        publish(http, "topic-39", 1)
        with Terminal(server, "stats", "--watch") as terminal:
            shown = terminal.read_until("and 14 less busy")
    lines = [line.split()[0] for line in shown.splitlines()[1:-1]]
    assert lines == [*(f"topic-{number:02}" for number in range(25)), "topic-39"]


def test_a_narrow_terminal_is_shown_names_all_the_while(server: ServerProcess, http: httpx.Client) -> None:
    http.put("/topics/tall", json={})
    with Terminal(server, "stats", "tall", "--watch", env={"COLUMNS": "50"}) as terminal:
        shown = terminal.read_until("tall ")
    assert max(map(len, shown.splitlines())) <= 50


@pytest.mark.parametrize("on_terminal", [True, False])
def test_a_server_that_goes_away_meanwhile_is_waited_for(tmp_path: Path, on_terminal: bool) -> None:
    arguments = ("stats", "--watch", "--every", "100ms")
    with start_server(tmp_path, durability="os") as server:
        httpx.put(f"{server.url}/topics/jobs", json={})
        if on_terminal:
            with Terminal(server, *arguments) as terminal:
                terminal.read_until("jobs +0 ")
                server.terminate()
                terminal.read_until(f"no answer from {server.url}/: ")
                with start_server(tmp_path, durability="os", port=server.port):
                    publish_at(server.url, "jobs")
                    terminal.read_until("jobs +1 ")
            return
        process = started(server, *arguments)
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["ready"] == 0
        server.terminate()
        assert process.stderr.readline().startswith(b"no answer from ")
        with start_server(tmp_path, durability="os", port=server.port):
            publish_at(server.url, "jobs")
            while json.loads(process.stdout.readline())["ready"] == 0:
                pass
            process.send_signal(signal.SIGINT)
            assert ended(process)[0] == 130


def publish_at(url: str, topic: str) -> None:
    with httpx.Client(base_url=url, verify=False) as http:
        publish(http, topic, 1)


def test_a_reader_that_goes_away_ends_it_quietly(server: ServerProcess, topic: str) -> None:
    process = started(server, "stats", topic, "--watch", "--every", "100ms")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["topic"] == topic
    process.stdout.close()
    process.stdout = None
    assert ended_quietly(process) == (1, b"")


def ended_quietly(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    _, err = process.communicate(timeout=20)
    return process.returncode, err
