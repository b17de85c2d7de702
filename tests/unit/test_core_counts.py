"""What is counted of a topic: rates, the delayed, the oldest, and that looking costs no more than what has happened."""

from itertools import count
from math import exp

import pytest

from tests.support.core import Stored, claim
from wakeq_server.core.model import DEFAULT_GROUP, GroupInfo, NewMessage, Settle, TopicConfig
from wakeq_server.core.peeking import peek
from wakeq_server.core.rates import OVER_S, Rate
from wakeq_server.core.survey import Survey
from wakeq_server.core.topic import Group, Topic
from wakeq_server.core.transactions import Publish
from wakeq_server.errors import StorageFull, TooManyTopics


class Core(Stored):
    """A core with one topic `t`."""

    def __init__(self, *, max_topics: int = 10, groups: tuple[str, ...] = ()) -> None:
        super().__init__(max_topics=max_topics)
        self.write(self.core.create("t", TopicConfig(), self.wall))
        for name in groups:
            self.write(self.core.put_group(self.topic, name))

    @property
    def topic(self) -> Topic:
        return self.core.topic("t")

    def group(self, name: str = DEFAULT_GROUP) -> Group:
        return self.topic.groups[name]

    def info(self, name: str = DEFAULT_GROUP) -> GroupInfo:
        return self.group(name).describe(self.now, self.wall)

    def publish(self, messages: int = 1, **said: object) -> list[int]:
        publish = self.core.publish(self.topic, [NewMessage(b"1", **said)] * messages, self.now, self.wall)  # type: ignore[arg-type]
        assert isinstance(publish, Publish)
        self.write(publish)
        return [message.seq for message in publish.messages]

    def claim(self, name: str = DEFAULT_GROUP) -> str:
        lease = claim(self.core, self.group(name), self.now)
        assert lease is not None
        return lease.key.encode()

    def settle(self, *lines: Settle) -> None:
        _, transaction = self.core.settle(self.topic, lines, self.now, self.wall)
        self.write(transaction)

    def restart(self) -> None:
        self.core = self.load()


# Rates


def test_a_steady_rate_is_found() -> None:
    rate = Rate()
    for second in range(600):
        rate.add(50, float(second))
    assert rate.at(600.0) == pytest.approx(50.0, rel=0.02)


def test_a_rate_decays_over_a_minute_without_being_looked_at() -> None:
    rate = Rate()
    rate.add(60, 1000.0)
    assert rate.at(1000.0) == 1.0
    assert rate.at(1000.0 + OVER_S) == pytest.approx(exp(-1))
    assert rate.at(1e9) == 0.0
    assert Rate().at(1e9) == 0.0


def test_looking_changes_nothing() -> None:
    looked, left = Rate(), Rate()
    for rate in (looked, left):
        rate.add(3, 10.0)
    for moment in range(10, 70):
        looked.at(float(moment))
    for rate in (looked, left):
        rate.add(1, 70.0)
    assert looked.at(71.0) == left.at(71.0)


def test_a_topic_and_its_groups_have_their_rates() -> None:
    core = Core(groups=("second",))
    core.publish(30)
    first, second, third = (core.claim() for _ in range(3))
    core.settle(Settle("ack", first), Settle("nack", second, delay_s=0.0), Settle("extend", third))
    info = core.topic.describe(core.now, core.wall)
    default, other = info.groups
    assert info.published_per_s == 0.5
    assert (default.delivered_per_s, default.settled_per_s) == (0.05, 0.033)
    assert (other.delivered_per_s, other.settled_per_s) == (0.0, 0.0)
    core.now += 10 * OVER_S
    assert core.topic.describe(core.now, core.wall).published_per_s == 0.0


def test_what_failed_to_be_stored_has_no_rate() -> None:
    core = Core()
    publish = core.core.publish(core.topic, [NewMessage(b"1")], core.now, core.wall)
    assert isinstance(publish, Publish)
    publish.abort(StorageFull("full"), core.now)
    assert core.topic.published.at(core.now) == 0.0


