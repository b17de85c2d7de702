"""The core against a small independent model: any sequence of operations, in any order, with failing commits, time,
and restarts. The model keeps a record a message a group, and looks through all of them every time."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.stores import KeepingStore
from wakeq_server.core.dedup import Seen
from wakeq_server.core.lifecycle import State
from wakeq_server.core.model import LeaseKey, NewMessage, Settle, TopicConfig
from wakeq_server.core.queue import QueueCore
from wakeq_server.core.restore import restore
from wakeq_server.core.topic import Group, Topic
from wakeq_server.core.transactions import Transaction
from wakeq_server.errors import IdempotencyConflict, QueueError, StorageFull, TopicFull

WALL = 1_000_000_000.0
ROOM = 14
CONFIG = TopicConfig(
    lease_s=10.0,
    max_deliveries=3,
    retry_min_s=2.0,
    retry_max_s=8.0,
    dead_ttl_s=300.0,
    max_messages=ROOM,
    dedup_window_s=60.0,
)
SECONDS = st.sampled_from([1.0, 5.0, 10.0, 30.0])
NAMES = ("default", "second")


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
    stored: float = 0.0
    """When it is due after a restart: what is written counts from the decision, not from its commit."""
    was: str = ""


@dataclass
class Known:
    """A message."""

    key: str | None
    due: float
    expires: float
    pending: bool = True
    places: dict[str, Place] = field(default_factory=dict)

    def alive(self) -> bool:
        return self.pending or any(place.state not in ("gone", "dead") for place in self.places.values())


class CoreMachine(RuleBasedStateMachine):
    leases = Bundle("leases")

    @initialize()
    def start(self) -> None:
        self.now = 100.0
        self.store = KeepingStore()
        self.core = self.load()
        self.messages: dict[int, Known] = {}
        self.last_seq = 0
        self.waiting: list[tuple[Transaction, object]] = []
        self.issued: set[str] = set()
        self.ended: dict[str, tuple[str, float]] = {}
        self.keys: dict[str, tuple[bytes, int, float, object]] = {}
        self.groups = ["default"]
        self.run(self.core.create("t", CONFIG, self.wall))

    def run(self, transaction: Transaction, *, fails: bool = False) -> None:
        if fails:
            transaction.abort(StorageFull("full"), self.now)
            return
        self.flush()
        self.store.commit([transaction.records()])
        transaction.commit(self.now)

    def flush(self) -> None:
        history = self.core.write_history(self.now, self.wall)
        if history is not None:
            self.store.commit([history.records()])
            history.commit(self.now)

    @property
    def wall(self) -> float:
        return WALL + self.now

    def load(self) -> QueueCore:
        return restore(self.store.load(), now=self.now, wall=self.wall, jitter=lambda: 0.0, durable=True)

    @property
    def topic(self) -> Topic:
        return self.core.topic("t")

    def group(self, name: str) -> Group:
        return self.topic.groups[name]

    def places(self, name: str) -> dict[int, Place]:
        return {seq: known.places[name] for seq, known in self.messages.items() if name in known.places}

    def held(self) -> int:
        return sum(known.alive() for known in self.messages.values())

    def claimable(self, name: str) -> list[int]:
        """READY, due, and no earlier message of its key unsettled."""
        found: list[int] = []
        held: set[str] = set()
        out = {
            self.messages[seq].key
            for seq, place in self.places(name).items()
            if place.state in ("leased", "settling", "delayed")
        }
        for seq, place in sorted(self.places(name).items()):
            key = self.messages[seq].key
            if place.state == "ready" and (key is None or key not in held | out):
                found.append(seq)
            if place.state == "ready" and key is not None:
                held.add(key)
        return found

    def of_lease(self, lease: str) -> tuple[str, int, Place] | None:
        for name in self.groups:
            for seq, place in self.places(name).items():
                if place.lease == lease and place.state in ("leased", "settling"):
                    return name, seq, place
        return None

    # Publish

    @rule(
        count=st.integers(1, 3),
        key=st.sampled_from([None, None, "a", "b"]),
        delay=st.sampled_from([0.0, 0.0, 3.0]),
        ttl=st.sampled_from([None, None, 8.0]),
        idempotency=st.sampled_from([None, None, "x", "y"]),
        body=st.sampled_from([b"1", b"2"]),
    )
    def publish(
        self, count: int, key: str | None, delay: float, ttl: float | None, idempotency: str | None, body: bytes
    ) -> None:
        delay = 0.0 if key else delay
        new = [NewMessage(body, key=key, delay_s=delay, ttl_s=ttl)] * count
        expected = self.expected_of_publish(new, idempotency, body)
        if expected in ("TopicFull", "IdempotencyConflict"):
            with pytest.raises(QueueError) as refusal:
                self.core.publish(self.topic, new, self.now, self.wall, idempotency)
            assert type(refusal.value).__name__ == expected
            return
        publish = self.core.publish(self.topic, new, self.now, self.wall, idempotency)
        if isinstance(publish, Seen):
            assert expected == f"seen {publish.first_seq}"
            return
        assert expected == "new"
        seqs = [message.seq for message in publish.messages]
        assert seqs == list(range(seqs[0], seqs[0] + count))
        assert seqs[0] > self.last_seq
        self.last_seq = seqs[-1]
        expires = self.now + ttl if ttl is not None else float("inf")
        for seq in seqs:
            self.messages[seq] = Known(key, self.now + delay, expires)
        if idempotency is not None:
            self.keys[idempotency] = (repr(new).encode(), seqs[0], self.now + 60.0, publish)
        self.waiting.append((publish, seqs))

    def expected_of_publish(self, new: list[NewMessage], idempotency: str | None, body: bytes) -> str:
        known = self.keys.get(idempotency or "")
        if known is not None and (known[2] > self.now or known[3] is not None):
            return f"seen {known[1]}" if known[0] == repr(new).encode() else IdempotencyConflict.__name__
        return TopicFull.__name__ if self.held() + len(new) > ROOM else "new"

    @precondition(lambda self: self.waiting)
    @rule(fails=st.booleans())
    def finish(self, fails: bool) -> None:
        transaction, what = self.waiting.pop(0)
        self.run(transaction, fails=fails)
        if isinstance(what, list):
            self.finish_publish(transaction, what, fails)
        else:
            assert isinstance(what, Place)
            self.finish_settle(what, fails)
        # What was waiting may be past its time to live; the engine ticks at once then.
        self.tick()

    def finish_publish(self, publish: Transaction, seqs: list[int], fails: bool) -> None:
        for name, used in list(self.keys.items()):
            if used[3] is publish:
                self.keys[name] = (*used[:3], None)
                if fails:
                    del self.keys[name]
        for seq in seqs:
            known = self.messages[seq]
            known.pending = False
            for name in [] if fails else self.groups:
                known.places[name] = Place("ready" if known.due <= self.now else "scheduled")

    def finish_settle(self, place: Place, fails: bool) -> None:
        if place.state != "settling":
            return
        if fails:
            place.state, place.ends = "leased", max(place.ends, self.now)
            return
        self.ended[place.lease] = (place.outcome, self.now)
        place.state = place.then
        if place.then == "delayed":
            place.hidden += self.now
        if place.then == "dead":
            place.hidden = self.now + 300.0
        self.drop_overdue()

    # Leases

    @rule(target=leases, name=st.sampled_from(NAMES), length=SECONDS | st.none())
    def claim(self, name: str, length: float | None) -> str:
        if name not in self.groups:
            return "0-0-0-0-0"
        expected = self.claimable(name)
        lease = self.core.claim(self.group(name), length, self.now)
        if lease is None:
            assert not expected
            return "0-0-0-0-0"
        assert lease.key.seq == expected[0], "not the oldest ready message"
        place = self.messages[lease.key.seq].places[name]
        place.state, place.lease = "leased", lease.key.encode()
        place.attempt += 1
        place.ends = self.now + (length or CONFIG.lease_s)
        assert lease.attempt == place.attempt
        assert place.lease not in self.issued, "a lease id came twice"
        self.issued.add(place.lease)
        return place.lease

    @rule(lease=leases)
    def undo(self, lease: str) -> None:
        found = self.of_lease(lease)
        if found is None:
            return
        name, _, place = found
        self.core.undo(self.group(name), LeaseKey.decode(lease))  # type: ignore[arg-type]
        if place.state == "leased":
            place.state, place.attempt = "ready", place.attempt - 1
            self.drop_overdue()

    @rule(
        lease=leases,
        outcome=st.sampled_from(["ack", "nack", "extend", "dead"]),
        seconds=st.sampled_from([0.0, 3.0]) | st.none(),
    )
    def settle(self, lease: str, outcome: str, seconds: float | None) -> None:
        length = None if outcome != "extend" or not seconds else seconds
        line = Settle(outcome, lease, delay_s=seconds, lease_s=length, reason="why")  # type: ignore[arg-type]
        found = self.of_lease(lease)
        expected = self.expected_status(found, lease, outcome)
        (result,), transaction = self.core.settle(self.topic, [line], self.now, self.wall)
        assert result.status == expected
        if found is None or found[2].state == "settling" or expected != "ok":
            assert not transaction
            return
        place = found[2]
        if outcome == "extend":
            place.ends = self.now + (length or CONFIG.lease_s)
            self.run(transaction)
            return
        place.state, place.outcome = "settling", outcome
        place.hidden = min(8.0, 2.0 * 2 ** (place.attempt - 1)) * 0.5 if seconds is None else seconds
        place.stored = self.now + place.hidden
        last = outcome == "nack" and place.attempt >= CONFIG.max_deliveries
        place.then = {"ack": "gone", "dead": "dead"}.get(outcome) or ("delayed" if place.hidden else "ready")
        place.then = "dead" if last else place.then
        self.waiting.append((transaction, place))

    def expected_status(self, found: tuple[str, int, Place] | None, lease: str, outcome: str) -> str:
        if found is None:
            remembered, when = self.ended.get(lease, ("", 0.0))
            return "ok" if remembered == outcome and self.now - when <= 120 else "stale"
        place = found[2]
        if place.state == "settling":
            return "ok" if place.outcome == outcome else "stale"
        return "ok" if place.ends > self.now else "stale"

    # Administration

    @precondition(lambda self: not self.waiting)
    @rule()
    def add_group(self) -> None:
        if "second" not in self.groups:
            self.run(self.core.put_group(self.topic, "second"))
            self.groups.append("second")

    @precondition(lambda self: not self.waiting)
    @rule()
    def drop_group(self) -> None:
        if "second" in self.groups:
            self.run(self.core.drop_group(self.group("second")))
            self.groups.remove("second")
            for known in self.messages.values():
                known.places.pop("second", None)

    @precondition(lambda self: not self.waiting)
    @rule(name=st.sampled_from(NAMES), fails=st.booleans())
    def purge(self, name: str, fails: bool) -> None:
        if name not in self.groups:
            return
        self.run(self.core.purge(self.group(name)), fails=fails)
        for place in self.places(name).values():
            if place.state in ("ready", "delayed"):
                place.state = "ready" if fails else "gone"
            elif place.state == "scheduled" and not fails:
                place.state = "gone"

    @precondition(lambda self: not self.waiting)
    @rule(name=st.sampled_from(NAMES))
    def redrive(self, name: str) -> None:
        if name in self.groups:
            self.run(self.core.redrive(self.group(name), None))
            for place in self.places(name).values():
                if place.state == "dead":
                    place.state, place.attempt = "ready", 0

    # Time

    @rule(seconds=st.sampled_from([0.0, 1.0, 4.0, 11.0, 200.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.tick()

    def tick(self) -> None:
        self.core.tick(self.now, self.wall)
        for known in self.messages.values():
            for place in known.places.values():
                self.tick_one(known, place)
        self.drop_overdue()

    def tick_one(self, known: Known, place: Place) -> None:
        if place.state == "leased" and place.ends <= self.now:
            last = place.attempt >= CONFIG.max_deliveries
            place.state, place.hidden = ("dead", self.now + 300.0) if last else ("ready", 0.0)
        elif (place.state == "delayed" and place.hidden <= self.now) or (
            place.state == "scheduled" and known.due <= self.now
        ):
            place.state = "ready"
        elif place.state == "dead" and place.hidden <= self.now:
            place.state = "gone"

    def drop_overdue(self) -> None:
        for known in self.messages.values():
            for place in known.places.values():
                if known.expires <= self.now and place.state in ("ready", "delayed", "scheduled"):
                    place.state = "gone"

    @rule()
    def restart(self) -> None:
        """What no transaction had written is as it was."""
        self.tick()
        self.flush()
        self.waiting.clear()
        for known in self.messages.values():
            known.pending = False
            for place in known.places.values():
                if place.state == "settling":
                    place.state = "leased" if place.ends > self.now else "ready"
                if place.state == "delayed":
                    place.hidden = place.stored
        self.ended.clear()
        self.keys = {name: known for name, known in self.keys.items() if known[3] is None}
        self.core = self.load()
        self.last_seq = self.topic.next_seq - 1
        self.tick()

    # What must hold

    @invariant()
    def counts_agree(self) -> None:
        for name in self.groups:
            group = self.group(name)
            states = Counter(place.state for place in self.places(name).values())
            info = group.describe(self.now, self.wall)
            assert (info.ready, info.delayed, info.leased, info.dead) == (
                states["ready"],
                states["delayed"] + states["scheduled"],
                states["leased"] + states["settling"],
                states["dead"],
            )
        assert self.topic.held_messages == self.held() == self.topic.held_bytes

    @invariant()
    def every_message_stands_where_the_model_says(self) -> None:
        names = {"scheduled": State.DELAYED}
        for name in self.groups:
            for seq, place in self.places(name).items():
                expected = names.get(place.state) or State(place.state)
                assert self.group(name).standing(seq) is expected, (seq, name)

    @invariant()
    def nothing_is_kept_that_nobody_wants(self) -> None:
        wanted = {
            seq for seq, known in self.messages.items() if any(place.state != "gone" for place in known.places.values())
        }
        assert set(self.topic.seqs()) == wanted

    @invariant()
    def next_deadline_is_never_late(self) -> None:
        dues = [
            {"leased": place.ends, "delayed": place.hidden, "dead": place.hidden}.get(place.state, float("inf"))
            for known in self.messages.values()
            for place in known.places.values()
        ]
        deadline = self.core.next_deadline()
        earliest = min(dues, default=float("inf"))
        assert earliest == float("inf") or (deadline is not None and deadline <= earliest + 1e-6)


CoreMachine.TestCase.settings = settings(
    max_examples=300, stateful_step_count=50, deadline=None, report_multiple_bugs=False
)
test_core_against_model = CoreMachine.TestCase
