"""What a message costs when it is gone: nothing may grow with traffic that has passed, nor take time in proportion to
it. Operations and entries are counted, nothing is timed."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from tests.support.core import Bench, X
from wakeq_server.core.model import NewMessage, TopicConfig
from wakeq_server.core.runs import Runs
from wakeq_server.core.topic import Due, Topic

MANY = 2_000


class Counted(dict[int, object]):
    """A dictionary that counts how often it is asked, and how many of its keys are looked through."""

    asked = 0

    def __contains__(self, key: object) -> bool:
        self.asked += 1
        return super().__contains__(key)

    def get(self, key: int, default: object = None) -> object:
        self.asked += 1
        return super().get(key, default)

    def __iter__(self) -> Iterator[int]:
        for key in super().__iter__():
            self.asked += 1
            yield key


@pytest.fixture
def bench() -> Bench:
    return Bench()


def entries(due: Due | None) -> int:
    assert due is not None
    return len(due._heap)


@pytest.mark.parametrize("stays", [0, 1])
def test_messages_that_are_settled_leave_no_deadline_behind(bench: Bench, stays: int) -> None:
    topic = bench.topic(config=TopicConfig(ttl_s=86_400.0))
    group = topic.groups["default"]
    bench.publish(topic, *[X] * (stays + 1))
    for _ in range(MANY):
        bench.settle(topic, "ack", bench.claim(group))
        bench.publish(topic)
        bench.tick(0.001)
    assert entries(topic.expiries) < 200
    assert len(bench.core._deadlines._heap) < 200


@pytest.mark.parametrize("what", ["ttl_s", "delay_s"])
def test_a_topic_has_one_heap_of_deadlines_of_a_kind(bench: Bench, what: str) -> None:
    topic = bench.topic()
    for _ in range(MANY):
        bench.publish(topic, NewMessage(b"x", **{what: 86_400.0}))  # type: ignore[arg-type]
        bench.write(bench.core.purge(topic.groups["default"]))
    assert len(bench.core._deadlines._registered) <= 2
    due = topic.expiries if what == "ttl_s" else topic.scheduled
    assert entries(due) < 200


def test_deadlines_of_a_few_that_stay_are_kept(bench: Bench) -> None:
    topic = bench.topic()
    group = topic.groups["default"]
    bench.publish(topic, NewMessage(b"stays", ttl_s=50.0))
    bench.claim(group)
    for _ in range(MANY):
        bench.publish(topic, NewMessage(b"x", ttl_s=86_400.0))
        bench.settle(topic, "ack", bench.claim(group))
    bench.tick(60.0)
    assert (bench.core.counts.dropped_by_ttl, topic.messages) == (1, {})


def test_a_topic_that_is_gone_is_not_kept_for_its_deadlines(bench: Bench) -> None:
    topic = bench.topic("to go")
    group = topic.groups["default"]
    bench.publish(topic, NewMessage(b"x", ttl_s=86_400.0), X, NewMessage(b"x", delay_s=3600.0), X, X)
    bench.claim(group)
    bench.kill(group)
    bench.settle(topic, "nack", bench.claim(group), 3600.0)
    bench.write(bench.core.drop(topic))
    bench.core.effects.topics_gone.clear()
    bench.core.effects.deliverable.clear()
    bench.core.effects.roomier.clear()
    bench.core.effects.topics_made.clear()
    del topic, group
    gc.collect()
    assert [one for one in gc.get_objects() if isinstance(one, Topic) and one.name == "to go"] == []


def counting(topic: Topic) -> Counted:
    topic.messages = counted = Counted(topic.messages)  # type: ignore[assignment]
    return counted


def with_a_hole(bench: Bench) -> Topic:
    """A topic with one message behind, and one in front of, many that are no longer there."""
    topic = bench.topic()
    bench.publish(topic)
    bench.publish(topic, *[NewMessage(b"x", ttl_s=10.0)] * MANY)
    bench.publish(topic)
    bench.claim(topic.groups["default"])
    bench.tick(11.0)
    return topic


def test_holes_are_stepped_over_at_once(bench: Bench) -> None:
    topic = with_a_hole(bench)
    counted = counting(topic)
    assert topic.groups["default"].describe(bench.now, bench.wall).ready == 1
    assert bench.claim(topic.groups["default"]).key.seq == MANY + 2
    assert counted.asked < 50


def test_a_hole_before_a_long_backlog_is_looked_through_once(bench: Bench) -> None:
    topic = with_a_hole(bench)
    bench.publish(topic, *[X] * 2 * MANY)
    counted = counting(topic)
    for _ in range(20):
        topic.groups["default"].describe(bench.now, bench.wall)
    assert counted.asked < 3 * MANY


def test_a_group_that_is_not_the_slowest_goes_without_a_look_at_the_backlog(bench: Bench) -> None:
    topic = bench.topic()
    bench.group(topic, "slow")
    bench.publish(topic, *[X] * MANY)
    counted = counting(topic)
    bench.write(bench.core.drop_group(topic.groups["default"]))
    assert len(topic.messages) == MANY
    assert counted.asked < 50


def test_what_only_a_dropped_group_wanted_goes_with_it(bench: Bench) -> None:
    topic = bench.topic()
    slow, fast = bench.group(topic, "slow"), topic.groups["default"]
    bench.publish(topic, X, NewMessage(b"x", delay_s=30.0), X, X, X, NewMessage(b"x", delay_s=50.0), X)
    held = bench.claim(slow)
    for _ in range(4):
        bench.settle(topic, "ack", bench.claim(fast))
    bench.write(bench.core.purge(fast))
    late = bench.group(topic, "late")
    bench.publish(topic)
    bench.write(bench.core.drop_group(slow))
    assert sorted(topic.messages) == [8]
    assert (topic.held_messages, topic.held_bytes, late.ready, bench.core.leased) == (1, 1, 1, 0)
    assert held.queue is None


def test_a_long_line_of_runs_is_consumed_from_its_front_without_being_moved() -> None:
    runs = Runs()
    for first in range(0, 10 * MANY, 10):
        runs.append(first, first + 1)
    moved = 0
    for first in range(0, 10 * MANY, 10):
        runs.discard(first)
        before = len(runs._firsts)
        runs.discard(first + 1)
        moved += before if len(runs._firsts) != before else 0
    assert (runs.count, list(runs)) == (0, [])
    assert moved < 4 * MANY


def test_sizes_that_only_the_store_knows_do_not_add_up_to_a_debt() -> None:
    bench = Bench(memory_budget=0)
    topic = bench.topic(config=TopicConfig(max_deliveries=1))
    group = topic.groups["default"]
    bench.publish(topic, NewMessage(b"1"), NewMessage(b"22"))
    bench.kill(group)
    bench.publish(topic, NewMessage(b"4" * 4000))
    bench.write(bench.core.redrive(group, None))
    bench.kill(group)
    for _ in range(2):
        bench.settle(topic, "ack", bench.claim(group))
    assert (topic.held_messages, topic.held_bytes) == (0, 0)
    bench.tick(30 * 86_400.0)
    assert (topic.held_messages, topic.held_bytes, topic.cold_bytes) == (0, 0, 0)


@pytest.mark.parametrize("outcome", ["ack", "nack", "dead", "release"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_settle_leaves_no_cycle_for_the_collector(bench: Bench, outcome: str, fails: bool) -> None:
    topic = bench.topic()
    bench.publish(topic)
    lease = bench.claim(topic.groups["default"])
    settle = bench.settling(topic, outcome, lease)
    bench.write(settle, fails=[settle] if fails else [])
    gone = weakref.ref(settle)
    gc.disable()
    try:
        del settle
        assert gone() is None
    finally:
        gc.enable()


def test_many_with_keys_are_taken_without_looking_at_each_again_and_again(bench: Bench) -> None:
    topic = bench.topic()
    bench.publish(topic, *[NewMessage(b"x", key=f"{number}") for number in range(MANY)])
    counted = counting(topic)
    assert len(topic.groups["default"].take_many(MANY)) == MANY
    assert counted.asked < 10 * MANY
