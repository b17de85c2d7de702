"""The core against a small independent model: any sequence of operations, in any order, with failing commits,
time, and restarts. The model keeps one record a message and looks through all of them every time."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from tests.support.stores import KeepingStore
from wakeq_server.core.model import DEFAULT_GROUP, LeaseKey, NewMessage, Settle, TopicConfig
from wakeq_server.core.queue import QueueCore
from wakeq_server.core.restore import restore
from wakeq_server.core.topic import Group, Topic
from wakeq_server.core.transactions import Transaction
from wakeq_server.errors import StorageFull, TopicFull

WALL = 1_000_000_000.0
CONFIG = TopicConfig(lease_s=10.0, retry_min_s=2.0, retry_max_s=8.0, max_messages=12)
SECONDS = st.sampled_from([1.0, 5.0, 10.0, 30.0])


@dataclass
class Known:
    """All there is to know of one message."""

    state: str = "pending"
    attempt: int = 0
    lease: str = ""
    ends: float = 0.0
    claimed: float = 0.0
    outcome: str = ""
    due: float = 0.0


class CoreMachine(RuleBasedStateMachine):
    leases = Bundle("leases")

    @initialize()
    def start(self) -> None:
        self.now = 100.0
        self.store = KeepingStore()
        self.core = self.load()
        self.messages: dict[int, Known] = {}
        self.last_seq = 0
        self.waiting: list[tuple[Transaction, list[int]]] = []
        self.issued: set[str] = set()
        self.ended: dict[str, tuple[str, float]] = {}
        made = self.core.create("t", CONFIG, WALL)
        self.store.commit([made.records()])
        made.commit(self.now)

    def load(self) -> QueueCore:
        return restore(self.store.load(), now=self.now, wall=WALL + self.now, jitter=lambda: 0.0, keep_history=True)

    @property
    def topic(self) -> Topic:
        return self.core.topic("t")

    @property
    def group(self) -> Group:
        return self.topic.groups[DEFAULT_GROUP]

    def ready(self) -> list[int]:
        return sorted(seq for seq, known in self.messages.items() if known.state == "ready")

    def held(self) -> int:
        return sum(known.state != "gone" for known in self.messages.values())

    def of_lease(self, lease: str) -> Known | None:
        return next((k for k in self.messages.values() if k.lease == lease and k.state in ("leased", "settling")), None)

    @rule(count=st.integers(1, 4))
    def publish(self, count: int) -> None:
        new = [NewMessage(b"x")] * count
        if self.held() + count > 12:
            try:
                self.core.publish(self.topic, new, WALL + self.now)
            except TopicFull:
                return
            raise AssertionError("a full topic took messages")
        transaction = self.core.publish(self.topic, new, WALL + self.now)
        seqs = [message.seq for message in transaction.messages]
        assert seqs == list(range(seqs[0], seqs[0] + count))
        assert seqs[0] > self.last_seq
        self.last_seq = seqs[-1]
        self.messages |= {seq: Known() for seq in seqs}
        self.waiting.append((transaction, seqs))

    @precondition(lambda self: self.waiting)
    @rule(fails=st.booleans())
    def finish(self, fails: bool) -> None:
        transaction, seqs = self.waiting.pop(0)
        if fails:
            transaction.abort(StorageFull("full"), self.now)
        else:
            self.store.commit([transaction.records()])
            transaction.commit(self.now)
        for seq in seqs:
            self.finish_one(self.messages[seq], fails)

    def finish_one(self, known: Known, fails: bool) -> None:
        if known.state == "pending":
            known.state = "gone" if fails else "ready"
        elif known.state == "settling" and fails:
            known.state, known.ends = "leased", max(known.ends, self.now)
        elif known.state == "settling":
            self.ended[known.lease] = (known.outcome, self.now)
            gone = known.outcome == "ack"
            hidden = known.outcome == "nack" and known.due > 0
            known.state = "gone" if gone else "delayed" if hidden else "ready"
            known.due += self.now if hidden else 0.0

    @rule(target=leases, length=SECONDS | st.none())
    def claim(self, length: float | None) -> str:
        expected = self.ready()
        lease = self.core.claim(self.group, length, self.now)
        if lease is None:
            assert not expected
            return "0-0-0-0-0"
        assert lease.key.seq == expected[0], "not the oldest ready message"
        known = self.messages[lease.key.seq]
        known.state, known.lease, known.claimed = "leased", lease.key.encode(), self.now
        known.attempt += 1
        known.ends = self.now + (length or CONFIG.lease_s)
        assert lease.attempt == known.attempt
        assert known.lease not in self.issued, "a lease id came twice"
        self.issued.add(known.lease)
        return known.lease

    @rule(lease=leases)
    def undo(self, lease: str) -> None:
        key = LeaseKey.decode(lease)
        assert key is not None
        self.core.undo(self.group, key)
        known = self.of_lease(lease)
        if known is not None and known.state == "leased":
            known.state, known.attempt = "ready", known.attempt - 1

    @rule(
        lease=leases,
        outcome=st.sampled_from(["ack", "nack", "extend"]),
        seconds=st.sampled_from([0.0, 3.0]) | st.none(),
    )
    def settle(self, lease: str, outcome: str, seconds: float | None) -> None:
        length = None if outcome != "extend" or not seconds else seconds
        line = Settle(outcome, lease, delay_s=seconds, lease_s=length)  # type: ignore[arg-type]
        known = self.of_lease(lease)
        expected = self.expected_status(known, lease, outcome)
        (result,), transaction = self.core.settle(self.topic, [line], self.now, WALL + self.now)
        assert result.status == expected
        if known is None or known.state == "settling" or expected != "ok":
            assert not transaction
            return
        if outcome == "extend":
            known.ends = self.now + (length or CONFIG.lease_s)
        else:
            known.state, known.outcome = "settling", outcome
            known.due = min(8.0, 2.0 * 2 ** (known.attempt - 1)) * 0.5 if seconds is None else seconds
        seqs = [seq for seq, k in self.messages.items() if k is known and outcome != "extend"]
        self.waiting.append((transaction, seqs))

    def expected_status(self, known: Known | None, lease: str, outcome: str) -> str:
        if known is None:
            remembered, when = self.ended.get(lease, ("", 0.0))
            return "ok" if remembered == outcome and self.now - when <= 120 else "stale"
        if known.state == "settling":
            return "ok" if known.outcome == outcome else "stale"
        return "ok" if known.ends > self.now else "stale"

    @rule(lease=consumes(leases), grace=st.sampled_from([0.0, 5.0]))
    def abandon(self, lease: str, grace: float) -> None:
        key = LeaseKey.decode(lease)
        assert key is not None
        self.core.shorten(self.group, key, grace, self.now)
        known = self.of_lease(lease)
        if known is not None and known.state == "leased":
            known.ends = min(known.ends, self.now + grace)

    @rule(seconds=st.sampled_from([0.0, 1.0, 4.0, 11.0, 200.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.tick()

    def tick(self) -> None:
        self.core.tick(self.now)
        for known in self.messages.values():
            due = {"leased": known.ends, "delayed": known.due}.get(known.state)
            if due is not None and due <= self.now:
                known.state = "ready"

    @rule(flushed=st.booleans())
    def restart(self, flushed: bool) -> None:
        """What no transaction had written is as it was; with ``flushed``, leases were written just before."""
        self.tick()
        if not flushed:
            # Leases that were never written end with the process; that any subset may have been is another test.
            for known in self.messages.values():
                if known.state == "leased":
                    self.core.undo(self.group, LeaseKey.decode(known.lease))  # type: ignore[arg-type]
                    known.state, known.attempt = "ready", known.attempt - 1
        history = self.core.write_history(self.now, WALL + self.now)
        if history is not None:
            self.store.commit([history.records()])
            history.commit(self.now)
        self.waiting.clear()
        for known in self.messages.values():
            if known.state == "pending":
                known.state = "gone"
            elif known.state == "settling":
                known.state = "leased" if known.ends > self.now else "ready"
        self.ended.clear()
        self.core = self.load()
        self.last_seq = self.topic.next_seq - 1

    @invariant()
    def counts_agree(self) -> None:
        states = [known.state for known in self.messages.values()]
        assert self.group.ready == states.count("ready")
        assert len(self.group.delays) == states.count("delayed")
        assert len(self.group.leases) == states.count("leased") + states.count("settling") == self.core.leased
        assert self.topic.held_messages == self.held() == self.topic.held_bytes

    @invariant()
    def next_deadline_is_never_late(self) -> None:
        dues = [
            k.ends if k.state == "leased" else k.due for k in self.messages.values() if k.state in ("leased", "delayed")
        ]
        deadline = self.core.next_deadline()
        assert not dues or (deadline is not None and deadline <= min(dues) + 1e-6)


CoreMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
test_core_against_model = CoreMachine.TestCase