# Counts


def test_a_delayed_message_counts_in_those_groups_that_get_it() -> None:
    core = Core()
    core.publish(delay_s=50.0)
    core.write(core.core.put_group(core.topic, "late"))
    core.publish(delay_s=60.0)
    assert (core.info().delayed, core.info("late").delayed) == (2, 1)
    core.now += 55.0
    core.core.tick(core.now, core.wall)
    assert [(core.info(name).delayed, core.info(name).ready) for name in (DEFAULT_GROUP, "late")] == [(1, 1), (1, 0)]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_delayed_message_that_one_group_has_dropped_is_delayed_in_the_other_alone(restarted: bool) -> None:
    core = Core(groups=("second",))
    core.publish(delay_s=50.0)
    core.write(core.core.purge(core.group("second")))
    if restarted:
        core.restart()
    assert (core.info().delayed, core.info("second").delayed) == (1, 0)
    assert [len(peek(core.group(name), "delayed", 0, 9, 0.0)) for name in (DEFAULT_GROUP, "second")] == [1, 0]
    core.now += 60.0
    core.core.tick(core.now, core.wall)
    standing = [(core.info(name).delayed, core.info(name).ready) for name in (DEFAULT_GROUP, "second")]
    assert standing == [(0, 1), (0, 0)]
    assert claim(core.core, core.group("second"), core.now) is None
    core.settle(Settle("ack", core.claim()))
    assert list(core.topic.seqs()) == []


def test_a_message_that_one_group_has_buried_takes_room_while_another_wants_it() -> None:
    core = Core(groups=("second",))
    core.publish()
    core.settle(Settle("dead", core.claim()))
    core.claim("second")
    core.write(core.core.pause(core.topic, False))
    assert core.topic.held_messages == 1
    core.restart()
    assert (core.topic.held_messages, core.info("second").leased) == (1, 1)


def test_a_purge_that_failed_has_dropped_nothing() -> None:
    core = Core(groups=("second",))
    core.publish(delay_s=50.0)
    purge = core.core.purge(core.group("second"))
    assert core.info("second").delayed == 0
    purge.abort(StorageFull("full"), core.now)
    assert core.info("second").delayed == 1


def test_what_is_nacked_after_its_time_to_live_is_dropped_whatever_the_delay() -> None:
    core = Core()
    core.publish(ttl_s=5.0)
    lease = core.claim()
    core.now += 6.0
    core.core.tick(core.now, core.wall)
    core.settle(Settle("nack", lease, delay_s=3.0))
    assert (core.info().delayed, list(core.topic.seqs()), core.group().attempts) == (0, [], {})
    assert core.core.counts.dropped_by_ttl == 1


def test_a_purge_that_failed_twice_leaves_those_of_one_key_in_line() -> None:
    core = Core()
    core.publish(2, key="a")
    for _ in range(2):
        core.core.purge(core.group()).abort(StorageFull("full"), core.now)
    first = core.claim()
    assert claim(core.core, core.group(), core.now) is None
    core.settle(Settle("ack", first))
    core.claim()


def test_the_oldest_message_is_found_wherever_it_stands() -> None:
    core = Core()
    ages: list[float | None] = []

    def look() -> None:
        ages.append(core.info().oldest_age_s)

    look()
    for _ in range(4):
        core.publish()
        core.now += 1.0
    look()
    first, second = core.claim(), core.claim()
    look()
    core.settle(Settle("dead", first))
    look()
    core.settle(Settle("ack", second))
    look()
    core.write(core.core.redrive(core.group(), None))
    look()
    core.settle(Settle("nack", core.claim(), delay_s=5.0))
    look()
    core.write(core.core.purge(core.group()))
    look()
    assert ages == [None, 4.0, 4.0, 3.0, 2.0, 4.0, 4.0, None]


