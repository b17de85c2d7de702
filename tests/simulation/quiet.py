"""What must hold when nobody can run: the engine stands where the checker says, and nobody waits for what is there."""

from collections.abc import Iterable
from typing import NamedTuple

from tests.simulation.checker import Checker
from tests.simulation.model import INF, UNSETTLED, Group, Lease, Place, PublishCall, Room, Topic, check
from wakeq_server.core import topic as core
from wakeq_server.core.lifecycle import State
from wakeq_server.core.queue import MESSAGE_COST
from wakeq_server.engine.embedded import EmbeddedEngine

_NAMES = {
    State.READY: "ready",
    State.DELAYED: "delayed",
    State.LEASED: "leased",
    State.SETTLING: "leased",
    State.DEAD: "dead",
    State.GONE: "gone",
}


class Consumer(NamedTuple):
    """Somebody inside `take`."""

    group: core.Group
    parked: bool
    """Not, while its messages' bodies are read."""
    stream: object
    prefetch: int | None
    ends: float


class Moment(NamedTuple):
    """What is known of a quiet moment."""

    now: float
    full: bool
    """Whether nothing waits for the disk, so that everything decided has happened or failed."""
    ticking: bool
    """Not, once the engine is closed: what is due stays as it is."""
    reading: frozenset[core.Group]
    """Groups in which somebody has leases it hasn't been told of."""


def compare(
    checker: Checker, engine: EmbeddedEngine, consumers: list[Consumer], *, full: bool, ticking: bool = True
) -> None:
    """Compare everything, and take over what can't be known from outside."""
    checker.counts["quiet"] += 1
    reading = frozenset(consumer.group for consumer in consumers if not consumer.parked)
    moment = Moment(checker.now(), full, ticking, reading)
    known = {queue.id: queue for queue in engine.core.topics.values()}
    if full:
        checker.nothing_on_its_way()
    checker.dropped.clear()
    for topic in list(checker.topics.values()):
        topic.leaving.clear()
        check(topic.id in known, f"topic {topic.name} is not there any more")
        _compare_topic(checker, topic, known[topic.id], moment)
    _check_counters(checker, engine, full=full)
    _check_memory(engine)
    for consumer in consumers:
        _check_consumer(checker, engine, consumer, moment)
    if full and not (engine.core.changed or engine.core.loose or engine.core.moved):
        _all_is_stored(checker)


def _compare_topic(checker: Checker, topic: Topic, queue: core.Topic, moment: Moment) -> None:
    if not topic.pausing:
        check(topic.paused == queue.paused, f"topic {topic.name} is paused, or not, against what was answered")
    check(set(topic.groups) == set(queue.group_by_id), f"groups of {topic.name}: {sorted(queue.group_by_id)}")
    for group in topic.groups.values():
        found = queue.group_by_id[group.id]
        for place in list(group.places.values()):
            place.spread(moment.now, topic.config, blurred=checker.blurred(topic.id))
            was_ready = "ready" in place.possible or place.unseen
            if moment.ticking:
                place.tighten(moment.now, topic.config)
            _check_unseen(group, place, found, moment, was_ready=was_ready)
            _compare_place(checker, topic, group, place, found, moment)
        for seq in queue.seqs():
            if seq not in group.places:
                standing = _NAMES[found.standing(seq)]
                check(standing == "gone", f"message {seq} is {standing} in group {group.label}, and must not be there")


def _check_unseen(group: Group, place: Place, found: core.Group, moment: Moment, *, was_ready: bool) -> None:
    """Whoever has a lease was told, or waits for the bodies."""
    lease = found.lease_of(place.seq)
    if lease is not None and (place.lease is None or place.lease.id != lease.key.encode()):
        check(was_ready, f"message {place.seq} was leased again in group {group.label}")
        check(found in moment.reading, f"message {place.seq} is leased in group {group.label}, and nobody was told")
        _lease_unseen(place, lease)


def _compare_place(
    checker: Checker, topic: Topic, group: Group, place: Place, found: core.Group, moment: Moment
) -> None:
    standing, seq = _NAMES[found.standing(place.seq)], place.seq
    may_be = " or ".join(sorted(place.possible))
    check(
        standing in place.possible,
        f"message {seq} ({place.message.body!r}) is {standing} in group {group.label}, not {may_be}",
    )
    if place.pending and not moment.full:
        return
    _resolve(checker, topic, place, standing, moment)
    place.unseen = place.unseen and standing == "leased"
    _compare_numbers(place, found, standing, moment)
    if standing == "gone" and not place.dirty:
        del group.places[seq]
        group.gone.add(seq)


