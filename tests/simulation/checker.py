"""Whether a history is one that the protocol allows. Hears every call, answer and commit, and asks nobody else;
`tests.simulation.quiet` compares it with the engine when nobody can run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.simulation import room
from tests.simulation.model import (
    OUT,
    UNSETTLED,
    Applied,
    Group,
    Key,
    Lease,
    Pending,
    Place,
    PublishCall,
    SettleCall,
    Topic,
    check,
    token,
)
from wakeq_server.core.model import (
    Delivery,
    GroupDropped,
    GroupPut,
    HistoryCleared,
    HistorySet,
    KeySeen,
    Message,
    MessageAdded,
    MessageRemoved,
    Moved,
    NewMessage,
    Published,
    Record,
    Settle,
    SettleResult,
    TopicDropped,
    TopicPut,
)
from wakeq_server.errors import IdempotencyConflict, QueueError, StorageError, TopicFull

RECENT_S = 120.0


@dataclass(slots=True, eq=False)
class Sweep:
    """A purge or a redrive under way."""

    topic: Topic
    pending: list[tuple[Place, Pending]] = field(default_factory=list)
    certain: int = 0


class Checker:
    """The history so far."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.ahead = 0.0
        """What the wall clock is ahead of the monotonic one, in this run of the server."""
        self.failures: Callable[[], int] = lambda: 0
        self.blurred: Callable[[int], bool] = lambda _: False
        """Whether somebody may have had leases in a topic and not been told, since bodies take time to read."""
        self.averaged = False
        """Whether the server may know sizes of messages by their average alone."""
        self.jumped = False
        """Whether the wall clock has ever been moved."""
        self.topics: dict[int, Topic] = {}
        self.lease_ids: dict[str, tuple[int, int, int]] = {}
        self.leases: dict[str, Lease] = {}
        self.tokens: dict[str, list[tuple[int, int, int]]] = {}
        self.calls_by_key: dict[tuple[str, str], list[PublishCall]] = {}
        self.calls_by_token: dict[str, PublishCall] = {}
        self.commits = 0
        self.heard = 0
        self.moved: set[tuple[int, str, int]] = set()
        """Dead letters that have gone to another topic."""
        self.dropped: set[tuple[int, int]] = set()
        """Groups whose end is stored, alone or with their topic, and may not have been told yet."""
        self.deleting: set[str] = set()
        """Names of topics that may be gone."""
        self.publishing: set[PublishCall] = set()
        """Publishes that may still come, in this run of the server."""
        self.counts = {"published": 0, "delivered": 0, "settled": 0, "full": 0, "restarts": 0, "quiet": 0}

    def topic(self, name: str) -> Topic | None:
        return next((topic for topic in reversed(self.topics.values()) if topic.name == name), None)

    def place(self, lease_id: str) -> tuple[Topic, Group, Place] | None:
        """Where the message of a lease stands, if it isn't gone for certain."""
        topic_id, group_id, seq = self.lease_ids.get(lease_id, (0, 0, 0))
        topic = self.topics.get(topic_id)
        group = topic.groups.get(group_id) if topic is not None else None
        place = group.places.get(seq) if group is not None else None
        return (topic, group, place) if topic is not None and group is not None and place is not None else None

    def spread(self, topic: Topic, place: Place) -> None:
        """Let it be in all states that it may have come to by now."""
        place.spread(self.now(), topic.config, blurred=self.blurred(topic.id))

    # Commits

    def committed(self, transactions: list[list[Record]]) -> None:
        """The store has taken these, in this order."""
        for records in transactions:
            self.commits += 1
            added = [record for record in records if isinstance(record, MessageAdded)]
            self._check_whole(added)
            for record in records:
                self._commit(record, added)
            if added and "dead-topic" in (added[0].message.headers or {}):
                self._bury(records, added)
            if added:
                room.check_taken(self, self.topics.get(added[0].topic_id))

    def _check_whole(self, added: list[MessageAdded]) -> None:
        if added:
            first = token(added[0].message.body)
            name, _, size = first.partition("/")
            moved = "dead-topic" in (added[0].message.headers or {})
            expected = 1 if moved else int(size)
            check(len(added) == expected, f"{len(added)} of the {expected} messages of publish {name} were stored")

    def _commit(self, record: Record, added: list[MessageAdded]) -> None:
        topic = self.topics.get(record.topic_id)
        if isinstance(record, TopicPut):
            if topic is None:
                self.topics[record.topic_id] = Topic(record.topic_id, record.name, record.config, record.paused)
        elif isinstance(record, TopicDropped):
            self.topics.pop(record.topic_id, None)
            self.dropped |= {(record.topic_id, group) for group in topic.groups} if topic is not None else set()
        elif topic is None:
            return
        elif isinstance(record, GroupPut):
            topic.groups.setdefault(record.group, Group(record.group, record.name, f"{topic.name}/{record.name}"))
        elif isinstance(record, GroupDropped):
            group = topic.groups.pop(record.group, None)
            topic.leaving |= set(group.places) if group is not None else set()
            self.dropped.add((topic.id, record.group))
        elif isinstance(record, MessageAdded):
            self._add(topic, record.message)
        elif isinstance(record, KeySeen):
            self._remember(topic, record, added)

    def _add(self, topic: Topic, message: Message) -> None:
        check(message.seq not in topic.messages, f"seq {message.seq} of topic {topic.name} was used twice")
        topic.messages[message.seq] = message
        self.counts["published"] += 1
        self.tokens.setdefault(token(message.body), []).append((topic.id, message.seq, self.commits))
        call = self.calls_by_token.get(token(message.body))
        if call is not None and call.topic == topic.name:
            self.publishing.discard(call)
        for group in topic.groups.values():
            place = Place(message, message.seq, {"ready"})
            if message.due_at is not None:
                place.states = {"delayed"}
                place.due_lo = place.due_hi = message.due_at - self.ahead
                place.due_span = message.due_at - message.published_at
            if message.expires_at is not None:
                place.expires = message.expires_at - self.ahead
            group.places[message.seq] = place

    def _bury(self, records: list[Record], added: list[MessageAdded]) -> None:
        """A dead letter has moved: it is added there, and done with here, in one transaction."""
        headers = added[0].message.headers or {}
        (done,) = [r for r in records if isinstance(r, MessageRemoved | HistoryCleared | HistorySet)]
        topic = self.topics.get(done.topic_id)
        for group in topic.groups.values() if topic is not None else ():
            place = group.places.get(done.seq)
            if topic is None or group.name != headers["dead-group"] or place is None:
                continue
            self.spread(topic, place)
            # Its time may be over meanwhile.
            check(place.possible & {"dead", "gone"}, f"message {done.seq} of {topic.name} was moved, but is not dead")
            place.pending.clear()
            place.note("gone", durable=True)
        moved = (done.topic_id, headers["dead-group"], done.seq)
        check(moved not in self.moved, f"message {done.seq} was moved twice")
        self.moved.add(moved)

    def _remember(self, topic: Topic, record: KeySeen, added: list[MessageAdded]) -> None:
        call = self.calls_by_token[token(added[0].message.body)]
        until = record.expires_at - self.ahead
        key = Key(call.messages, record.first_seq, record.count, until, record.expires_at)
        topic.keys.setdefault(call.key or "", []).append(key)

    # Publish

    def publish_called(
        self, topic: str, messages: list[NewMessage], key: str | None, *, held: bool = False
    ) -> PublishCall:
        self.heard += 1
        call = PublishCall(topic, messages, key, held, self.now(), self.commits, self.heard)
        for message in messages:
            self.calls_by_token[token(message.body)] = call
        if key is not None:
            known = self.topic(topic)
            call.known = known.keys.get(key, [None])[-1] if known is not None else None
            self.calls_by_key.setdefault((topic, key), []).append(call)
        call.taken = room.taken_at_most(self, topic)
        self.publishing.add(call)
        return call

    def publish_answered(self, call: PublishCall, published: Published) -> None:
        self.publishing.discard(call)
        check(published.count == len(call.messages), "a publish was answered with another count")
        if published.duplicate:
            topics = [topic for topic in self.topics.values() if topic.name == call.topic]
            keys = [key for topic in topics for key in topic.keys.get(call.key or "", ())]
            agrees = any(key.first == published.first_seq and key.content == call.messages for key in keys)
            check(
                agrees or call.topic in self.deleting,
                f"key {call.key} was answered as a duplicate of seq {published.first_seq}, which isn't stored under it",
            )
            return
        for seq, name in enumerate(call.tokens, published.first_seq):
            stored = any(found[1] == seq and found[2] > call.index for found in self.tokens.get(name, ()))
            check(stored, f"publish {name} was answered with seq {seq} before that was stored")
        twice = call.known is not None and call.known.until > self.now() and call.topic not in self.deleting
        check(not twice or self.jumped, f"idempotency key {call.key} enqueued twice")

    def publish_refused(self, call: PublishCall, error: QueueError) -> None:
        self.publishing.discard(call)
        self.heard += 1
        call.failed = self.heard
        if isinstance(error, StorageError) and call.key is None:
            stored = [name for name in call.tokens if self.tokens.get(name)]
            check(not stored, f"publish {stored} was refused, and is stored")
        elif isinstance(error, TopicFull):
            room.check_refusal(self, call)
        elif isinstance(error, IdempotencyConflict):
            others = [one for one in self.calls_by_key[call.topic, call.key or ""] if one is not call]
            alive = [one for one in others if one.failed is None or one.failed > call.born]
            differs = any(one.messages != call.messages for one in alive)
            check(differs, f"key {call.key} was refused as a conflict, but stands for nothing else")

    def nothing_on_its_way(self) -> None:
        """The disk has everything, and everybody was told."""
        self.publishing = {call for call in self.publishing if not call.left}

    # Deliveries

    def delivered(self, deliveries: Sequence[Delivery], *, owner: object, called: float, length: float | None) -> None:
        """A consumer was given these."""
        for delivery in deliveries:
            self._delivered(delivery, owner, called, length)

    def _delivered(self, delivery: Delivery, owner: object, called: float, length: float | None) -> None:
        key, message, now = delivery.lease, delivery.message, self.now()
        self.counts["delivered"] += 1
        lease_id, name = key.encode(), f"message {message.seq} ({token(message.body)})"
        check(lease_id not in self.leases, f"lease id {lease_id} recurs")
        topic = self.topics.get(key.incarnation)
        if topic is None or key.group not in topic.groups:
            check((key.incarnation, key.group) in self.dropped, f"{name} of a missing topic or group came")
            return
        group, config = topic.groups[key.group], topic.config
        self._check_content(topic, message)
        ends = delivery.lease_expires_at - self.ahead
        lease = Lease(lease_id, (key.epoch, key.number), delivery.attempt, ends, ends, length or config.lease_s, owner)
        self.leases[lease_id] = lease
        self.lease_ids[lease_id] = (topic.id, group.id, message.seq)
        claimed = ends - lease.length
        check(called <= claimed <= now, f"the lease of {name} began at {claimed}, not between {called} and {now}")
        place = group.places.get(message.seq)
        if ends <= now and self.blurred(topic.id):
            # Its body took so long to read that the lease has ended meanwhile.
            if place is not None and (place.lease is None or place.lease.order < lease.order):
                place.lease = lease
                place.leases.append(lease)
                place.states.add("leased")
            return
        check(place is not None, f"{name} came back to group {group.label}, where it was settled")
        assert place is not None
        self.spread(topic, place)
        self._check_deliverable(place, group, name)
        low, high = place.attempts_lo + 1, place.attempts_hi + 1
        check(low <= delivery.attempt <= high, f"attempt {delivery.attempt} of {name} must be {low} to {high}")
        limit = config.max_deliveries
        check(not limit or delivery.attempt <= limit, f"{name} was delivered {delivery.attempt} times")
        self._check_key(topic, group, place, name)
        self._hold(place, lease)

    def _hold(self, place: Place, lease: Lease) -> None:
        place.pending.clear()
        place.lease, place.unseen = lease, False
        place.leases = [one for one in place.leases if one.id != lease.id] + [lease]
        place.attempts_lo = place.attempts_hi = lease.attempt
        place.highest = max(place.highest, lease.attempt)
        place.note("leased")

    def _check_content(self, topic: Topic, message: Message) -> None:
        stored = topic.messages.get(message.seq)
        check(stored is not None, f"message {message.seq} of {topic.name} was delivered, but never stored")
        check(stored == message, f"message {message.seq} of {topic.name} was delivered as another: {message}")

    def _check_deliverable(self, place: Place, group: Group, name: str) -> None:
        purged = any(p.outcome == "purge" and p.sure and p.failures == self.failures() for p in place.pending)
        check(not purged, f"{name} was delivered in group {group.label} after it was purged")
        if place.unseen or "ready" in place.possible:
            return
        if place.possible == {"leased"}:
            lease = place.lease.id if place.lease is not None else "?"
            check(False, f"{name} was delivered in group {group.label} under two live leases, the other {lease}")
        what = " or ".join(sorted(place.possible))
        check(False, f"{name} was delivered in group {group.label}, where it is {what}, due at {place.due_lo}")

    def _check_key(self, topic: Topic, group: Group, place: Place, name: str) -> None:
        key = place.message.key
        if key is None:
            return
        for other in group.places.values():
            if other is place or other.message.key != key:
                continue
            self.spread(topic, other)
            out = other.possible <= OUT and not other.unseen
            check(not out, f"{name} came while message {other.seq} of its key {key} is out in group {group.label}")
            earlier = other.seq < place.seq and other.possible <= UNSETTLED and not other.redriven
            check(not earlier, f"{name} came before message {other.seq} of its key {key} in group {group.label}")

    def released(self, deliveries: Sequence[Delivery]) -> None:
        """A consumer gave these back; they never reached it."""
        for topic, _, place, lease in self._held(deliveries):
            self.spread(topic, place)
            if lease.ends_lo > self.now() and not place.pending and place.states == {"leased"}:
                place.attempts_lo = place.attempts_hi = lease.attempt - 1
                place.note("ready")
            else:
                place.attempts_lo = min(place.attempts_lo, lease.attempt - 1)
                settling = any(pending.sure for pending in place.pending)
                place.note("ready", *place.states - (set() if settling else {"leased"}))
            lease.outcome = lease.outcome or "released"

    def acknowledged(self, deliveries: Sequence[Delivery]) -> None:
        """A consumer has these, and doesn't wait for the ack."""
        for _, _, place, lease in self._held(deliveries):
            self._pend(place, lease, "ack", {"gone"})

    def closed(self, owner: object, grace_s: float) -> None:
        """A stream is gone."""
        end = self.now() + grace_s
        for topic in self.topics.values():
            for group in topic.groups.values():
                for place in group.places.values():
                    lease = place.lease
                    if lease is not None and lease.owner is owner:
                        lease.owner = None
                        if lease.ends_hi > end and "leased" in place.possible:
                            lease.stored_hi = max(lease.stored_hi, lease.ends_hi)
                            lease.ends_lo, lease.ends_hi = min(lease.ends_lo, end), end
                            lease.changes += 1
                            place.dirty = True

    def _held(self, deliveries: Sequence[Delivery]) -> Iterator[tuple[Topic, Group, Place, Lease]]:
        for delivery in deliveries:
            lease_id = delivery.lease.encode()
            found = self.place(lease_id)
            if found is not None and found[2].lease is not None and found[2].lease.id == lease_id:
                yield (*found, found[2].lease)

    def _pend(
        self,
        place: Place,
        lease: Lease,
        outcome: str,
        states: set[str],
        hidden: tuple[float, float] = (0.0, 0.0),
    ) -> Pending:
        sure = place.states == {"leased"} and not place.pending and lease.ends_lo > self.now()
        pending = Pending(outcome, frozenset(states), lease.id, self.now(), self.failures(), hidden, sure)
        place.pending.append(pending)
        lease.asked.add(outcome)
        place.due_span = max(place.due_span, hidden[1])
        return pending

    # Settle

    def settle_called(self, topic_name: str, lines: list[Settle]) -> SettleCall:
        call = SettleCall(topic_name, lines, self.now(), self.failures())
        for line in lines:
            found = self.place(line.lease_id)
            lease = found[2].lease if found is not None else None
            if found is None or lease is None or lease.id != line.lease_id or found[0].name != topic_name:
                continue
            topic, group, place = found
            self.leases[lease.id] = lease
            self.spread(topic, place)
            if "leased" not in place.possible:
                continue
            pending, alone = None, not place.pending
            sure = alone and place.states == {"leased"} and lease.ends_lo > self.now()
            if line.outcome == "extend":
                self._extend(topic, place, lease, line)
            else:
                pending = self._pend(place, lease, line.outcome, *self._outcome(topic, lease, line))
                if line.outcome == "release":
                    # It may be stored, and the message delivered again, before anybody hears of it.
                    place.attempts_lo = min(place.attempts_lo, lease.attempt - 1)
                    place.floor = min(place.floor, lease.attempt - 1)
            call.applied.append(Applied(line, topic, group, place, lease, pending, sure, alone, lease.changes))
        return call

    def _outcome(self, topic: Topic, lease: Lease, line: Settle) -> tuple[set[str], tuple[float, float]]:
        config = topic.config
        if line.outcome == "ack":
            return {"gone"}, (0.0, 0.0)
        if line.outcome == "release":
            return {"ready"}, (0.0, 0.0)
        if line.outcome == "dead" or (config.max_deliveries and lease.attempt >= config.max_deliveries):
            return {"dead"}, (0.0, 0.0)
        longest = min(config.retry_max_s, config.retry_min_s * 2.0 ** (lease.attempt - 1))
        hidden = (longest / 2, longest)
        if line.delay_s is not None:
            endless = not config.max_deliveries and lease.attempt >= 3
            hidden = (max(line.delay_s, hidden[0]), max(line.delay_s, hidden[1])) if endless else (line.delay_s,) * 2
        return ({"delayed"} if hidden[1] else {"ready"}), hidden

    def _extend(self, topic: Topic, place: Place, lease: Lease, line: Settle) -> None:
        if lease.ends_hi <= self.now():
            return
        length = topic.config.lease_s if line.lease_s is None else line.lease_s
        end = self.now() + length
        lease.stored_hi = max(lease.stored_hi, lease.ends_hi)
        lease.ends_lo, lease.ends_hi = min(lease.ends_lo, end), max(lease.ends_hi, end)
        lease.length = max(lease.length, length)
        lease.changes += 1
        place.dirty = True

    def settle_answered(self, call: SettleCall, results: Sequence[SettleResult]) -> None:
        check([r.lease_id for r in results] == [line.lease_id for line in call.lines], "a settle lost a line")
        used: set[str] = set()
        for line, result in zip(call.lines, results, strict=True):
            first = line.lease_id not in used
            used.add(line.lease_id)
            if result.status == "unknown":
                check(line.lease_id not in self.leases, f"lease {line.lease_id} was called unknown")
            elif result.status == "ok":
                self._settled(call, line)
            else:
                self._stale(call, line, first)

    def _settled(self, call: SettleCall, line: Settle) -> None:
        lease = self.leases.get(line.lease_id)
        check(lease is not None, f"lease {line.lease_id} was never given, and was settled")
        assert lease is not None
        applied = [one for one in call.applied if one.line is line]
        if not applied:
            place = self.place(line.lease_id)
            again = line.outcome == lease.outcome or (not lease.outcome and line.outcome in lease.asked)
            again = again or place is None or lease.id not in [one.id for one in place[2].leases]
            check(again, f"lease {lease.id} has ended ({lease.outcome}), and its {line.outcome} was answered ok")
            return
        self.counts["settled"] += 1
        (one,) = applied
        if one.pending is None:
            self._extended(call, one)
            return
        if lease.outcome == line.outcome:
            # Said once more, after that was answered.
            if one.pending in one.place.pending:
                one.place.pending.remove(one.pending)
            return
        lease.outcome = line.outcome
        if one.pending in one.place.pending and one.place.lease is lease:
            if line.outcome == "release" and not self.blurred(one.topic.id):
                one.place.attempts_lo = one.place.attempts_hi = lease.attempt - 1
            # A repeated line has the effect of the first, which may have said it otherwise.
            self._end(one.topic, one.group, one.place, [p for p in one.place.pending if p.outcome == line.outcome])

    def _extended(self, call: SettleCall, one: Applied) -> None:
        place, lease = one.place, one.lease
        if lease.changes == one.changes and place.lease is lease and "leased" in place.possible and not place.pending:
            length = one.topic.config.lease_s if one.line.lease_s is None else one.line.lease_s
            lease.move(call.called + length)
            place.attempts_lo = place.attempts_hi = lease.attempt
            place.note("leased", durable=True)

    def _end(self, topic: Topic, group: Group, place: Place, pending: list[Pending]) -> None:
        """A lease's end was answered."""
        place.pending = [one for one in place.pending if one.outcome in ("purge", "redrive")]
        now, states = self.now(), set().union(*(one.states for one in pending))
        place.due_lo = min(one.called + one.hidden[0] for one in pending)
        place.due_hi = now + max(one.hidden[1] for one in pending)
        if "dead" in states:
            first = min(one.called for one in pending)
            place.dead_lo, place.dead_hi = first + topic.config.dead_ttl_s, now + topic.config.dead_ttl_s
        place.note(*states, durable=True)
        place.dirty = place.strayed = self.blurred(topic.id)
        if states == {"gone"}:
            group.places.pop(place.seq, None)
            group.gone.add(place.seq)

    def _stale(self, call: SettleCall, line: Settle, first: bool) -> None:
        for one in call.applied:
            if one.line is line:
                if one.pending in one.place.pending:
                    one.place.pending.remove(one.pending)
                check(
                    not (first and one.sure), f"lease {line.lease_id} is live, and its {line.outcome} was called stale"
                )

    def settle_failed(self, call: SettleCall) -> None:
        """The store refused: nothing has changed."""
        if not all(one.alone for one in call.applied):
            # A line that repeats one which failed is tried anew, by itself.
            return
        for one in call.applied:
            if one.pending in one.place.pending:
                one.place.pending.remove(one.pending)
                one.place.dirty = True

    # Administration

    def purge_called(self, topic_name: str, group_name: str, *, calm: bool) -> Sweep | None:
        """``calm``: nobody else is about to do anything."""
        return self._sweep(topic_name, group_name, "purge", {"ready", "delayed"}, "gone", calm=calm)

    def redrive_called(self, topic_name: str, group_name: str, *, calm: bool) -> Sweep | None:
        return self._sweep(topic_name, group_name, "redrive", {"dead"}, "ready", calm=calm)

    def _sweep(
        self, topic_name: str, group_name: str, what: str, states: set[str], target: str, *, calm: bool
    ) -> Sweep | None:
        topic = self.topic(topic_name)
        group = next((g for g in topic.groups.values() if g.name == group_name), None) if topic is not None else None
        if topic is None or group is None:
            return None
        sweep = Sweep(topic)
        for place in group.places.values():
            self.spread(topic, place)
            if not place.possible & states:
                continue
            sure = calm and place.possible <= states and not place.pending and not self.blurred(topic.id)
            # What is past its time to live would be dropped, so it stays dead.
            sure = sure and (what == "purge" or place.expires > self.now())
            sweep.certain += sure
            pending = Pending(what, frozenset({target}), "", self.now(), self.failures(), sure=sure)
            place.pending.append(pending)
            sweep.pending.append((place, pending))
            if what == "redrive":
                place.attempts_lo, place.floor, place.redriven = 0, 0, True
        return sweep

    def purged(self, sweep: Sweep, count: int) -> None:
        check(sweep.certain <= count <= len(sweep.pending), f"a purge said {count}, of {sweep.certain}")
        self._swept(sweep)

    def redriven(self, sweep: Sweep, moved: Moved) -> None:
        check(sweep.certain <= moved.moved <= len(sweep.pending), f"a redrive said {moved}, of {sweep.certain}")
        self._swept(sweep)

    def _swept(self, sweep: Sweep) -> None:
        for place, pending in sweep.pending:
            if pending in place.pending and pending.sure and len(place.pending) == 1:
                self.spread(sweep.topic, place)
                place.pending.clear()
                if pending.outcome == "redrive":
                    place.attempts_lo = place.attempts_hi = 0
                    place.redriven = True
                # Its time as a dead letter may have ended meanwhile.
                over = pending.outcome == "redrive" and place.dead_lo <= self.now()
                place.note(*pending.states, *(["gone"] if over else []), durable=True)

    def sweep_failed(self, sweep: Sweep) -> None:
        for place, pending in sweep.pending:
            if pending in place.pending:
                place.pending.remove(pending)
                place.states |= {"ready"} if "delayed" in place.states else set()
