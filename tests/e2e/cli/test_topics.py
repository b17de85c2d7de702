"""`wakeq topics`, `groups`, `peek` and `redrive` against a real server, and what all such commands have in common."""

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.cli import Terminal, Wakeq, die, ended, misused, publish, refused, said, standing, started
from tests.support.server import STOP_S, ServerProcess, start_server


def config(http: httpx.Client, topic: str) -> dict[str, Any]:
    found: dict[str, Any] = http.get(f"/topics/{topic}").json()["config"]
    return found


# topics create, configure


EVERY_OPTION = (
    "--schema any --lease 5m --max-deliveries 0 --retry-min 500ms --retry-max 1h30m --dead-ttl 7d"
    " --dead-letter-topic dead --ttl 2h --max-messages 10 --max-bytes 1MiB --max-message-bytes 64KiB --dedup-window 30"
)
EVERY_FIELD = {
    "kind": "queue",
    "schema": "any",
    "lease_s": 300.0,
    "max_deliveries": 0,
    "retry_backoff_s": {"min": 0.5, "max": 5_400.0},
    "dead_ttl_s": 604_800.0,
    "dead_letter_topic": "dead",
    "ttl_s": 7_200.0,
    "max_messages": 10,
    "max_bytes": 1_048_576,
    "max_message_bytes": 65_536,
    "dedup_window_s": 30.0,
}


def test_create_takes_every_setting(wakeq: Wakeq, http: httpx.Client) -> None:
    assert said(wakeq(f"topics create every {EVERY_OPTION}")) == "created topic every"
    assert config(http, "every") == EVERY_FIELD


def test_create_leaves_the_rest_to_the_server(wakeq: Wakeq, http: httpx.Client) -> None:
    assert said(wakeq("topics", "create", "a b.ü")) == "created topic a b.ü"
    plain = config(http, "a b.ü")
    assert (plain["schema"], plain["lease_s"]) == ("json", 30.0)
    assert said(wakeq("topics create half --retry-max 2m")) == "created topic half"
    assert config(http, "half")["retry_backoff_s"] == {"min": 1.0, "max": 120.0}


def test_create_refuses_what_exists_and_leaves_it(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    before = config(http, topic)
    assert refused(wakeq(f"topics create {topic} --lease 7")) == f"topic {topic} exists"
    assert "left as it is" in said(wakeq(f"topics create {topic} --lease 7 --if-not-exists"))
    assert config(http, topic) == before


def test_a_schema_may_be_a_file(wakeq: Wakeq, http: httpx.Client, tmp_path: Path) -> None:
    schema = {"type": "object", "required": ["n"]}
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema))
    said(wakeq(f"topics create filed --schema {file}"))
    assert config(http, "filed")["schema"] == schema
    assert "n" in refused(wakeq("publish", "filed", "{}"))
    file.write_text('{"type": 1}')
    assert refused(wakeq(f"topics configure filed --schema {file}")).startswith("schema: ")
    file.write_text("{")
    assert "is not JSON" in misused(wakeq(f"topics create other --schema {file}"))


