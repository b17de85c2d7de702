"""Every example runs as its first lines say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import start_server

FOLDER = Path(__file__).resolve().parents[2] / "examples"
# What each says, its lines in any order.
SAYS = {
    "worker.py": [
        "worked on job 1, attempt 1",
        "worked on job 3, attempt 1",
        "worked on job 2, attempt 2",
        "dead letter 1: {'number': 'one'}",
    ],
    "request_reply.py": ["3 squared is 9", "4 squared is 16", "5 squared is 25"],
    "fan_out.py": ["billing: a book", "billing: a lamp", "shipping: a book", "shipping: a lamp"],
    "exactly_once.py": [
        "published payment-1 as message 1",
        "published payment-1 as message 1",
        "attempt 1: booked payment-1",
        "attempt 2: payment-1 is booked already",
        "alice has 500 cents, and 0 messages are left",
    ],
    "curl.sh": [
        "make a topic",
        "publish, twice the same: the second enqueues nothing",
        "publish a message a line, and one that is to come later",
        "claim one, parked for at most 10 s",
        'claimed {"hello": "world"}',
        "ack it by its lease",
        "settled: ok",
        "take the next ones without a lease, each acked when curl has it",
        '{"n": 1}',
        '{"n": 2}',
        "look at what is left, and drop it",
        'left: "later"',
    ],
}

# What they log, of failures that they show.
LOGS = {"worker.py": ["topic jobs: message 1 is a dead letter", "topic jobs: the handler of message 3 failed"]}


def test_the_table_above_has_every_example() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.is_file()} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_runs(name: str, tmp_path: Path) -> None:
    command = ["sh"] if name.endswith(".sh") else [sys.executable, "-W", "error"]
    with start_server(tmp_path, durability="fsync") as server:
        done = subprocess.run(
            [*command, str(FOLDER / name)],
            env={**os.environ, "WAKEQ_URL": server.url},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert all(line in done.stderr for line in LOGS[name]) if name in LOGS else done.stderr == ""
    assert sorted(done.stdout.splitlines()) == sorted(SAYS[name])
