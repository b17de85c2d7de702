"""The core against a small independent model: any sequence of operations on several topics, in any order, with failing
commits, time, crashes and restarts. The model keeps a record a message a group, and looks through all of them every
time."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from tests.support.cancelling import cost
from tests.support.stores import KeepingStore
from wakeq_server.core.dedup import Seen
from wakeq_server.core.leases import Lease
from wakeq_server.core.lifecycle import State
from wakeq_server.core.model import LeaseKey, NewMessage, Settle, TopicConfig
from wakeq_server.core.queue import MESSAGE_COST, Effects, QueueCore
from wakeq_server.core.restore import restore
from wakeq_server.core.topic import Group, Topic
from wakeq_server.core.transactions import Publish, Transaction
from wakeq_server.errors import QueueError, StorageFull

WALL = 1_000_000_000.0
SIZE = 10
"""Of every body: of those in the store alone, the core knows only the sum."""
CONFIG = TopicConfig(
    lease_s=10.0,
    max_deliveries=3,
    retry_min_s=2.0,
    retry_max_s=8.0,
    dead_ttl_s=300.0,
    max_messages=14,
    dedup_window_s=60.0,
)
SECONDS = st.sampled_from([1.0, 5.0, 10.0, 30.0])
GROUPS = ("default", "default", "second")
TOPICS = (*"tttttt", "u", "d")
WHICH = st.integers(0, 3) | st.none()
SOON = st.sampled_from([True, True, False])
CONFIGS = st.builds(
    replace,
    st.just(CONFIG),
    lease_s=st.sampled_from([10.0, 20.0]),
    max_deliveries=st.sampled_from([3, 1, 0]),
    dead_ttl_s=st.sampled_from([300.0, 50.0]),
    dead_letter_topic=st.sampled_from(["d", "d", None]),
    ttl_s=st.sampled_from([None, None, 20.0]),
    max_messages=st.sampled_from([14, 4, None]),
    max_bytes=st.sampled_from([None, 6 * SIZE]),
    dedup_window_s=st.sampled_from([60.0, 5.0]),
)
NEVER = float("inf")
NO_LEASE = "0-0-0-0-0"
OUT = ("leased", "settling", "delayed")
DONE = ("gone", "dead")


@dataclass
class Place:
    """A message in one group."""

    state: str = "ready"
    attempt: int = 0
    lease: str = ""
    ends: float = 0.0
    outcome: str = ""
    then: str = ""
    hidden: float = 0.0
    """When a delay ends, or when it died."""
    stored: float = 0.0
    """The same after a restart: what is written counts from the decision, not from its commit."""
    promised: bool = False
    """Dead, and on its way to another topic."""


@dataclass
class Known:
    """A message."""

    key: str | None
    due: float
    expires: float
    pending: bool = True
    places: dict[str, Place] = field(default_factory=dict)
    durable: dict[str, Place] = field(default_factory=dict)
    """Its places as of the last commit."""

    def takes_room(self) -> bool:
        return self.pending or any(place.state not in DONE for place in self.places.values())


@dataclass
class Used:
    """An idempotency key."""

    what: str
    seq: int
    expires: float
    stored: float
    """When it is over as the store has it, whatever the window has become."""
    publish: object


@dataclass
class Topical:
    """What is known of a topic."""

    config: TopicConfig
    messages: dict[int, Known] = field(default_factory=dict)
    groups: list[str] = field(default_factory=lambda: ["default"])
    keys: dict[str, Used] = field(default_factory=dict)
    last_seq: int = 0
    paused: bool = False
    dropping: bool = False

    def places(self, group: str) -> dict[int, Place]:
        return {seq: known.places[group] for seq, known in self.messages.items() if group in known.places}

    def everywhere(self) -> Iterator[tuple[Known, Place]]:
        for known in self.messages.values():
            for place in known.places.values():
                yield known, place

    def held(self) -> int:
        return sum(known.takes_room() for known in self.messages.values())

    def is_full(self, more: int) -> bool:
        held, config = self.held() + more, self.config
        over = config.max_messages is not None and held > config.max_messages
        return over or (config.max_bytes is not None and held * SIZE > config.max_bytes)

    def claimable(self, group: str) -> list[int]:
        """READY, due, and no earlier message of its key unsettled."""
        found: list[int] = []
        held = {self.messages[seq].key for seq, place in self.places(group).items() if place.state in OUT}
        for seq, place in sorted(self.places(group).items()):
            key = self.messages[seq].key
            if place.state == "ready" and (key is None or key not in held):
                found.append(seq)
            if place.state == "ready" and key is not None:
                held.add(key)
        return [] if self.paused else found


class CoreMachine(RuleBasedStateMachine):
    leases = Bundle("leases")

    @initialize(budget=st.sampled_from([1 << 62, 3 * (MESSAGE_COST + SIZE), 0]))
    def start(self, budget: int) -> None:
        self.now = 100.0
        self.budget = budget
        self.store = KeepingStore()
        self.core = self.load()
        self.topics: dict[str, Topical] = {}
        self.waiting: list[tuple[Transaction, object]] = []
        self.to_move: list[tuple[Group, int]] = []
        self.issued: set[str] = set()
        self.ended: dict[str, tuple[str, float]] = {}
        for name in ("t", "u", "d"):
            self.make(name)
        self.publish("t", 3, None, 0.0, None, None, b"1" * SIZE, soon=True)

    def run(self, transaction: Transaction, *, fails: bool = False) -> None:
        """One batch by itself: what rides along is stored, whatever becomes of the transaction."""
        self.flush()
        if fails:
            transaction.abort(StorageFull("full"), self.now)
        else:
            self.store.commit([transaction.records()])
            transaction.commit(self.now)

    def flush(self) -> None:
        history = self.core.write_history(self.now, self.wall)
        if history is not None:
            self.store.commit([history.records()])
            history.commit(self.now)
        self.all_is_durable()

    def all_is_durable(self) -> None:
        for model in self.topics.values():
            for known in model.messages.values():
                known.durable = {name: replace(place) for name, place in known.places.items()}

    @property
    def wall(self) -> float:
        return WALL + self.now

    def load(self) -> QueueCore:
        return restore(
            self.store.load(),
            now=self.now,
            wall=self.wall,
            jitter=lambda: 0.0,
            durable=True,
            memory_budget=self.budget,
        )

    def topic(self, name: str) -> Topic:
        return self.core.topics[name]

    def group(self, topic: str, name: str) -> Group:
        return self.topic(topic).groups[name]

    def live(self, topic: str) -> Topical | None:
        """The model of a topic, unless it is gone or going."""
        model = self.topics.get(topic)
        return None if model is None or model.dropping else model

    def of_lease(self, lease: str) -> tuple[str, str, int, Place] | None:
        for topic, model in self.topics.items():
            for name in model.groups:
                for seq, place in model.places(name).items():
                    if place.lease == lease and place.state in ("leased", "settling"):
                        return topic, name, seq, place
        return None

    # Publish

    @rule(
        topic=st.sampled_from(TOPICS),
        count=st.integers(1, 3),
        key=st.sampled_from([None, None, "a", "b"]),
        delay=st.sampled_from([0.0, 0.0, 3.0]),
        ttl=st.sampled_from([None, None, 8.0]),
        idempotency=st.sampled_from([None, None, "x", "y"]),
        body=st.sampled_from([b"1" * SIZE, b"2" * SIZE]),
        soon=SOON,
    )
    def publish(
        self,
        topic: str,
        count: int,
        key: str | None,
        delay: float,
        ttl: float | None,
        idempotency: str | None,
        body: bytes,
        soon: bool,
    ) -> None:
        model = self.live(topic)
        if model is None:
            return
        delay = 0.0 if key else delay
        new = [NewMessage(body, key=key, delay_s=delay, ttl_s=ttl)] * count
        expected = self.expected_of_publish(model, new, idempotency)
        if expected in ("TopicFull", "IdempotencyConflict"):
            with pytest.raises(QueueError) as refusal:
                self.core.publish(self.topic(topic), new, self.now, self.wall, idempotency)
            assert type(refusal.value).__name__ == expected
            return
        publish = self.core.publish(self.topic(topic), new, self.now, self.wall, idempotency)
        if isinstance(publish, Seen):
            assert expected == f"seen {publish.first_seq}"
            return
        assert expected == "new"
        ttl = model.config.ttl_s if ttl is None else ttl
        seqs = self.taken_in(model, publish, key, self.now + delay, NEVER if ttl is None else self.now + ttl)
        assert len(seqs) == count
        if idempotency is not None:
            until = self.now + model.config.dedup_window_s
            model.keys[idempotency] = Used(repr(new), seqs[0], until, until, publish)
        self.waiting.append((publish, (model, seqs)))
        if soon:
            self.finish_all()

    def taken_in(self, model: Topical, publish: Publish, key: str | None, due: float, expires: float) -> list[int]:
        seqs = [message.seq for message in publish.messages]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
        assert seqs[0] > model.last_seq
        model.last_seq = seqs[-1]
        model.messages |= {seq: Known(key, due, expires) for seq in seqs}
        return seqs

    def expected_of_publish(self, model: Topical, new: list[NewMessage], idempotency: str | None) -> str:
        used = model.keys.get(idempotency or "")
        if used is not None and (used.expires > self.now or used.publish is not None):
            return f"seen {used.seq}" if used.what == repr(new) else "IdempotencyConflict"
        return "TopicFull" if model.is_full(len(new)) else "new"

    def finish_all(self) -> None:
        while self.waiting:
            self.finish_one(fails=False)

    @precondition(lambda self: self.waiting)
    @rule(fails=st.booleans())
    def finish(self, fails: bool) -> None:
        self.finish_one(fails=fails)

    def finish_one(self, *, fails: bool) -> None:
        transaction, what = self.waiting.pop(0)
        self.run(transaction, fails=fails)
        if isinstance(what, Place):
            self.finish_settle(what, fails)
        elif isinstance(what, str):
            self.finish_drop(what, fails)
        else:
            assert isinstance(what, tuple)
            self.finish_publish(transaction, *what, fails=fails)
        self.all_is_durable()
        # What was waiting may be due already; the engine ticks at once then.
        self.tick()

    def finish_publish(
        self, publish: Transaction, model: Topical, seqs: list[int], dead: Place | None = None, *, fails: bool
    ) -> None:
        for name, used in list(model.keys.items()):
            if used.publish is publish:
                used.publish = None
                if fails:
                    del model.keys[name]
        for seq in seqs:
            known = model.messages[seq]
            known.pending = False
            for name in [] if fails else model.groups:
                known.places[name] = Place("ready" if known.due <= self.now else "scheduled")
        if dead is not None:
            dead.promised = False
            if dead.state == "dead" and not fails:
                dead.state = "gone"

    def finish_settle(self, place: Place, fails: bool) -> None:
        if place.state != "settling":
            return
        if fails:
            place.state, place.ends = "leased", max(place.ends, self.now)
            return
        self.ended[place.lease] = (place.outcome, self.now)
        place.state = place.then
        place.attempt -= place.outcome == "release"
        if place.then in ("delayed", "dead"):
            place.hidden += self.now
        self.drop_overdue()

    # Leases

    @rule(
        target=leases,
        topic=st.sampled_from(TOPICS),
        name=st.sampled_from(GROUPS),
        length=SECONDS | st.none(),
        most=st.integers(1, 4),
    )
    def claim(self, topic: str, name: str, length: float | None, most: int) -> MultipleResults[str]:
        model = self.topics.get(topic)
        if model is None or name not in model.groups:
            return multiple(NO_LEASE)
        group = self.group(topic, name)
        leases = self.core.lease(group, self.core.take(group, self.now, most), length, self.now)
        claimed = [self.claimed(topic, model, name, length, lease) for lease in leases]
        assert len(leases) == most or not model.claimable(name)
        return multiple(*claimed or [NO_LEASE])

    def claimed(self, topic: str, model: Topical, name: str, length: float | None, lease: Lease) -> str:
        assert lease.key.seq == model.claimable(name)[0], "not the oldest ready message"
        place = model.messages[lease.key.seq].places[name]
        place.state, place.lease = "leased", lease.key.encode()
        place.attempt += 1
        place.ends = self.now + (length or model.config.lease_s)
        assert lease.attempt == place.attempt
        assert place.lease not in self.issued, "a lease id came twice"
        self.issued.add(place.lease)
        self.body_is_somewhere(self.topic(topic), lease.key.seq)
        return place.lease

    def body_is_somewhere(self, topic: Topic, seq: int) -> None:
        message = topic.messages.get(seq)
        if message is None or message.body is None:
            (message,) = self.store.read_bodies(topic.id, seq, seq)
        assert message.body is not None

    def one_of(self, lease: str, which: int | None) -> str:
        """A lease that is alive, mostly; else one of any time."""
        alive = [
            place.lease for model in self.topics.values() for _, place in model.everywhere() if place.state in OUT[:2]
        ]
        return lease if which is None or not alive else alive[which % len(alive)]

    @rule(lease=leases, which=WHICH)
    def undo(self, lease: str, which: int | None) -> None:
        lease = self.one_of(lease, which)
        found = self.of_lease(lease)
        if found is None:
            return
        topic, name, _, place = found
        self.core.undo(self.group(topic, name), LeaseKey.decode(lease))  # type: ignore[arg-type]
        if place.state == "leased":
            place.state, place.attempt = "ready", place.attempt - 1
            self.drop_overdue()

    @rule(
        lease=leases,
        which=WHICH,
        where=st.sampled_from(TOPICS),
        outcome=st.sampled_from(["ack", "nack", "extend", "dead", "release"]),
        seconds=st.sampled_from([0.0, 3.0]) | st.none(),
        fails=st.booleans(),
        soon=SOON,
    )
    def settle(
        self, lease: str, which: int | None, where: str, outcome: str, seconds: float | None, fails: bool, soon: bool
    ) -> None:
        """By its own topic; a lease that has ended, by any."""
        lease = self.one_of(lease, which)
        found = self.of_lease(lease)
        topic = found[0] if found is not None else where
        model = self.live(topic)
        if model is None:
            return
        length = None if outcome != "extend" or not seconds else seconds
        line = Settle(outcome, lease, delay_s=seconds, lease_s=length, reason="why")  # type: ignore[arg-type]
        expected = self.expected_status(found, lease, outcome)
        (result,), transaction = self.core.settle(self.topic(topic), [line], self.now, self.wall)
        assert result.status == expected
        if found is None or found[3].state == "settling" or expected != "ok":
            assert not transaction
            return
        place = found[3]
        if outcome == "extend":
            place.ends = place.ends if fails else self.now + (length or model.config.lease_s)
            if fails:
                transaction.abort(StorageFull("full"), self.now)
            else:
                self.run(transaction)
            return
        place.state, place.outcome = "settling", outcome
        place.then, place.hidden = self.after_settle(model.config, place, outcome, seconds)
        place.stored = self.now + place.hidden
        self.waiting.append((transaction, place))
        if soon:
            self.finish_all()

    def after_settle(self, config: TopicConfig, place: Place, outcome: str, seconds: float | None) -> tuple[str, float]:
        if outcome != "nack":
            return {"ack": "gone", "dead": "dead", "release": "ready"}[outcome], 0.0
        if config.max_deliveries and place.attempt >= config.max_deliveries:
            return "dead", 0.0
        backoff = min(8.0, 2.0 * 2 ** (place.attempt - 1)) * 0.5
        endless = not config.max_deliveries and place.attempt >= 3
        hidden = backoff if seconds is None else max(seconds, backoff) if endless else seconds
        return ("delayed" if hidden else "ready"), hidden

    def expected_status(self, found: tuple[str, str, int, Place] | None, lease: str, outcome: str) -> str:
        if found is None:
            remembered, when = self.ended.get(lease, ("", 0.0))
            return "ok" if remembered == outcome and self.now - when <= 120 else "stale"
        place = found[3]
        if place.state == "settling":
            return "ok" if place.outcome == outcome else "stale"
        return "ok" if place.ends > self.now else "stale"

    # Dead letters

    @rule(which=st.integers(0, 3))
    def move(self, which: int) -> None:
        """One of those that the core wants to have moved."""
        self.to_move += self.core.effects.to_move
        self.core.effects = Effects()
        if not self.to_move:
            return
        group, seq = self.to_move.pop(which % len(self.to_move))
        model, target = self.topics.get(group.topic.name), self.topics.get("d")
        if group.gone or model is None or not group.topic.holds(seq):
            return
        (message,) = self.store.read_bodies(group.topic.id, seq, seq)
        place = model.messages[seq].places[group.name]
        free = place.state == "dead" and not place.promised and model.config.dead_letter_topic == "d"
        may = free and target is not None and target is not model and not target.dropping and not target.is_full(1)
        moving = self.core.move_dead(group, seq, message, self.now, self.wall)
        assert (moving is not None) == may
        if moving is None or target is None:
            return
        place.promised = True
        expires = NEVER if target.config.ttl_s is None else self.now + target.config.ttl_s
        seqs = self.taken_in(target, moving.publish, None, self.now, expires)
        self.waiting.append((moving, (target, seqs, place)))

    @rule(
        topic=st.sampled_from(TOPICS),
        name=st.sampled_from(GROUPS),
        limit=st.sampled_from([1, None]),
        fails=st.booleans(),
    )
    def redrive(self, topic: str, name: str, limit: int | None, fails: bool) -> None:
        self.finish_all()
        model = self.live(topic)
        if model is None or name not in model.groups:
            return
        redrive = self.core.redrive(self.group(topic, name), limit)
        dead = {seq for seq, place in model.places(name).items() if place.state == "dead"}
        fresh = {seq for seq in dead if model.messages[seq].expires > self.now}
        assert set(redrive.seqs) == fresh if limit is None else set(redrive.seqs) <= fresh
        assert len(redrive.seqs) == min(len(fresh), limit or len(fresh))
        self.run(redrive, fails=fails)
        for seq in [] if fails else redrive.seqs:
            model.messages[seq].places[name] = Place()
        self.all_is_durable()

    # Administration

    @rule(
        what=st.sampled_from(["add group", "drop group", "pause", "resume", "configure", "drop", "make", "purge"]),
        topic=st.sampled_from(TOPICS),
        name=st.sampled_from(("second", *GROUPS)),
        config=CONFIGS,
        fails=st.booleans(),
    )
    def administer(self, what: str, topic: str, name: str, config: TopicConfig, fails: bool) -> None:
        """One rule for all of it, since traffic is to be more frequent."""
        if what == "add group":
            self.add_group(topic, fails)
        elif what == "drop group":
            self.drop_group(topic, name, fails)
        elif what in ("pause", "resume"):
            self.pause(topic, what == "pause", fails)
        elif what == "configure":
            self.configure(topic, config, fails)
        elif what == "purge":
            self.purge(topic, name, fails)
        elif what == "drop":
            self.drop(topic)
        else:
            self.make(topic)

    def add_group(self, topic: str, fails: bool) -> None:
        self.finish_all()
        model = self.topics.get(topic)
        if model is not None and "second" not in model.groups:
            self.run(self.core.put_group(self.topic(topic), "second"), fails=fails)
            model.groups += [] if fails else ["second"]

    def drop_group(self, topic: str, name: str, fails: bool) -> None:
        self.finish_all()
        model = self.topics.get(topic)
        if model is None or name not in model.groups:
            return
        self.run(self.core.drop_group(self.group(topic, name)), fails=fails)
        if not fails:
            model.groups.remove(name)
            for known in model.messages.values():
                known.places.pop(name, None)
        self.all_is_durable()

    def purge(self, topic: str, name: str, fails: bool) -> None:
        self.finish_all()
        model = self.topics.get(topic)
        if model is None or name not in model.groups:
            return
        self.run(self.core.purge(self.group(topic, name)), fails=fails)
        for place in model.places(name).values():
            if place.state in ("ready", "delayed"):
                place.state = "ready" if fails else "gone"
            elif place.state == "scheduled" and not fails:
                place.state = "gone"
        self.all_is_durable()
        # What it gave back is written like any history, soon after; before that, a crash finds it dropped.
        self.flush()

    def pause(self, topic: str, paused: bool, fails: bool) -> None:
        self.finish_all()
        model = self.topics.get(topic)
        if model is not None:
            self.run(self.core.pause(self.topic(topic), paused), fails=fails)
            model.paused = model.paused if fails else paused

    def configure(self, topic: str, config: TopicConfig, fails: bool) -> None:
        self.finish_all()
        model = self.topics.get(topic)
        if model is not None:
            self.run(self.core.configure(self.topic(topic), config), fails=fails)
            model.config = model.config if fails else config
            self.tick()

    def drop(self, topic: str) -> None:
        model = self.live(topic)
        if model is not None:
            self.waiting.append((self.core.drop(self.topic(topic)), topic))
            model.dropping = True

    def finish_drop(self, topic: str, fails: bool) -> None:
        if fails:
            self.topics[topic].dropping = False
            return
        del self.topics[topic]

    def make(self, topic: str) -> None:
        """A topic made anew is another: its seqs begin again, and leases of its namesake mean nothing."""
        self.finish_all()
        if topic not in self.topics:
            config = CONFIG if topic == "d" else replace(CONFIG, dead_letter_topic="d")
            self.topics[topic] = Topical(config)
            self.run(self.core.create(topic, config, self.wall))

    # Time

    @rule(seconds=st.sampled_from([0.0, 1.0, 4.0, 11.0, 200.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.tick()

    def tick(self) -> None:
        self.core.tick(self.now, self.wall)
        for model in self.topics.values():
            for known, place in model.everywhere():
                self.tick_one(model.config, known, place)
        self.drop_overdue()

    def tick_one(self, config: TopicConfig, known: Known, place: Place) -> None:
        if place.state == "leased" and place.ends <= self.now:
            self.expire(config, place)
        elif (place.state == "delayed" and place.hidden <= self.now) or (
            place.state == "scheduled" and known.due <= self.now
        ):
            place.state = "ready"
        elif place.state == "dead" and not place.promised and place.hidden + config.dead_ttl_s <= self.now:
            # One that is being moved goes when that has failed.
            place.state = "gone"

    def expire(self, config: TopicConfig, place: Place) -> None:
        last = bool(config.max_deliveries) and place.attempt >= config.max_deliveries
        place.state, place.hidden, place.stored = "dead" if last else "ready", self.now, self.now

    def drop_overdue(self) -> None:
        for model in self.topics.values():
            for known, place in model.everywhere():
                if known.expires <= self.now and place.state in ("ready", "delayed", "scheduled"):
                    place.state = "gone"

    @rule(crash=st.booleans())
    def restart(self, crash: bool) -> None:
        """What no transaction had written is as it was; in a crash so are leases and their ends since the last one."""
        if not crash:
            self.tick()
            self.flush()
        self.waiting.clear()
        self.to_move.clear()
        self.ended.clear()
        for model in self.topics.values():
            self.restart_topic(model)
        self.core = self.load()
        for name, model in self.topics.items():
            model.last_seq = self.topic(name).next_seq - 1
        self.tick()

    def restart_topic(self, model: Topical) -> None:
        model.dropping = False
        model.keys = {name: used for name, used in model.keys.items() if used.publish is None}
        for used in model.keys.values():
            used.expires = min(max(used.stored, self.now), self.now + model.config.dedup_window_s)
        for known in model.messages.values():
            known.pending = False
            known.places = {name: replace(place) for name, place in known.durable.items()}
            for place in known.places.values():
                place.promised = False
                if place.state in OUT[:2]:
                    place.state = "leased"
                    if place.ends <= self.now:
                        self.expire(model.config, place)
                elif place.state in ("delayed", "dead"):
                    place.hidden = place.stored

    # What must hold

    @invariant()
    def counts_agree(self) -> None:
        assert self.core.topics.keys() == self.topics.keys()
        for topic, model in self.topics.items():
            assert self.topic(topic).groups.keys() == set(model.groups)
            for name in model.groups:
                states = Counter(place.state for place in model.places(name).values())
                info = self.group(topic, name).describe(self.now, self.wall)
                assert (info.ready, info.delayed, info.leased, info.dead) == (
                    states["ready"],
                    states["delayed"] + states["scheduled"],
                    states["leased"] + states["settling"],
                    states["dead"],
                )
            held = model.held()
            assert (self.topic(topic).held_messages, self.topic(topic).held_bytes) == (held, held * SIZE)
        everything = [place for model in self.topics.values() for _, place in model.everywhere()]
        assert self.core.leased == sum(place.state in ("leased", "settling") for place in everything)
        hot = [message for topic in self.core.topics.values() for message in topic.messages.values()]
        assert self.core.memory_used == sum(map(cost, hot))

    @invariant()
    def every_message_stands_where_the_model_says(self) -> None:
        names = {"scheduled": State.DELAYED}
        for topic, model in self.topics.items():
            for name in model.groups:
                for seq, place in model.places(name).items():
                    expected = names.get(place.state) or State(place.state)
                    assert self.group(topic, name).standing(seq) is expected, (topic, name, seq)

    @invariant()
    def nothing_is_kept_that_nobody_wants(self) -> None:
        for topic, model in self.topics.items():
            wanted = {
                seq
                for seq, known in model.messages.items()
                if any(place.state != "gone" for place in known.places.values())
            }
            assert set(self.topic(topic).seqs()) == wanted

    @invariant()
    def next_deadline_is_never_late(self) -> None:
        dues = [
            {
                "leased": place.ends,
                "delayed": place.hidden,
                "scheduled": known.due,
                "dead": NEVER if place.promised else place.hidden + model.config.dead_ttl_s,
            }.get(place.state, NEVER)
            for model in self.topics.values()
            for known, place in model.everywhere()
        ]
        deadline, earliest = self.core.next_deadline(), min(dues, default=NEVER)
        assert earliest == NEVER or (deadline is not None and deadline <= earliest + 1e-6)


# A long run, now and then: MODEL_EXAMPLES=5000 MODEL_STEPS=80.
CoreMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("MODEL_EXAMPLES", "300")),
    stateful_step_count=int(os.environ.get("MODEL_STEPS", "50")),
    deadline=None,
    report_multiple_bugs=False,
)
test_core_against_model = CoreMachine.TestCase