def _lease_unseen(place: Place, lease: object) -> None:
    from wakeq_server.core.leases import Lease as CoreLease

    assert isinstance(lease, CoreLease)
    low, high = place.attempts_lo, place.attempts_hi
    check(low < lease.attempt <= high + 1, f"message {place.seq} is on attempt {lease.attempt}, after {low} to {high}")
    end = lease.deadline
    order = lease.key.epoch, lease.key.number
    place.lease = Lease(lease.key.encode(), order, lease.attempt, end, end, end - lease.claimed_at)
    place.leases.append(place.lease)
    place.attempts_lo, place.attempts_hi = lease.attempt - 1, lease.attempt
    place.highest = max(place.highest, lease.attempt)
    place.pending.clear()
    place.note("leased")
    place.unseen = True


def _resolve(checker: Checker, topic: Topic, place: Place, standing: str, moment: Moment) -> None:
    """What was called and never answered has happened, or not."""
    pending, place.pending = place.pending, []
    for place_in_line, one in enumerate(pending):
        # Given back, it may have been leased again, by somebody who was never told, and have died of that.
        moved_on = "ready" in one.states and place.strayed
        must = one.sure and one.failures == checker.failures() and not moved_on
        follows = any(standing in later.states for later in pending[place_in_line:])
        check(
            not must or follows,
            f"the {one.outcome} of message {place.seq} was taken, the store never failed, and it is {standing}",
        )
    done = [one for one in pending if standing in one.states]
    if done:
        lease = checker.leases.get(done[0].lease)
        if lease is not None:
            lease.outcome = lease.outcome or done[0].outcome
        if "delayed" in done[0].states:
            place.due_lo = done[0].called + done[0].hidden[0]
            place.due_hi = moment.now + done[0].hidden[1]
        if standing == "dead":
            span = topic.config.dead_ttl_s
            place.dead_lo, place.dead_hi = min(place.dead_lo, done[0].called + span), moment.now + span
        if done[0].outcome == "redrive":
            place.redriven = True
            place.attempts_lo = 0
    if place.states != {standing}:
        place.note(standing)


def _compare_numbers(place: Place, found: core.Group, standing: str, moment: Moment) -> None:
    lease = found.lease_of(place.seq)
    if lease is None:
        if standing in ("ready", "delayed"):
            count = found.attempts.get(place.seq, 0)
            low, high = place.attempts_lo, place.attempts_hi
            check(
                low <= count <= high,
                f"message {place.seq} of {found.name} counts {count} attempts, not {low} to {high}",
            )
            place.attempts_lo = place.attempts_hi = count
        return
    known = place.lease
    assert known is not None
    if known.ends_hi <= moment.now and lease.deadline <= moment.now:
        return
    check(
        known.ends_lo <= lease.deadline <= known.ends_hi,
        f"the lease of message {place.seq} of {found.name} ends at {lease.deadline}, "
        f"not within {known.ends_lo} to {known.ends_hi}",
    )
    if not place.unseen:
        place.attempts_lo = place.attempts_hi = known.attempt
    if moment.full:
        known.ends_lo = known.ends_hi = lease.deadline


def _check_counters(checker: Checker, engine: EmbeddedEngine, *, full: bool) -> None:
    leased = 0
    memory = 0
    for queue in engine.core.topics.values():
        for group in queue.groups.values():
            count = sum(group.lease_of(seq) is not None for seq in group.open)
            check(
                group.leased == count, f"group {queue.name}/{group.name} counts {group.leased} leases, and has {count}"
            )
            ready = sum(group.standing(seq) is State.READY for seq in queue.seqs())
            check(
                group.ready == ready,
                f"group {queue.name}/{group.name} counts {group.ready} ready messages, and has {ready}",
            )
            leased += count
        for message in queue.messages.values():
            memory += MESSAGE_COST + (message.size if message.body is not None else 0)
        topic = checker.topics.get(queue.id)
        if full and topic is not None:
            _check_room(topic, queue)
    check(engine.core.leased == leased, f"the core counts {engine.core.leased} leases, and has {leased}")
    check(engine.core.memory_used == memory, f"the core counts {engine.core.memory_used} bytes, and holds {memory}")


