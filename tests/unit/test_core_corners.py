"""Decisions that meet: what one of them has begun while another commits, fails, or takes its topic or group away."""

import pytest

from tests.support.cancelling import cost
from tests.support.core import Bench, X, claim
from wakeq_server.core.model import NewMessage, TopicConfig
from wakeq_server.core.topic import Topic

A = NewMessage(b"x", key="a")


def cost_of(topic: Topic) -> int:
    return sum(map(cost, topic.messages.values()))


@pytest.fixture
def bench() -> Bench:
    return Bench()


# A topic or a group that goes


@pytest.mark.parametrize("what", ["topic", "group"])
def test_nothing_is_counted_of_what_is_gone(bench: Bench, what: str) -> None:
    topic = bench.topic()
    group = bench.group(topic, "g")
    bench.publish(topic, X, NewMessage(b"x", ttl_s=50.0), NewMessage(b"x", delay_s=60.0), X, X)
    bench.kill(group)
    bench.settle(topic, "nack", bench.claim(group), 40.0)
    bench.claim(group)
    for name in [name for name in topic.groups if name != "g"]:
        bench.write(bench.core.drop_group(topic.groups[name]))
    bench.write(bench.core.drop(topic) if what == "topic" else bench.core.drop_group(group))
    memory, held = bench.core.memory_used, (topic.held_messages, topic.held_bytes)
    bench.core.effects.deliverable.clear()
    bench.tick(30 * 86_400.0)
    assert (bench.core.memory_used, bench.core.leased, bench.core.counts.dropped_by_ttl) == (0, 0, 0) == (memory, 0, 0)
    assert (topic.held_messages, topic.held_bytes) == held
    assert not bench.core.effects.deliverable
    assert bench.core.next_deadline() is None


def test_a_settle_counts_though_the_drop_of_its_group_fails(bench: Bench) -> None:
    topic = bench.topic()
    group = bench.group(topic, "g")
    bench.publish(topic)
    settle = bench.settling(topic, "ack", bench.claim(group))
    drop = bench.core.drop_group(group)
    bench.write(settle)
    bench.write(drop, fails=[drop])
    assert (bench.core.leased, group.leased, group.open) == (0, 0, {})


def test_a_settle_that_fails_beside_the_end_of_its_group_leaves_no_lease(bench: Bench) -> None:
    topic = bench.topic()
    group = bench.group(topic, "g")
    bench.publish(topic)
    lease = bench.claim(group)
    drop = bench.core.drop_group(group)
    settle = bench.settling(topic, "ack", lease)
    bench.write(drop, settle, fails=[settle])
    bench.tick(100.0)
    assert bench.core.leased == 0


def test_a_dead_letter_of_a_group_that_is_gone_is_not_moved(bench: Bench) -> None:
    topic = bench.topic(config=TopicConfig(dead_letter_topic="d"))
    target, group = bench.topic("d"), bench.group(topic, "g")
    bench.publish(topic)
    seq = bench.kill(group)
    bench.settle(topic, "ack", bench.claim(topic.groups["default"]))
    drop, message = bench.core.drop_group(group), topic.messages[seq]
    move = bench.core.move_dead(group, seq, message, bench.now, bench.wall)
    bench.write(drop, *([move] if move else []))
    assert (topic.held_messages, topic.dead_letters, bench.core.memory_used) == (0, 0, cost_of(target))
    assert bench.core.move_dead(group, seq, message, bench.now, bench.wall) is None


def test_nothing_is_stored_of_groups_whose_topic_is_gone(bench: Bench) -> None:
    topic = bench.topic()
    group = bench.group(topic, "g")
    bench.publish(topic)
    purge = bench.core.purge(group)
    bench.write(purge, bench.core.drop(topic))
    bench.core.moved[group] = None
    bench.write()
    assert bench.store.groups == {}


# Dead letters