def test_a_message_that_came_back_is_the_oldest_again() -> None:
    core = Core()
    core.publish(3)
    lease = claim(core.core, core.group(), core.now)
    assert lease is not None
    core.now += 5.0
    core.publish()
    assert core.info().oldest_age_s == 5.0
    core.core.undo(core.group(), lease.key)
    assert core.info().oldest_age_s == 5.0


def test_looking_costs_at_most_a_step_for_each_message_that_has_come() -> None:
    core = Core()
    core.publish(2_000, ttl_s=10.0)
    core.now += 20.0
    core.core.tick(core.now, core.wall)
    core.publish(1)
    held = core.topic.holds
    asked = count()

    class Counting(Topic):
        __slots__ = ()

        def holds(self, seq: int) -> bool:
            next(asked)
            return held(seq)

    core.topic.__class__ = Counting
    core.info()
    once = next(asked)
    for _ in range(50):
        core.info()
    assert next(asked) - once < 200


def test_many_in_flight_are_not_gone_through_again() -> None:
    core = Core()
    core.publish(1_000)
    for _ in range(1_000):
        core.claim()

    class Watched(dict[int, object]):
        steps = 0

        def items(self):  # type: ignore[no-untyped-def]
            Watched.steps += len(self)
            return super().items()

        def get(self, *key):  # type: ignore[no-untyped-def]
            Watched.steps += 1
            return super().get(*key)

    core.group().open = Watched(core.group().open)  # type: ignore[assignment]
    for _ in range(100):
        core.info()
    assert Watched.steps <= 1_100


def test_a_survey_adds_up_all_topics_and_names_the_busiest() -> None:
    core = Core(groups=("second",))
    core.publish(3)
    core.publish(1, delay_s=9.0)
    core.settle(Settle("dead", core.claim()), Settle("dead", core.claim("second")))
    core.claim()
    for name, held in (("backlog", 2), ("empty", 0), ("small backlog", 1)):
        core.write(core.core.create(name, TopicConfig(), core.wall))
        core.core.topic(name).held_messages = held
    for topics in (list(core.core.topics.values()), list(reversed(core.core.topics.values()))):
        survey = Survey(3, core.now)
        survey.look(topics)
        assert [topic.name for topic in survey.busiest] == ["t", "backlog", "small backlog"]
    seen = survey.overview()
    assert (seen.topics, seen.messages, seen.ready, seen.delayed, seen.leased, seen.dead) == (4, 6, 3, 2, 1, 2)
    core.write(core.core.drop_group(core.group("second")))
    again = Survey(0, core.now)
    again.look(core.core.topics.values())
    assert (again.overview().dead, again.busiest) == (1, [])


# Limits


def test_topics_that_are_being_made_count() -> None:
    core = Core(max_topics=3)
    core.core.create("a", TopicConfig(), core.wall)
    last = core.core.create("b", TopicConfig(), core.wall)
    with pytest.raises(TooManyTopics, match="its 3 topics"):
        core.core.create("c", TopicConfig(), core.wall)
    last.abort(StorageFull("full"), core.now)
    core.core.create("c", TopicConfig(), core.wall)


def test_a_lower_limit_keeps_what_is_there() -> None:
    core = Core()
    core.max_topics = 0
    core.restart()
    core.publish()
    with pytest.raises(TooManyTopics):
        core.core.create("a", TopicConfig(), core.wall)


def test_keys_forgotten_early_are_counted_over_all_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wakeq_server.core.dedup.KEYS_MAX", 2)
    core = Core()
    for number in range(6):
        publish = core.core.publish(core.topic, [NewMessage(b"1")], core.now, core.wall, str(number))
        assert isinstance(publish, Publish)
        core.write(publish)
    assert core.topic.dedup is not None
    assert core.core.counts.keys_forgotten == core.topic.dedup.shortened == 3