def test_configure_changes_what_is_named_and_shows_it(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    before = config(http, topic)
    assert said(wakeq(f"topics configure {topic} --lease 5m --retry-max 90 --ttl 14d --max-deliveries 1")).split(
        "\n"
    ) == [
        "lease: 30s → 5m",
        "retry-max: 1m → 1m30s",
        "ttl: none → 14d",
    ]
    backoff = {"min": 1.0, "max": 90.0}
    assert config(http, topic) == before | {"lease_s": 300.0, "retry_backoff_s": backoff, "ttl_s": 1_209_600.0}
    assert said(wakeq(f"topics configure {topic} --ttl none")) == "ttl: 14d → none"
    assert "nothing was changed" in said(wakeq(f"topics configure {topic} --ttl none"))


def test_configure_takes_every_setting_and_takes_off_what_may_be_none(
    wakeq: Wakeq, http: httpx.Client, topic: str
) -> None:
    assert len(said(wakeq(f"topics configure {topic} {EVERY_OPTION}")).split("\n")) == len(EVERY_FIELD)
    assert config(http, topic) == EVERY_FIELD
    nullable = ("dead-letter-topic", "ttl", "max-messages", "max-bytes", "max-message-bytes")
    said(wakeq(f"topics configure {topic} " + " ".join(f"--{name} none" for name in nullable)))
    fields = ("dead_letter_topic", "ttl_s", "max_messages", "max_bytes", "max_message_bytes")
    assert config(http, topic) == EVERY_FIELD | dict.fromkeys(fields)


def test_configure_wants_to_be_told_what(wakeq: Wakeq, topic: str) -> None:
    assert refused(wakeq(f"topics configure {topic}"), 2) == "no setting was named"


OUT_OF_RANGE = [
    ("--lease 0.5", "lease_s"), ("--max-deliveries 1001", "max_deliveries"), ("--retry-min 2h", "retry_backoff_s"),
    ("--dead-ttl 0", "dead_ttl_s"), ("--ttl 366d", "ttl_s"), ("--max-messages 0", "max_messages"),
    ("--max-bytes 0", "max_bytes"), ("--max-message-bytes 65MiB", "max_message_bytes"),
    ("--dedup-window 2d", "dedup_window_s"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "field"), OUT_OF_RANGE)
def test_what_the_server_refuses_is_its_own_sentence(
    wakeq: Wakeq, http: httpx.Client, topic: str, options: str, field: str
) -> None:
    before = config(http, topic)
    assert refused(wakeq(f"topics configure {topic} {options}")).startswith(f"{field}: ")
    assert refused(wakeq(f"topics create new {options}")).startswith(f"{field}: ")
    assert config(http, topic) == before
    assert http.get("/topics/new").status_code == 404


# topics list, show, peek


def test_list_has_every_topic_and_no_name_is_cut(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    long = "é" * 200 + "日本語"
    http.put(f"/topics/{long}", json={"schema": {"type": "object"}})
    for number in range(101):
        http.put(f"/topics/many-{number:03}", json={})
    http.put(f"/topics/{topic}/groups/audit")
    publish(http, topic, *range(5))
    die(http, topic, 1)
    http.post(f"/messages/{topic}/claim", json={})
    http.post(f"/topics/{topic}/pause")
    header, *lines = said(wakeq("topics list")).split("\n")
    assert header.split() == [
        "name", "schema", "ready", "delayed", "leased", "dead", "parked", "oldest", "groups", "delivery",
    ]  # fmt: skip
    assert len(lines) == len(http.get("/topics?limit=1000").json()["topics"]) > 100
    cells = {line.split()[0]: line.split()[1:] for line in lines}
    assert cells[long] == ["JSON", "Schema", "0", "0", "0", "0", "0", "-", "1", "on"]
    # Three are ready and one is leased in `default`, five are ready in `audit`.
    assert cells[topic][:6] == ["json", "8", "0", "1", "1", "0"]
    assert re.fullmatch(r"\d+s", cells[topic][6])
    assert cells[topic][7:] == ["2", "paused"]
    assert not any(line.endswith(" ") for line in lines)


def test_list_in_json_is_the_servers(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    shown = json.loads(said(wakeq("topics list --json")))
    found = http.get("/topics?limit=1000").json()
    for one in shown["topics"] + found["topics"]:
        for group in one["groups"].values():
            # Time goes on.
            group.pop("oldest_age_s")
    assert shown == found
    assert topic in [one["name"] for one in found["topics"]]


def test_show_is_everything_about_a_topic(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    http.put(f"/topics/{topic}/groups/audit")
    publish(http, topic, 1, 2)
    about, groups = said(wakeq(f"topics show {topic}")).split("\n\n")
    pairs = dict(line.split(maxsplit=1) for line in about.split("\n"))
    assert pairs.pop("created").endswith(" UTC")
    assert pairs == {
        "name": topic, "delivery": "on", "messages": "2 (2 B)", "kind": "queue", "schema": "json", "lease": "30s",
        "max-deliveries": "1", "retry-min": "1s", "retry-max": "1m", "dead-ttl": "14d", "dead-letter-topic": "none",
        "ttl": "none", "max-messages": "none", "max-bytes": "none", "max-message-bytes": "the schema's default",
        "dedup-window": "2m",
    }  # fmt: skip
    header, *lines = groups.split("\n")
    assert header.split() == ["group", "ready", "delayed", "leased", "dead", "parked", "oldest"]
    assert [line.split()[:2] for line in lines] == [["default", "2"], ["audit", "2"]]
    shown = json.loads(said(wakeq(f"topics show {topic} --json")))
    assert shown["config"] == config(http, topic)


def test_peek_shows_messages_in_any_state(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    publish(http, topic, {"n": [1, None]}, "ü")
    assert said(wakeq(f"peek {topic}")).split("\n")[1::2] == ['{"n":[1,null]}', '"ü"']
    http.post(f"/messages/{topic}", json=3, headers={"wakeq-delay": "500", "idempotency-key": "i", "wakeq-h-a": "b"})
    about, body = said(wakeq(f"peek {topic} --state delayed")).split("\n")
    assert re.match(r"#3  delayed  published \S+ \S+ UTC  ready at .* UTC  id=i  a=b$", about)
    assert body == "3"
    die(http, topic, 1)
    dead, _ = said(wakeq(f"peek {topic} --state dead --group default")).split("\n")
    assert "attempt 1" in dead
    assert "reason=" in dead


def test_peek_in_json_is_a_line_a_message(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    publish(http, topic, 1, 2, 3)
    result = wakeq(f"peek {topic} --json --after 1 --limit 1")
    assert (result.exit_code, result.stderr) == (0, "there may be more: --after 2\n")
    assert json.loads(result.stdout) == http.get(f"/topics/{topic}/messages").json()["messages"][1]
    result = wakeq(f"peek {topic} --json --after 3")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no message" in result.stderr


def test_peeked_bytes_do_nothing_to_a_terminal(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    http.put(f"/topics/{topic}", json={"schema": "any"})
    for body in (b"a\x1b[2J\nb", b"\xff"):
        http.post(f"/messages/{topic}", content=body, headers={"content-type": "text/plain"})
    assert said(wakeq(f"peek {topic}")).split("\n")[1:3] == ["a\\x1b[2J", "b"]
    assert "(1 B of text/plain" in said(wakeq(f"peek {topic} --after 1"))


# topics delete, purge, redrive, pause, resume; groups


def test_what_destroys_needs_a_yes(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    publish(http, topic, 1, 2, 3)
    for command in ("topics delete {}", "topics purge {}", "groups delete {} default"):
        assert "nobody to ask" in refused(wakeq(command.format(topic)), 2)
    assert standing(http, topic)["ready"] == 3
    die(http, topic, 1)
    assert said(wakeq(f"topics purge {topic} --yes")) == f"purged 2 messages of topic {topic}, group default"
    assert said(wakeq(f"topics delete {topic} -y")) == f"deleted topic {topic} with 0 messages and 1 dead letter"
    assert http.get(f"/topics/{topic}").status_code == 404


def test_redrive_says_how_many(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    publish(http, topic, 1, 2, 3)
    die(http, topic, 3)
    of = f"of topic {topic}, group default"
    assert said(wakeq(f"redrive {topic} --max 1")) == f"redrove 1 dead letter {of}; 2 remain"
    assert said(wakeq(f"redrive {topic}")) == f"redrove 2 dead letters {of}; 0 remain"
    assert standing(http, topic)["ready"] == 3


def test_pause_and_resume(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    publish(http, topic, 1)
    assert said(wakeq(f"topics pause {topic}")) == f"paused topic {topic}; it holds 1 message"
    assert http.get(f"/topics/{topic}").json()["paused"] is True
    assert said(wakeq(f"topics resume {topic}")) == f"resumed topic {topic}; it holds 1 message"
    assert http.get(f"/topics/{topic}").json()["paused"] is False


def test_groups_are_made_shown_and_dropped(wakeq: Wakeq, http: httpx.Client, topic: str) -> None:
    assert said(wakeq(f"groups create {topic} audit")) == f"created group audit of topic {topic}"
    assert refused(wakeq(f"groups create {topic} audit")) == f"group audit of topic {topic} exists"
    assert "left as it is" in said(wakeq(f"groups create {topic} audit --if-not-exists"))
    publish(http, topic, 1)
    lines = said(wakeq(f"groups list {topic}")).split("\n")[1:]
    assert [line.split()[:2] for line in lines] == [["default", "1"], ["audit", "1"]]
    assert set(json.loads(said(wakeq(f"groups list {topic} --json")))) == {"default", "audit"}
    assert said(wakeq(f"topics purge {topic} --group audit --yes")).startswith("purged 1 message ")
    held = "with 1 message and 0 dead letters"
    assert said(wakeq(f"groups delete {topic} default --yes")) == f"deleted group default of topic {topic} {held}"
    said(wakeq(f"groups delete {topic} audit --yes"))
    result = wakeq(f"groups list {topic}")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no groups" in result.stderr


# Refusals


COMMANDS = [
    "topics configure {} --lease 9", "topics show {}", "topics delete {} --yes", "topics purge {} --yes",
    "redrive {}", "topics pause {}", "topics resume {}", "peek {}", "groups create {} g",
    "groups list {}", "groups delete {} g --yes", "publish {} {{}}", "consume {}",
]  # fmt: skip
OF_GROUPS = ["topics purge {} --yes --group g", "redrive {} --group g", "peek {} --group g",
             "groups delete {} g --yes", "consume {} --group g"]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_topic(wakeq: Wakeq, command: str) -> None:
    assert refused(wakeq(command.format("nowhere"))) == "topic nowhere not found"


@pytest.mark.parametrize("command", ["publish {} 1", "topics show {}", "peek {}", "consume {}", "stats other {}"])
def test_an_unknown_topic_that_is_like_another(wakeq: Wakeq, http: httpx.Client, command: str) -> None:
    for name in ("quarterly-reports", "other"):
        http.put(f"/topics/{name}", json={})
    result = wakeq(command.format("quartrely-report"))
    assert refused(result) == "topic quartrely-report not found"
    assert "hint: did you mean quarterly-reports? `wakeq topics list` shows what there is" in result.stderr
    assert "did you mean" not in wakeq(command.format("zzz")).stderr


@pytest.mark.parametrize("command", OF_GROUPS)
def test_an_unknown_group(wakeq: Wakeq, topic: str, command: str) -> None:
    assert refused(wakeq(command.format(topic))) == f"topic {topic} has no group g"


@pytest.mark.parametrize("command", ["topics create {}", "topics list", *COMMANDS])
def test_a_server_that_is_not_there(wakeq: Wakeq, command: str, free_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{free_tcp_port}"
    assert refused(wakeq(f"{command.format('t')} --url {url}")).startswith(f"no answer from {url}/: ")


MISUSED = [
    ("topics lst", "'lst'"), ("groups make", "'make'"), ("topics list --jsn", "--jsn"), ("topics show", "TOPIC"),
    ("topics create t --lease soon", "'soon' is no duration"), ("topics create t --lease none", "is no duration"),
    ("topics create t --max-messages x", "whole number"), ("topics create t --max-bytes 1MB", "64KiB"),
    ("topics create t --schema nosuch", "queue_message, json, any"), ("topics create a/b", "1 to 255"),
    ("peek t --state gone", "'ready', 'delayed', 'leased', 'dead'"), ("redrive t --max 0", "--max"),
    ("topics list --url localhost:8001", "http://HOST:PORT"), ("topics list --url http://[x", "http://HOST:PORT"),
    ("topics list --url http://x:99999", "http://HOST:PORT"), ("publish t 1 --delay x", "--delay"),
    ("consume t --max 0", "--max"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "says"), MISUSED)
def test_a_wrong_call_asks_no_server(wakeq: Wakeq, command: str, says: str) -> None:
    assert says in misused(wakeq(command))


@pytest.mark.parametrize("url", ["http://\x00", "http://xn--\udcff"])
def test_a_url_that_only_looks_like_one(wakeq: Wakeq, url: str) -> None:
    assert "is no URL" in refused(wakeq("topics", "list", "--url", url), 2)


def test_what_answers_is_no_wakeq_server(wakeq: Wakeq, server: ServerProcess) -> None:
    result = wakeq(f"topics list --url {server.url}/elsewhere")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the address of a wakeq server?" in result.stderr


# In processes of their own


def test_streams_and_exit_codes(server: ServerProcess, topic: str) -> None:
    code, out, err = ended(started(server, "topics", "show", topic, "--json"))
    assert (code, json.loads(out)["name"], err) == (0, topic, "")
    code, out, err = ended(started(server, "topics", "show", "nowhere"))
    assert (code, out) == (1, "")
    assert err.startswith("wakeq: topic nowhere not found\nhint: ")
    code, out, err = ended(started(server, "topics", "delete", topic, stdin=subprocess.DEVNULL))
    assert (code, out) == (2, "")
    assert "--yes" in err
    code, out, err = ended(started(server, "topics", "shwo"))
    assert (code, out) == (2, "")
    assert "\x1b" not in err


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"YES\n", 0), (b"\n", 1), (b"n\n", 1), (b"\x04", 1)])
def test_on_a_terminal_it_asks(server: ServerProcess, http: httpx.Client, topic: str, answer: bytes, code: int) -> None:
    publish(http, topic, 1)
    ours, theirs = pty.openpty()
    try:
        process = started(server, "topics", "delete", topic, stdin=theirs)
        os.write(ours, answer)
        exit_code, out, err = ended(process)
    finally:
        os.close(ours)
        os.close(theirs)
    assert f"Delete topic {topic} with 1 message and 0 dead letters? [y/N]" in err
    assert exit_code == code
    assert out == (f"deleted topic {topic} with 1 message and 0 dead letters\n" if code == 0 else "")
    assert http.get(f"/topics/{topic}").status_code == (404 if code == 0 else 200)


def test_an_interrupt_is_silent_while_it_asks(server: ServerProcess, http: httpx.Client, topic: str) -> None:
    ours, theirs = pty.openpty()
    try:
        process = started(server, "topics", "delete", topic, stdin=theirs)
        assert process.stderr is not None
        asked = b""
        while not asked.endswith(b"[y/N] "):
            asked += process.stderr.read(1)
        process.send_signal(signal.SIGINT)
        assert ended(process) == (130, "", "")
    finally:
        os.close(ours)
        os.close(theirs)
    assert http.get(f"/topics/{topic}").status_code == 200


@pytest.mark.parametrize("command", ["topics list", "publish {} 1", "consume {}"])
def test_a_disk_that_is_full_is_said_in_a_sentence(
    server: ServerProcess, http: httpx.Client, topic: str, command: str
) -> None:
    http.put(f"/topics/{topic}", json={"max_deliveries": 2})
    publish(http, topic, 1)
    with open("/dev/full", "wb") as full:
        process = started(server, *command.format(topic).split(), stdout=full)
    _, err = process.communicate(timeout=STOP_S)
    assert (process.returncode, err) == (1, b"wakeq: can't write or read: [Errno 28] No space left on device\n")
    assert standing(http, topic)["leased"] == 0


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("publish {} <&-", (2, "wakeq: there is no message: stdin is closed\nhint: give BODY or --file\n")),
        ("consume {} >&-", (1, "wakeq: can't write or read: [Errno 9] stdout is closed\n")),
    ],
)
def test_what_a_shell_has_closed(
    server: ServerProcess, http: httpx.Client, topic: str, command: str, says: tuple[int, str]
) -> None:
    publish(http, topic, 1)
    line = f"{shlex.quote(sys.executable)} -m wakeq {command.format(topic)}"
    env = {**os.environ, "WAKEQ_URL": server.url}
    done = subprocess.run(["sh", "-c", line], env=env, stderr=subprocess.PIPE, text=True, timeout=STOP_S)
    assert (done.returncode, done.stderr) == says


@pytest.mark.parametrize("token", ["two words", "gr\u00fcn", "line\n"])
def test_a_token_that_is_none_is_not_shown(server: ServerProcess, token: str) -> None:
    code, out, err = ended(started(server, "topics", "list", env={"WAKEQ_TOKEN": token}))
    assert (code, out) == (2, "")
    assert err == "wakeq: WAKEQ_TOKEN is no token\nhint: a token is printable ASCII without spaces\n"


def test_a_server_with_a_token(tmp_path: Path) -> None:
    with start_server(tmp_path, "--token", "s3cret") as guarded:
        for token in ("", "wrong"):
            code, out, err = ended(started(guarded, "topics", "list", env={"WAKEQ_TOKEN": token}))
            assert (code, out) == (1, "")
            assert err.endswith("hint: this server wants a token; WAKEQ_TOKEN has the one that is sent\n")
        assert ended(started(guarded, "topics", "list", env={"WAKEQ_TOKEN": "s3cret"}))[0] == 0


def test_names_that_the_locale_has_no_letters_for(server: ServerProcess) -> None:
    code, out, err = ended(started(server, "topics", "create", "日本語", env={"PYTHONIOENCODING": "latin-1"}))
    assert (code, out, err) == (0, "created topic \\u65e5\\u672c\\u8a9e\n", "")


def test_a_terminal_is_told_no_more_columns_than_it_has(server: ServerProcess, http: httpx.Client, topic: str) -> None:
    name = "n" * 150
    http.put(f"/topics/{name}", json={})
    ours, theirs = pty.openpty()
    process = started(server, "topics", "list", stdout=theirs, env={"COLUMNS": "100"})
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65_536):
            shown += part
    except OSError:
        # What Linux says at the end of a terminal.
        pass
    finally:
        os.close(ours)
        process.communicate(timeout=STOP_S)
    lines = re.sub(r"\x1b\[[\d;]*m", "", shown.decode()).splitlines()
    assert process.returncode == 0
    assert max(map(len, lines)) <= 100
    assert sum(line.split(" ")[0].count("n") for line in lines if line.startswith("nn")) == len(name)


@pytest.mark.parametrize("command", ["topics list", "stats narrow", "groups list narrow"])
def test_a_terminal_that_is_too_narrow_is_shown_every_figure(
    server: ServerProcess, http: httpx.Client, command: str
) -> None:
    http.put("/topics/narrow", json={})
    http.post("/topics/narrow/purge")
    publish(http, "narrow", *range(3))
    with Terminal(server, *command.split(), env={"COLUMNS": "30"}) as terminal:
        code, shown = terminal.end()
    assert code == 0
    assert re.search(r"^(narrow( +json)?|default) +3 +0 +0 +0 +0 ", shown, re.MULTILINE)
    assert "…" not in shown


def test_the_commands_load_what_they_need_alone() -> None:
    code = (
        "import sys; from wakeq.cli import _load; assert 'wakeq.cli._talk' not in sys.modules;"
        " [_load(name) for name in ('topics', 'groups', 'publish', 'consume')]; print(*sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=STOP_S)
    assert result.returncode == 0, result.stderr
    assert not {"wakeq_server", "wakeq_bench", "uvicorn"} & set(result.stdout.split())
