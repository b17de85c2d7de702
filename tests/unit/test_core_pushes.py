"""Pushes in the core against a small model: put, deleted, with their groups and topics, in any order, where commits
come late or fail, and across restarts. What the deliverer is told adds up to what is there."""

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.stores import KeepingStore
from wakeq_server.core.model import Push, PushConfig, TopicConfig
from wakeq_server.core.queue import Effects, QueueCore
from wakeq_server.core.restore import restore
from wakeq_server.core.topic import Topic
from wakeq_server.core.transactions import PutPush, Transaction
from wakeq_server.errors import GroupNotFound, StorageFull, TopicNotFound

NAMES = st.sampled_from(["p", "q"])
GROUPS = st.sampled_from(["default", "second"])


class PushMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.store = KeepingStore()
        self.core = self.load()
        self.expected: dict[str, PushConfig] = {}
        self.told: dict[str, Push] = {}
        self.waiting: list[tuple[Transaction, Callable[[], None]]] = []
        self.urls = 0
        self.groups_going: set[str] = set()
        self.run(self.core.create("t", TopicConfig(), 0.0))
        self.run(self.core.put_group(self.topic, "second"))

    def load(self) -> QueueCore:
        return restore(self.store.load(), now=0.0, wall=0.0, jitter=lambda: 0.0, durable=True)

    @property
    def topic(self) -> Topic:
        return self.core.topics["t"]

    def run(self, transaction: Transaction) -> None:
        self.store.commit([transaction.records()])
        transaction.commit(0.0)

    @rule(name=NAMES, group=GROUPS, in_flight=st.integers(1, 3))
    def put(self, name: str, group: str, in_flight: int) -> None:
        if group in self.groups_going or group not in self.topic.groups:
            return
        self.urls += 1
        config = PushConfig(f"http://x/{self.urls}", group, in_flight, 7.0)
        put = self.core.put_push(self.topic.groups[group], name, config)
        self.waiting.append((put, lambda: self.was_put(put, name, config)))

    def was_put(self, put: PutPush, name: str, config: PushConfig) -> None:
        assert put.error is None
        assert put.new == (name not in self.expected)
        self.expected[name] = config

    @rule(name=NAMES)
    def drop(self, name: str) -> None:
        push = self.topic.pushes.get(name)
        if push is None or push.id in self.topic.dropping_pushes:
            return
        self.waiting.append((self.core.drop_push(self.topic, push), lambda: self.was_dropped(push)))

    def was_dropped(self, push: Push) -> None:
        if self.expected.get(push.name) == push.config:
            del self.expected[push.name]

    @rule()
    def drop_group(self) -> None:
        if "second" in self.groups_going or "second" not in self.topic.groups:
            return
        self.groups_going.add("second")
        self.waiting.append((self.core.drop_group(self.topic.groups["second"]), self.group_was_dropped))

    def group_was_dropped(self) -> None:
        self.groups_going.clear()
        self.expected = {name: config for name, config in self.expected.items() if config.group != "second"}

    @precondition(lambda self: not self.groups_going)
    @rule()
    def put_group(self) -> None:
        if "second" not in self.topic.groups:
            self.run(self.core.put_group(self.topic, "second"))

    @precondition(lambda self: not self.waiting)
    @rule()
    def topic_anew(self) -> None:
        self.run(self.core.drop(self.topic))
        self.expected.clear()
        self.run(self.core.create("t", TopicConfig(), 0.0))

    @precondition(lambda self: self.waiting)
    @rule(fails=st.booleans())
    def finish(self, fails: bool) -> None:
        transaction, what = self.waiting.pop(0)
        if fails:
            transaction.abort(StorageFull("full"), 0.0)
            self.groups_going = {name for name in self.groups_going if self.topic.groups[name].dropping}
            return
        self.run(transaction)
        what()

    @precondition(lambda self: self.waiting)
    @rule()
    def finish_in_one_batch(self) -> None:
        self.store.commit([transaction.records() for transaction, _ in self.waiting])
        for transaction, what in self.waiting:
            transaction.commit(0.0)
            what()
        self.waiting.clear()

    @rule()
    def restart(self) -> None:
        """What was never committed is not there."""
        self.waiting.clear()
        self.groups_going.clear()
        self.core = self.load()
        assert not self.core.effects.pushes
        self.told = dict(self.topic.pushes)

    @invariant()
    def pushes_are_those_of_the_model(self) -> None:
        there = self.topic.pushes
        assert {name: push.config for name, push in there.items()} == self.expected
        assert all((push.topic, push.name) == ("t", name) for name, push in there.items())

    @invariant()
    def whoever_delivers_knows_them(self) -> None:
        effects, self.core.effects = self.core.effects, Effects()
        for push, there in effects.pushes:
            if there:
                self.told[push.name] = push
            else:
                assert self.told.pop(push.name) is push
        assert self.told == self.topic.pushes


PushMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
test_pushes_against_model = PushMachine.TestCase


def test_a_push_put_for_what_is_gone_by_then_is_refused() -> None:
    core = restore(KeepingStore().load(), now=0.0, wall=0.0, jitter=lambda: 0.0, durable=True)
    core.create("t", TopicConfig(), 0.0).commit(0.0)
    topic = core.topic("t")
    core.put_group(topic, "g").commit(0.0)
    late = core.put_push(topic.groups["g"], "p", PushConfig("http://x"))
    core.drop_group(topic.groups["g"]).commit(0.0)
    late.commit(0.0)
    later = core.put_push(topic.groups["default"], "p", PushConfig("http://x"))
    core.drop(topic).commit(0.0)
    later.commit(0.0)
    assert isinstance(late.error, GroupNotFound)
    assert isinstance(later.error, TopicNotFound)
    assert topic.pushes == {}