def test_a_dead_letter_is_either_moved_or_redriven(bench: Bench) -> None:
    topic = bench.topic(config=TopicConfig(dead_letter_topic="d"))
    target, group = bench.topic("d"), topic.groups["default"]
    bench.publish(topic)
    seq = bench.kill(group)
    redrive = bench.core.redrive(group, None)
    move = bench.core.move_dead(group, seq, topic.messages[seq], bench.now, bench.wall)
    bench.write(redrive, *([move] if move else []))
    assert (group.ready, target.held_messages) == (1, 0)
    seq = bench.kill(group)
    move = bench.core.move_dead(group, seq, topic.messages[seq], bench.now, bench.wall)
    assert move is not None
    assert bench.core.redrive(group, None).seqs == []
    bench.write(move, fails=[move])
    assert list(bench.core.redrive(group, None).seqs) == [seq], "what failed to move can't be redriven"


def test_a_dead_letter_does_not_go_to_a_topic_that_may_never_be(bench: Bench) -> None:
    topic = bench.topic(config=TopicConfig(dead_letter_topic="d"))
    group = topic.groups["default"]
    bench.publish(topic)
    seq = bench.kill(group)
    coming = bench.core.create("d", TopicConfig(), bench.wall)
    move = bench.core.move_dead(group, seq, topic.messages[seq], bench.now, bench.wall)
    bench.write(coming, *([move] if move else []), fails=[coming])
    assert list(group.dead) == [seq]


def test_a_redriven_message_takes_its_old_place_within_its_key(bench: Bench) -> None:
    topic = bench.topic()
    group = topic.groups["default"]
    bench.publish(topic, A, A, A)
    bench.kill(group)
    second = bench.claim(group)
    assert claim(bench.core, group, bench.now) is None
    bench.write(bench.core.redrive(group, None))
    bench.settle(topic, "ack", second)
    assert [bench.claim(group).key.seq] == [1]


def test_dead_letters_go_in_the_order_in_which_they_died_after_a_restart_too(bench: Bench) -> None:
    topic = bench.topic(config=TopicConfig(dead_ttl_s=100.0))
    group = topic.groups["default"]
    bench.publish(topic, X, X)
    first, second = bench.claim(group), bench.claim(group)
    bench.settle(topic, "dead", second)
    bench.tick(20.0)
    bench.settle(topic, "dead", first)
    bench.restart()
    group = bench.topic().groups["default"]
    assert list(group.dead) == [2, 1]
    bench.tick(85.0)
    assert list(group.dead) == [1]


def test_a_dead_letter_that_another_group_has_in_hand_takes_room_after_a_restart_too(bench: Bench) -> None:
    topic = bench.topic()
    group, other = topic.groups["default"], bench.group(topic, "g")
    bench.publish(topic)
    bench.claim(other)
    bench.kill(group)
    bench.restart()
    assert (topic.held_messages, bench.topic().held_messages) == (1, 1)


# Purges that fail


def test_a_purge_that_fails_gives_back_nothing_that_is_gone(bench: Bench) -> None:
    topic = bench.topic()
    first, second = topic.groups["default"], bench.group(topic, "g")
    bench.publish(topic)
    lease = bench.claim(second)
    purge = bench.core.purge(first)
    bench.write(bench.settling(topic, "ack", lease), purge, fails=[purge])
    assert first.ready == len(topic.messages), "READY, but nowhere to be found"


def test_a_purge_that_fails_keeps_the_order_of_keys(bench: Bench) -> None:
    topic = bench.topic()
    group = topic.groups["default"]
    bench.publish(topic, A, A)
    bench.kill(group)
    bench.core.undo(group, bench.claim(group).key)
    redrive, purge = bench.core.redrive(group, None), bench.core.purge(group)
    bench.write(redrive)
    assert bench.claim(group).key.seq == 1
    bench.write(purge, fails=[purge])
    assert claim(bench.core, group, bench.now) is None, "two of one key are out"


