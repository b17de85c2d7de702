"""`wakeq consume` against a real server: messages are printed, or given to commands, and then acked."""

import errno
import json
import os
import re
import select
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.cli import Wakeq, ended, publish, refused, said, standing, started
from tests.support.server import STOP_S, ServerProcess, start_server


def held(http: httpx.Client, topic: str) -> dict[str, int]:
    """The messages of a topic, by those of their states that have any."""
    found = standing(http, topic)
    return {name: found[name] for name in ("ready", "delayed", "leased", "dead") if found[name]}


def attempts(http: httpx.Client, topic: str) -> list[int]:
    """How often each message that is ready was delivered."""
    ready = http.get(f"/topics/{topic}/messages?state=ready").json()["messages"]
    return [message["attempt"] for message in ready]


# Printing


def test_consume_prints_a_body_a_line_and_acks(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    publish(http, topic, {"n": 1}, "a\nb", 3)
    assert said(wakeq(f"consume {topic} --max 2")) == '{"n":1}\n"a\\nb"'
    assert standing(http, topic)["ready"] == 1
    assert said(wakeq(f"consume {topic} --wait 0")) == "3"
    assert said(wakeq(f"consume {topic} --wait 0")) == ""
    assert http.get(f"/topics/{topic}").json()["messages"] == 0


def test_consume_takes_no_more_than_it_is_to_print(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    publish(http, topic, *range(205))
    assert said(wakeq(f"consume {topic} --max 203")).split("\n") == [str(n) for n in range(203)]
    assert {name: standing(http, topic)[name] for name in ("ready", "leased")} == {"ready": 2, "leased": 0}


def test_consume_without_an_ack_leaves_messages_leased(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    http.put(f"/topics/{topic}", json={"schema": "any"})
    http.put(f"/topics/{topic}/groups/g")
    http.post(f"/messages/{topic}", content=b"\xff", headers={"content-type": "text/plain"})
    result = wakeq(f"consume {topic} --group g --max 1 --no-ack")
    assert result.stdout_bytes == b"\xff\n"
    assert standing(http, topic, "g")["leased"] == 1
    assert standing(http, topic)["ready"] == 1


def test_an_interrupt_is_silent(server: ServerProcess, http: httpx.Client, topic: str) -> None:
    publish(http, topic, 1)
    process = started(server, "consume", topic, "--follow")
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "", "")


def test_a_reader_that_goes_away_costs_no_message(server: ServerProcess, http: httpx.Client, topic: str) -> None:
    http.put(f"/topics/{topic}", json={"retry_backoff_s": {"min": 0, "max": 0}})
    reads, writes = os.pipe()
    os.close(reads)
    process = started(server, "consume", topic, "--follow", stdout=writes)
    os.close(writes)
    publish(http, topic, 1)
    _, err = process.communicate(timeout=STOP_S)
    assert (process.returncode, err) == (1, b"")
    assert {name: standing(http, topic)[name] for name in ("ready", "leased")} == {"ready": 1, "leased": 0}


def test_consume_says_when_it_was_too_slow_to_ack(server: ServerProcess, http: httpx.Client, topic: str) -> None:
    # No pipe holds so much: it is being printed, and the lease that ends meanwhile is no longer its own.
    body = json.dumps("x" * 1_000_000)
    publish(http, topic, "x" * 1_000_000)
    process = started(server, "consume", topic, "--max", "1")
    assert process.stdout is not None
    printed = process.stdout.read(1)
    assert http.delete(f"/topics/{topic}/groups/default").status_code == 204
    printed += process.stdout.readline()
    code, _, err = ended(process)
    assert (printed.decode(), code) == (body + "\n", 1)
    assert err.startswith("wakeq: 1 message came too late to be acked")


def test_without_follow_it_ends_when_nothing_is_ready(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    publish(http, topic, 1, 2)
    assert said(wakeq(f"consume {topic}")) == "1\n2"
    assert said(wakeq(f"consume {topic} --wait 100ms")) == ""


def test_a_wait_that_is_longer_than_a_claim_may_be_is_several(
    wakeq: Wakeq, http: httpx.Client, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wakeq.cli._taking._PARK_S", 0.05)
    assert http.post(f"/messages/{topic}", json=1, headers={"wakeq-delay": "0.2"}).status_code == 200
    assert said(wakeq(f"consume {topic} --wait 10m --max 1")) == "1"
    assert said(wakeq(f"consume {topic} --wait 120ms")) == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_with_follow_it_waits_for_what_comes(
    server: ServerProcess, http: httpx.Client, topic: str, number: signal.Signals, code: int
) -> None:
    process = started(server, "consume", topic, "--follow")
    assert process.stdout is not None
    for body in (1, 2):
        publish(http, topic, body)
        assert process.stdout.readline() == b"%d\n" % body
    process.send_signal(number)
    assert ended(process) == (code, "", "")
    assert held(http, topic) == {}


def test_follow_rides_out_a_server_that_restarts(tmp_path: Path) -> None:
    with start_server(tmp_path, durability="os") as server:
        with httpx.Client(base_url=server.url, verify=False) as http:
            http.put("/topics/jobs", json={})
            publish(http, "jobs", 1)
        process = started(server, "consume", "jobs", "--follow")
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        server.terminate()
    with start_server(tmp_path, durability="os", port=server.port), httpx.Client(base_url=server.url) as http:
        publish(http, "jobs", 2)
        assert process.stdout.readline() == b"2\n"
        process.terminate()
        assert ended(process) == (0, "", "")


def test_whole_deliveries(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    attributes = {"wakeq-ordering-key": "k", "idempotency-key": "i", "wakeq-h-color": "blue"}
    http.post(f"/messages/{topic}", json={"n": 1}, headers=attributes)
    shown = json.loads(said(wakeq(f"consume {topic} --output json")))
    for moment in ("published_at", "lease_expires_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", shown.pop(moment))
    assert isinstance(shown.pop("lease_id"), str)
    assert shown == {
        "topic": topic, "seq": 1, "id": "i", "attempt": 1, "key": "k", "headers": {"color": "blue"}, "body": {"n": 1},
    }  # fmt: skip
    http.put(f"/topics/{topic}", json={"schema": "any"})
    http.post(f"/messages/{topic}", content=b"\xff", headers={"content-type": "image/png"})
    shown = json.loads(said(wakeq(f"consume {topic} --output json")))
    assert (shown["body_b64"], shown["content_type"], "body" in shown) == ("/w==", "image/png", False)


def test_a_signal_gives_back_what_nobody_reads(server: ServerProcess, http: httpx.Client, topic: str) -> None:
    http.put(f"/topics/{topic}", json={"max_deliveries": 3})
    # No pipe holds so much: it is being printed, and the next one isn't.
    publish(http, topic, "x" * 1_000_000, 2)
    process = started(server, "consume", topic, "--follow")
    assert process.stdout is not None
    process.stdout.read(1)
    process.terminate()
    process.wait(STOP_S)
    assert held(http, topic) == {"ready": 2}
    assert attempts(http, topic) == [1, 0]
    assert ended(process)[0] == 0


MISUSED = [
    ("--follow --wait 1s", "--follow never ends, and --wait says when to end"),
    ("--concurrency 2", "--concurrency is about commands"),
    ("--grace 2s", "--grace is about commands"),
    ("--exec true --output json", "--output is about printing"),
    ("--exec true --no-ack", "--no-ack is about printing"),
]


@pytest.mark.parametrize(("options", "says"), MISUSED)
def test_what_makes_no_sense_together(wakeq: Wakeq, topic: str, options: str, says: str) -> None:
    assert refused(wakeq(f"consume {topic} {options}"), 2) == says


# Commands


class Gate:
    """Commands that say that they have begun, and end when they are let go."""

    def __init__(self, folder: Path) -> None:
        self._begun, self._go = folder / "begun", folder / "go"
        for fifo in (self._begun, self._go):
            os.mkfifo(fifo)
        # Held open for both, so that no end waits for the other.
        self._begun_fd, self._go_fd = (os.open(fifo, os.O_RDWR) for fifo in (self._begun, self._go))
        begun, go = shlex.quote(str(self._begun)), shlex.quote(str(self._go))
        self.command = f"echo $WAKEQ_SEQ > {begun}; read code < {go}; exit $code"

    def begun(self) -> str:
        """The next message whose command has begun."""
        ready, _, _ = select.select([self._begun_fd], [], [], STOP_S)
        assert ready
        seq = b""
        while not seq.endswith(b"\n"):
            seq += os.read(self._begun_fd, 1)
        return seq.decode().strip()

    def let_go(self, code: int = 0) -> None:
        """One of them ends."""
        os.write(self._go_fd, b"%d\n" % code)

    def close(self) -> None:
        os.close(self._begun_fd)
        os.close(self._go_fd)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.close()


def executing(server: ServerProcess, topic: str, command: str, *options: str, **more: Any) -> subprocess.Popen[bytes]:
    return started(server, "consume", topic, "--exec", command, *options, **more)


def test_a_command_has_the_body_on_stdin_and_the_rest_in_its_environment(
    server: ServerProcess, http: httpx.Client, topic: str
) -> None:
    envelope = {
        "id": "i", "key": "k", "headers": {"color": "blue", "x-y.z": "1", "nul": "a\0b"}, "body": {"n": [1, "\n"]},
    }  # fmt: skip
    envelopes = {"content-type": "application/vnd.wakeq.envelopes+x-ndjson"}
    assert http.post(f"/messages/{topic}", content=json.dumps(envelope), headers=envelopes).status_code == 200
    command = "cat; echo; env | grep ^WAKEQ_ | grep -v WAKEQ_PUBLISHED_AT | sort; date -d $WAKEQ_PUBLISHED_AT +%Y"
    stale = {"WAKEQ_CONTENT_TYPE": "stale", "WAKEQ_HEADER_OLD": "stale"}
    code, out, err = ended(executing(server, topic, command, env=stale))
    assert (code, err) == (0, "")
    body, *env, year = out.splitlines()
    assert body == '{"n":[1,"\\n"]}'
    assert env == sorted([
        f"WAKEQ_URL={server.url}", f"WAKEQ_TOPIC={topic}", "WAKEQ_GROUP=default", "WAKEQ_SEQ=1", "WAKEQ_ATTEMPT=1",
        "WAKEQ_ID=i", "WAKEQ_KEY=k", "WAKEQ_HEADER_COLOR=blue", "WAKEQ_HEADER_X_Y_Z=1",
    ])  # fmt: skip
    assert re.fullmatch(r"20\d\d", year)
    assert http.get(f"/topics/{topic}").json()["messages"] == 0


@pytest.mark.parametrize(
    ("command", "reason"),
    [("exit 3", "exit code 3"), ("kill -9 $$", "ended by SIGKILL"), ("exec false", "exit code 1")],
)
def test_a_command_that_fails_gives_its_message_back(
    server: ServerProcess, http: httpx.Client, topic: str, command: str, reason: str
) -> None:
    publish(http, topic, 1)
    code, out, err = ended(executing(server, topic, command))
    assert (code, out, err) == (1, "", f"message 1, attempt 1, was given back: {reason}\n")
    (dead,) = http.get(f"/topics/{topic}/messages?state=dead").json()["messages"]
    assert dead["reason"] == reason


def test_a_command_need_not_read_its_message(server: ServerProcess, http: httpx.Client, topic: str) -> None:
    publish(http, topic, "x" * 1_000_000, 2)
    assert ended(executing(server, topic, "exit 0")) == (0, "", "")
    assert http.get(f"/topics/{topic}").json()["messages"] == 0


def test_a_shell_that_finds_no_command_takes_no_more(server: ServerProcess, http: httpx.Client, topic: str) -> None:
    http.put(f"/topics/{topic}", json={"max_deliveries": 2, "retry_backoff_s": {"min": 0, "max": 0}})
    publish(http, topic, 1, 2, 3)
    code, out, err = ended(executing(server, topic, "no-such-command-anywhere"))
    assert (code, out) == (1, "")
    assert err.count("was given back: exit code 127") == 1
    assert "wakeq: the command can't be run (exit code 127): no-such-command-anywhere\nhint: " in err
    assert held(http, topic) == {"ready": 3}
    assert attempts(http, topic) == [0, 0, 0]


def test_a_machine_that_starts_no_command_takes_no_more(
    wakeq: Wakeq, http: httpx.Client, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    http.put(f"/topics/{topic}", json={"max_deliveries": 2, "retry_backoff_s": {"min": 0, "max": 0}})
    publish(http, topic, 1, 2, 3)

    async def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("wakeq.cli._exec.anyio.open_process", fail)
    result = wakeq("consume", topic, "--exec", "true")
    assert (result.exit_code, result.stdout) == (1, "")
    reason = f"not started: {os.strerror(errno.EAGAIN)}"
    assert f"message 1, attempt 1, was given back: {reason}\n" in result.stderr
    assert f"wakeq: the command can't be run ({reason}): true\nhint: " in result.stderr
    assert held(http, topic) == {"ready": 3}
    assert attempts(http, topic) == [0, 0, 0]


def test_no_more_is_taken_than_there_are_commands_for(
    server: ServerProcess, http: httpx.Client, topic: str, gate: Gate
) -> None:
    publish(http, topic, 1, 2, 3)
    process = executing(server, topic, gate.command, "--concurrency", "2")
    assert {gate.begun(), gate.begun()} == {"1", "2"}
    assert held(http, topic) == {"ready": 1, "leased": 2}
    gate.let_go()
    assert gate.begun() == "3"
    gate.let_go()
    gate.let_go()
    assert ended(process) == (0, "", "")
    assert held(http, topic) == {}


def test_a_lease_lasts_as_long_as_its_command(
    server: ServerProcess, http: httpx.Client, topic: str, gate: Gate
) -> None:
    http.put(f"/topics/{topic}", json={"lease_s": 3})
    publish(http, topic, 1)
    process = executing(server, topic, gate.command)
    gate.begun()
    # It would come to this consumer when its lease ends. Waits end up to a tenth early.
    answer = http.post(f"/messages/{topic}/claim", json={"wait_s": 3.6}, timeout=STOP_S)
    assert answer.json() == {"messages": []}
    gate.let_go()
    assert ended(process) == (0, "", "")
    assert held(http, topic) == {}


def test_a_command_that_outlives_its_server_is_acked_at_the_next(tmp_path: Path, gate: Gate) -> None:
    with start_server(tmp_path / "data", "--drain", "0", durability="os") as server:
        with httpx.Client(base_url=server.url, verify=False) as http:
            http.put("/topics/jobs", json={})
            publish(http, "jobs", 1)
        process = executing(server, "jobs", gate.command, "--follow")
        gate.begun()
        server.terminate()
    with start_server(tmp_path / "data", durability="os", port=server.port), httpx.Client(base_url=server.url) as http:
        gate.let_go()
        publish(http, "jobs", 2)
        assert gate.begun() == "2"
        process.terminate()
        assert process.stderr is not None
        # Nothing was said of the first message before.
        assert process.stderr.readline().startswith(b"waiting ")
        gate.let_go()
        assert ended(process) == (0, "", "")
        assert held(http, "jobs") == {}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_lets_commands_finish_and_takes_no_more(
    server: ServerProcess, http: httpx.Client, topic: str, gate: Gate, number: signal.Signals, code: int
) -> None:
    publish(http, topic, 1, 2)
    process = executing(server, topic, gate.command, "--follow")
    assert process.stderr is not None
    assert gate.begun() == "1"
    process.send_signal(number)
    assert process.stderr.readline() == b"waiting 10 s at most for 1 command; a second signal ends the wait\n"
    gate.let_go()
    assert ended(process) == (code, "", "")
    assert held(http, topic) == {"ready": 1}


def test_after_the_grace_a_command_is_ended_and_its_message_given_back(
    server: ServerProcess, http: httpx.Client, topic: str, gate: Gate
) -> None:
    http.put(f"/topics/{topic}", json={"max_deliveries": 2})
    publish(http, topic, 1)
    process = executing(server, topic, f"trap 'echo bye; exit 1' TERM; {gate.command}", "--grace", "0")
    gate.begun()
    process.terminate()
    code, out, err = ended(process)
    assert (code, out) == (0, "bye\n")
    assert err.splitlines()[1:] == ["message 1, attempt 1, was given back: interrupted"]
    assert held(http, topic) == {"ready": 1}


def test_a_second_signal_ends_the_wait(server: ServerProcess, http: httpx.Client, topic: str, gate: Gate) -> None:
    http.put(f"/topics/{topic}", json={"max_deliveries": 2})
    publish(http, topic, 1)
    process = executing(server, topic, f"trap '' TERM; {gate.command}", "--grace", "10m")
    assert process.stderr is not None
    gate.begun()
    process.terminate()
    assert process.stderr.readline().startswith(b"waiting 600 s at most")
    process.terminate()
    code, out, err = ended(process)
    assert (code, out, err) == (0, "", "message 1, attempt 1, was given back: interrupted\n")
    assert held(http, topic) == {"ready": 1}
