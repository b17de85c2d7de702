"""What clients asked and were answered, over all of a server's lives; and what must be true of it."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Place = tuple[str, int]
"""A message in a group."""
EXTENDED_S = 3.0
"""How long a lease lasts that was extended."""
SLACK_S = 0.2
"""For clocks that are set a little while a server is down."""


@dataclass(slots=True)
class Publish:
    """Messages that were to be enqueued, all or none, under one idempotency key."""

    key: str
    bodies: list[str]
    ordering_key: str | None
    seqs: list[int] | None = None
    """None until it was answered."""


@dataclass(slots=True)
class Settle:
    """One line of a settle."""

    outcome: str
    asked: int
    asked_at: float
    answered: int | None = None
    status: str | None = None
    """None: the server died first, so it may have happened or not."""

    @property
    def may_stand(self) -> bool:
        """Whether it has happened, or may have."""
        return self.status in (None, "ok")


@dataclass(slots=True)
class Delivery:
    """A message under a lease."""

    place: Place
    lease: str
    body: str
    began: int
    """When the claim was sent: what was answered before is known to it."""
    ended: int
    ended_at: float
    settles: list[Settle] = field(default_factory=list)


class History:
    """Written by many threads."""

    def __init__(self, groups: Iterable[str]) -> None:
        self.groups = tuple(groups)
        self.publishes: list[Publish] = []
        self.deliveries: list[Delivery] = []
        self.problems: list[str] = []
        """What clients have seen that can't be."""
        self.counts: Counter[str] = Counter()
        self._moment = 0
        self._changed = threading.Condition()

    def moment(self, what: str) -> int:
        """A point in the order of everything that is known."""
        with self._changed:
            self._moment += 1
            self.counts[what] += 1
            self._changed.notify_all()
            return self._moment

    def wait(self, moments: int, timeout_s: float) -> bool:
        """Wait until so much more has happened."""
        with self._changed:
            until = self._moment + moments
            return self._changed.wait_for(lambda: self._moment >= until, timeout_s)

    def note_published(self, publish: Publish, seqs: list[int], *, duplicate: bool | None) -> None:
        """A publish was answered; ``duplicate`` where the answer says."""
        self.moment("published" if publish.seqs is None else "repeated")
        if publish.seqs not in (None, seqs):
            self.problems.append(f"publish {publish.key} was answered {publish.seqs}, and then {seqs}")
        if duplicate is False and publish.seqs is not None:
            self.problems.append(f"publish {publish.key} was enqueued again")
        publish.seqs = seqs

    def note_delivered(self, group: str, found: list[dict[str, Any]], began: int) -> list[Delivery]:
        """A claim was answered."""
        ended, ended_at = self.moment("claimed"), time.time()
        self.counts["delivered"] += len(found)
        deliveries = [
            Delivery((group, one["seq"]), one["lease_id"], one["body"], began, ended, ended_at) for one in found
        ]
        self.deliveries += deliveries
        return deliveries

    # What must be true

    def violations(self) -> list[str]:
        """Empty: every promise was kept. To be asked when everything that was left has been drained."""
        return [*self.problems, *self._leases(), *self._bodies(), *self._lost(), *self._back(), *self._order()]

    def _leases(self) -> Iterator[str]:
        for lease, times in Counter(delivery.lease for delivery in self.deliveries).items():
            if times > 1:
                yield f"lease id {lease} was given {times} times"

    def _bodies(self) -> Iterator[str]:
        asked = {body for publish in self.publishes for body in publish.bodies}
        seqs: defaultdict[str, set[int]] = defaultdict(set)
        for publish in self.publishes:
            for body, seq in zip(publish.bodies, publish.seqs or (), strict=False):
                seqs[body].add(seq)
        for delivery in self.deliveries:
            seqs[delivery.body].add(delivery.place[1])
            if delivery.body not in asked:
                yield f"{delivery.body!r} was delivered, and never published"
        for body, found in seqs.items():
            if len(found) > 1:
                yield f"{body!r} is there as {sorted(found)}"
        for seq, times in Counter(seq for found in seqs.values() for seq in found).items():
            if times > 1:
                yield f"seq {seq} is that of {times} messages"

    def _lost(self) -> Iterator[str]:
        done = {
            delivery.place
            for delivery in self.deliveries
            if any(settle.outcome == "ack" and settle.may_stand for settle in delivery.settles)
        }
        for publish in self.publishes:
            for seq in publish.seqs or ():
                for group in self.groups:
                    if (group, seq) not in done:
                        yield f"message {seq}, whose publish was answered, never came to an end in {group}"

    def _back(self) -> Iterator[str]:
        """What was acked may not come again; nor what is held by a lease whose extension was answered."""
        for deliveries in self._by_place().values():
            for delivery in deliveries:
                for settle in delivery.settles:
                    if settle.status == "ok":
                        yield from _comes_again(delivery, settle, deliveries)

    def _order(self) -> Iterator[str]:
        """In a key, a message is delivered only when all in front of it have been acked."""
        by_place = self._by_place()
        for group in self.groups:
            for seqs in self._seqs_by_key().values():
                for earlier, later in pairwise(seqs):
                    before = by_place.get((group, earlier), [])
                    for delivery in by_place.get((group, later), []):
                        if not _was_over(before, delivery):
                            yield f"{delivery.place} was delivered while {earlier} of its key was not done with"

    def _by_place(self) -> dict[Place, list[Delivery]]:
        found: defaultdict[Place, list[Delivery]] = defaultdict(list)
        for delivery in self.deliveries:
            found[delivery.place].append(delivery)
        return found

    def _seqs_by_key(self) -> dict[str, list[int]]:
        seq_of = {delivery.body: delivery.place[1] for delivery in self.deliveries}
        found: defaultdict[str, list[int]] = defaultdict(list)
        for publish in self.publishes:
            if publish.ordering_key is not None:
                seqs = publish.seqs or [seq_of[body] for body in publish.bodies if body in seq_of]
                found[publish.ordering_key] += seqs
        return {key: sorted(seqs) for key, seqs in found.items()}


def _comes_again(delivery: Delivery, settle: Settle, deliveries: list[Delivery]) -> Iterator[str]:
    assert settle.answered is not None
    for other in deliveries:
        if other is delivery or other.began < settle.answered:
            continue
        if settle.outcome == "ack":
            yield f"{delivery.place} was acked as {delivery.lease}, and came again as {other.lease}"
        elif settle.outcome == "extend" and other.ended_at < settle.asked_at + EXTENDED_S - SLACK_S:
            ended = any(one.outcome != "extend" and one.may_stand for one in delivery.settles)
            if not ended:
                yield f"{delivery.place} came again as {other.lease}, while {delivery.lease} was to last"


def _was_over(before: list[Delivery], delivery: Delivery) -> bool:
    """Whether an ack that may stand was asked, since what came before was last seen to be out."""
    seen = max((one.began for one in before if one.ended < delivery.began), default=0)
    return any(
        settle.outcome == "ack" and settle.may_stand and seen < settle.asked < delivery.ended
        for one in before
        for settle in one.settles
    )
