"""Servers killed under load: nothing acknowledged is lost, and nothing settled comes back."""

import shutil
from pathlib import Path

import pytest

from tests.crash.history import Delivery, History, Publish, Settle
from tests.crash.rounds import run
from wakeq_server.store.sqlite import DATABASE

SEED = 20_261
"""Printed with what is violated; `python -m tests.crash` draws others."""
ROUNDS = 30


@pytest.mark.slow
def test_nothing_is_lost_and_nothing_comes_back(tmp_path: Path) -> None:
    outcome = run(tmp_path, ROUNDS, SEED)
    assert outcome.violations == [], f"seed {SEED}"
    for what in ("published", "repeated", "delivered", "ack ok", "nack ok", "extend ok"):
        assert outcome.counts[what] > ROUNDS, outcome.counts


@pytest.mark.slow
def test_a_server_that_forgot_something_is_found_out(tmp_path: Path) -> None:
    """Its database is put back to what it was a round ago."""
    data, old = tmp_path / "data", tmp_path / "old"

    def forget(number: int) -> None:
        if number == 0:
            shutil.copytree(data, old)
        elif number == 1:
            for name in (DATABASE, f"{DATABASE}-wal"):
                shutil.copyfile(old / name, data / name)

    # By this seed the first round is short, and the second one long.
    assert run(data, 2, 23, forget).violations


# The checker, on histories that can't be.


def delivery(history: History, seq: int, group: str = "default", lease: str = "", body: str = "") -> Delivery:
    found = {"seq": seq, "lease_id": lease or f"lease {len(history.deliveries)}", "body": body or f"body {seq}"}
    (made,) = history.note_delivered(group, [found], history.moment("claim"))
    return made


def settle(history: History, of: Delivery, outcome: str = "ack", status: str | None = "ok") -> None:
    line = Settle(outcome, history.moment("settle"), of.ended_at)
    of.settles.append(line)
    if status is not None:
        line.answered, line.status = history.moment("settled"), status


@pytest.fixture
def history() -> History:
    """Two messages of one key, each delivered and acked; the second ack wasn't answered."""
    history = History(["default"])
    for seq in (1, 2):
        publish = Publish(f"key {seq}", [f"body {seq}"], "k")
        history.publishes.append(publish)
        history.note_published(publish, [seq], duplicate=None)
    settle(history, delivery(history, 1))
    settle(history, delivery(history, 2), status=None)
    return history


def test_a_history_that_can_be(history: History) -> None:
    settle(history, delivery(history, 2))
    assert history.violations() == []


def test_an_acked_message_that_comes_again(history: History) -> None:
    settle(history, delivery(history, 1), status=None)
    assert any("was acked as lease 0, and came again as lease 2" in one for one in history.violations())


def test_a_message_that_never_came(history: History) -> None:
    publish = Publish("key 3", ["body 3"], None)
    history.publishes.append(publish)
    history.note_published(publish, [3], duplicate=None)
    assert history.violations() == ["message 3, whose publish was answered, never came to an end in default"]


def test_a_message_whose_ack_was_refused(history: History) -> None:
    history.deliveries[0].settles[0].status = "stale"
    assert "message 1, whose publish was answered, never came to an end in default" in history.violations()


def test_a_lease_id_that_recurs(history: History) -> None:
    settle(history, delivery(history, 2, lease="lease 1"))
    assert history.violations() == ["lease id lease 1 was given 2 times"]


def test_a_repeated_publish_that_is_answered_otherwise(history: History) -> None:
    history.note_published(history.publishes[0], [9], duplicate=None)
    assert history.problems == ["publish key 1 was answered [1], and then [9]"]


def test_a_message_that_is_there_twice(history: History) -> None:
    settle(history, delivery(history, 3, body="body 2"))
    assert history.violations() == ["'body 2' is there as [2, 3]"]


def test_a_message_that_nobody_published(history: History) -> None:
    settle(history, delivery(history, 3, body="other"))
    assert history.violations() == ["'other' was delivered, and never published"]


def test_a_key_that_was_not_free(history: History) -> None:
    history.deliveries[0].settles[0].asked = history.deliveries[1].ended + 1
    assert any("was delivered while 1 of its key was not done with" in one for one in history.violations())


def test_a_key_that_was_free_once_and_is_not_any_more(history: History) -> None:
    settle(history, history.deliveries[0], status=None)
    history.deliveries[0].settles.pop(0)
    delivery(history, 1)
    delivery(history, 2)
    assert any("was delivered while 1 of its key was not done with" in one for one in history.violations())


def test_an_extended_lease_that_was_not_kept(history: History) -> None:
    held = delivery(history, 2)
    settle(history, held, "extend")
    settle(history, delivery(history, 2))
    assert any("while lease 2 was to last" in one for one in history.violations())