def _check_room(topic: Topic, queue: core.Topic) -> None:
    sizes = [topic.messages[seq].size for seq in topic.unsettled() if topic.held(seq, certainly=True)]
    check(
        queue.held_messages == len(sizes),
        f"topic {queue.name} counts {queue.held_messages} messages, not {len(sizes)}",
    )
    # Of what is in the store alone the average is known.
    exact = not queue.cold_held
    check(not exact or queue.held_bytes == sum(sizes), f"topic {queue.name} counts {queue.held_bytes} bytes")


def _check_memory(engine: EmbeddedEngine) -> None:
    queues = engine.core.topics.values()
    whole = [one for queue in queues for one in queue.messages.values() if one.body is not None]
    used, budget = sum(MESSAGE_COST + message.size for message in whole), engine.core.memory_budget
    check(used <= budget, f"bodies take {used} bytes of a memory budget of {budget}")
    kept = sum(message.size for message in engine._bodies._kept.values())
    check(kept <= budget // 4, f"what was read ahead takes {kept} bytes of a memory budget of {budget}")


def _check_consumer(checker: Checker, engine: EmbeddedEngine, consumer: Consumer, moment: Moment) -> None:
    if not consumer.parked:
        return
    name = f"a consumer of {consumer.group.topic.name}/{consumer.group.name}"
    check(not engine.draining, f"{name} is parked while the server drains")
    check(consumer.ends > moment.now, f"{name} is parked beyond its wait")
    topic = checker.topics.get(consumer.group.topic.id)
    group = topic.groups.get(consumer.group.id) if topic is not None else None
    check(not consumer.group.topic.gone and not consumer.group.gone, f"{name} is parked, and that is gone")
    if topic is None or group is None:
        # Not stored yet.
        return
    if consumer.group.topic.paused or not _has_room(group, consumer):
        return
    missed = group.claimable()
    check(not missed, f"{name} is parked with room, while messages {missed} are ready: a wake was missed")


def _has_room(group: Group, consumer: Consumer) -> bool:
    if consumer.prefetch is None:
        return True
    owned = [p for p in group.places.values() if p.lease is not None and p.lease.owner is consumer.stream]
    surely = sum(place.possible == {"leased"} for place in owned)
    check(surely <= consumer.prefetch, f"a stream has {surely} messages, and a prefetch of {consumer.prefetch}")
    return sum("leased" in place.possible for place in owned) < consumer.prefetch


def check_held(engine: EmbeddedEngine, held: list[PublishCall]) -> None:
    """With nothing on its way to the disk, whoever still publishes waits for room."""
    for name in {call.topic for call in held}:
        queue = engine.core.topics.get(name)
        if queue is None or queue.dropping:
            continue
        taken, config = Room(queue.held_messages, queue.held_bytes), queue.config
        waits = any(not taken.with_(call.messages).fits(config) for call in held if call.topic == name)
        check(waits, f"publishers of {name} are held, and there is room beside {taken}")


def _all_is_stored(checker: Checker) -> None:
    """The store knows everything: a crash would change nothing."""
    for topic in checker.topics.values():
        for group in topic.groups.values():
            for place in list(group.places.values()):
                place.was, place.dirty, place.strayed = frozenset(), False, False
                place.floor, place.highest = place.attempts_lo, place.attempts_hi
                place.leases = [place.lease] if place.lease is not None and "leased" in place.states else []
                if place.possible == {"gone"}:
                    del group.places[place.seq]
                    group.gone.add(place.seq)


def restarted(checker: Checker, engine: EmbeddedEngine) -> None:
    """A server has started on what the store had."""
    checker.counts["restarts"] += 1
    checker.publishing.clear()
    for topic in checker.topics.values():
        topic.pausing = 0
        topic.leaving.clear()
        for key in (key for keys in topic.keys.values() for key in keys):
            left_s = key.until_wall - checker.ahead - checker.now()
            key.until = checker.now() + min(max(0.0, left_s), topic.config.dedup_window_s)
    known = {queue.id: queue for queue in engine.core.topics.values()}
    check(set(known) == set(checker.topics), f"topics {sorted(known)} came back, not {sorted(checker.topics)}")
    for topic in checker.topics.values():
        queue = known[topic.id]
        topic.paused = queue.paused
        check(set(topic.groups) == set(queue.group_by_id), f"groups of {topic.name}: {sorted(queue.group_by_id)}")
        for group in topic.groups.values():
            for place in list(group.places.values()):
                _restore(checker, topic, group, place, queue.group_by_id[group.id])


def _restore(checker: Checker, topic: Topic, group: Group, place: Place, found: core.Group) -> None:
    now, message = checker.now(), place.message
    if place.expires <= now and place.states & {"ready", "delayed"}:
        # By the wall clock as it was before.
        place.states.add("gone")
    if message.expires_at is not None:
        left_s = message.expires_at - checker.ahead - now
        place.expires = now + min(max(0.0, left_s), message.expires_at - message.published_at)
    for lease in place.leases:
        lease.owner = None
        if place.dirty:
            lease.ends_lo, lease.ends_hi = min(lease.ends_lo, now), max(lease.ends_hi, lease.stored_hi)
    if checker.jumped:
        _blur(place, topic, now)
    _allow(place, topic, now)
    place.unseen = False
    place.pending.clear()
    _take_lease(place, found)
    place.spread(now, topic.config)
    if place.dirty or checker.jumped:
        place.dead_lo, place.dead_hi = 0.0, INF
        if "dead" in place.states:
            place.states.add("gone")
    place.tighten(now, topic.config)
    _compare_place(checker, topic, group, place, found, Moment(now, True, True, frozenset()))


def _blur(place: Place, topic: Topic, now: float) -> None:
    """The wall clock isn't what it was, so what is left of a deadline is anything up to its whole length."""
    place.due_lo, place.due_hi = now, max(place.due_hi, now + place.due_span)
    place.dead_lo, place.dead_hi = now, now + topic.config.dead_ttl_s
    for lease in place.leases:
        lease.ends_lo, lease.ends_hi = now, now + lease.length
    if "leased" in place.states:
        place.dirty = True


def _allow(place: Place, topic: Topic, now: float) -> None:
    """What a restart may have made of it."""
    states = set(place.possible)
    for pending in place.pending:
        place.dirty = True
        if "delayed" in pending.states:
            place.due_lo = min(place.due_lo, pending.called + pending.hidden[0])
            place.due_hi = max(place.due_hi, now + pending.hidden[1])
    if place.dirty:
        states |= place.was | {"ready"}
        if place.leases or place.strayed:
            states.add("leased")
        place.attempts_lo = min(place.floor, place.attempts_lo)
        place.attempts_hi = max(place.highest, place.attempts_hi)
    if place.due_span and states & UNSETTLED:
        # The wall clock may say that it isn't due any more.
        states.add("delayed")
    last = bool(topic.config.max_deliveries) and place.attempts_hi >= topic.config.max_deliveries
    if "leased" in states and last:
        states.add("dead")
    place.states = states


def _take_lease(place: Place, found: core.Group) -> None:
    """Which of the leases it may have is the one that was stored."""
    stored = found.lease_of(place.seq)
    if stored is None:
        place.lease = place.lease if place.lease in place.leases else None
        return
    lease_id, end = stored.key.encode(), stored.deadline
    matching = [lease for lease in place.leases if lease.id == lease_id]
    if place.strayed and not matching:
        matching = [Lease(lease_id, (stored.key.epoch, stored.key.number), stored.attempt, end, end, end)]
    check(matching, f"message {place.seq} came back under a lease that nobody had: {lease_id}")
    place.lease = matching[0]
    place.attempts_lo = place.attempts_hi = place.lease.attempt


def nothing_left(checker: Checker, engine: EmbeddedEngine) -> None:
    """Everything has been settled: so it is counted as nothing."""
    core_ = engine.core
    check(core_.leased == 0, f"{core_.leased} leases are left")
    check(core_.memory_used == 0, f"{core_.memory_used} bytes are in use for nothing")
    for queue in core_.topics.values():
        held = (queue.held_messages, queue.held_bytes)
        check(held == (0, 0), f"topic {queue.name} counts {held[0]} messages of {held[1]} bytes, and has none")
        check(not list(queue.seqs()), f"topic {queue.name} keeps messages that nobody wants")
    left = [place.seq for topic in checker.topics.values() for place in places(topic.groups.values())]
    check(not left, f"messages {left} were never settled")


def places(groups: Iterable[Group]) -> Iterable[Place]:
    for group in groups:
        yield from group.places.values()