def test_a_purged_message_is_not_delayed_where_it_was_purged(bench: Bench) -> None:
    topic = bench.topic()
    group, other = topic.groups["default"], bench.group(topic, "g")
    bench.publish(topic, NewMessage(b"x", delay_s=5.0))
    bench.write(bench.core.purge(group))
    assert (group.describe(bench.now, bench.wall).delayed, other.describe(bench.now, bench.wall).delayed) == (0, 1)
    assert group.standing(1).value == "gone"
    bench.restart()
    topic = bench.topic()
    assert [topic.groups[name].describe(bench.now, bench.wall).delayed for name in ("default", "g")] == [0, 1]
    bench.tick(6.0)
    assert [topic.groups[name].ready for name in ("default", "g")] == [0, 1]


# Time to live


def test_what_is_past_its_time_is_dropped_when_it_would_be_delayed(bench: Bench) -> None:
    topic = bench.topic()
    group = topic.groups["default"]
    bench.publish(topic, NewMessage(b"x", ttl_s=5.0))
    lease = bench.claim(group)
    bench.tick(6.0)
    bench.settle(topic, "nack", lease, 10.0)
    assert (group.describe(bench.now, bench.wall).delayed, topic.messages, bench.core.counts.dropped_by_ttl) == (
        0,
        {},
        1,
    )
    bench.write()
    assert bench.store.messages == {}


@pytest.mark.parametrize("outcome", ["nack", "release"])
def test_what_is_past_its_time_leaves_no_attempts_behind(bench: Bench, outcome: str) -> None:
    topic = bench.topic()
    group = topic.groups["default"]
    bench.publish(topic, NewMessage(b"x", ttl_s=5.0))
    lease = bench.claim(group)
    bench.tick(6.0)
    bench.settle(topic, outcome, lease, 0.0)
    assert (topic.messages, group.attempts) == ({}, {})


def test_a_redrive_does_not_drop_what_is_past_its_time(bench: Bench) -> None:
    topic = bench.topic()
    group = topic.groups["default"]
    bench.publish(topic, NewMessage(b"x", ttl_s=5.0), NewMessage(b"x", ttl_s=50.0))
    bench.kill(group)
    bench.kill(group)
    redrive = bench.core.redrive(group, None)
    bench.tick(6.0)
    assert bench.core.redrive(group, None).seqs == []
    bench.write(redrive)
    assert (list(group.dead), group.ready) == ([1], 1)
    assert bench.core.redrive(group, None).seqs == []


# Without groups


def test_what_no_group_wants_is_not_kept(bench: Bench) -> None:
    topic = bench.topic()
    bench.write(bench.core.drop_group(topic.groups["default"]))
    bench.publish(topic, X, NewMessage(b"x", delay_s=5.0))
    assert (topic.messages, topic.held_messages, bench.core.memory_used) == ({}, 0, 0)
    bench.tick(6.0)
    bench.write()
    assert bench.store.messages == {}


# Leases


def test_an_extended_lease_that_is_undone_at_once_is_ready_after_a_restart(bench: Bench) -> None:
    topic = bench.topic()
    group = topic.groups["default"]
    bench.publish(topic)
    lease = bench.claim(group)
    extend = bench.settling(topic, "extend", lease)
    bench.core.undo(group, lease.key)
    bench.write(extend)
    bench.restart()
    assert bench.topic().groups["default"].ready == 1


def test_a_lease_is_stored_though_its_group_is_being_dropped_in_vain(bench: Bench) -> None:
    topic = bench.topic()
    group = topic.groups["default"]
    bench.publish(topic)
    bench.claim(group)
    drop = bench.core.drop_group(group)
    bench.write(drop, fails=[drop])
    bench.restart()
    assert bench.core.leased == 1


def test_an_extend_that_fails_leaves_the_lease_as_it_was(bench: Bench) -> None:
    topic = bench.topic()
    group = topic.groups["default"]
    bench.publish(topic)
    lease = bench.claim(group)
    bench.tick(20.0)
    extend = bench.settling(topic, "extend", lease)
    bench.write(extend, fails=[extend])
    bench.tick(11.0)
    assert bench.core.leased == 0
