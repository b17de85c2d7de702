"""Who gets which message: claims of what is ready, parked consumers, and dealing to them.

A message that becomes ready while anybody is parked is dealt at that moment, so a claim that finds one ready
overtakes nobody.
"""

from collections.abc import Callable, Sequence

import anyio

from wakeq_server.core.leases import Lease
from wakeq_server.core.model import Consumer, Delivery, LeaseKey
from wakeq_server.core.queue import QueueCore
from wakeq_server.core.topic import Group, Topic
from wakeq_server.core.transactions import Transaction
from wakeq_server.engine.base import Attend
from wakeq_server.engine.bodies import Bodies
from wakeq_server.engine.clocks import Clocks
from wakeq_server.engine.parking import Parked, Parking
from wakeq_server.engine.presence import Presence, Presences
from wakeq_server.engine.stats import Stats
from wakeq_server.errors import ConsumerGone, Draining, GroupNotFound, QueueError, StorageFailed, TopicNotFound, fresh

DAMAGED = "damaged in the store"
"""Why a message is dead whose body can't be read as it was written."""


class Dealer:
    """The lines of parked consumers, and what is handed out past and to them."""

    def __init__(
        self,
        core: QueueCore,
        stats: Stats,
        clocks: Clocks,
        bodies: Bodies,
        act: Callable[[], None],
        submit: Callable[[Transaction], None],
    ) -> None:
        """``act`` deals with the core's effects; it is called after every change made here.

        ``submit`` has a transaction written that nobody waits for.
        """
        self.draining = False
        self.woken = 0
        """How many consumers have been woken with a message."""
        self._core = core
        self._stats = stats
        self._clocks = clocks
        self._bodies = bodies
        self._act = act
        self._submit = submit
        self._parkings: dict[Group, Parking] = {}
        self._full: dict[Parked, None] = {}
        """Parked, and not in line: their prefetch leaves them no room."""
        self._ahead: dict[Group, Parking] = {}
        """Those who are dealt to before the others, up to all they have room for."""

    def _parkings_of(self, subscription: "EmbeddedSubscription") -> dict[Group, Parking]:
        return self._ahead if subscription.ahead else self._parkings

    def now(self) -> float:
        """The engine's clock."""
        return self._clocks.now()

    # Taking

    def claim(self, subscription: "EmbeddedSubscription", limit: int) -> list[Lease]:
        """Lease what is READY, up to ``limit``."""
        group = subscription.group
        if not group.ready:
            return []
        now = self._clocks.now()
        leases = self._lease(subscription, self._core.take(group, now, min(limit, group.ready)), now)
        self._act()
        return leases

    def _lease(self, subscription: "EmbeddedSubscription", seqs: Sequence[int], now: float) -> list[Lease]:
        # Only a consumer whose leases are counted hears of their ends.
        owner = None if subscription.prefetch is None else subscription
        leases = self._core.lease(subscription.group, seqs, subscription.lease_s, now, owner)
        if owner is not None:
            subscription.in_flight.update(dict.fromkeys(leases))
        return leases

    async def deliver(self, group: Group, leases: Sequence[Lease]) -> list[Delivery]:
        """What a consumer is given for its leases; those are undone where that can't be had."""
        seqs = [lease.key.seq for lease in leases]
        messages = dict(zip(seqs, map(group.topic.messages.get, seqs), strict=True))
        away = [seq for seq, message in messages.items() if message is None or message.body is None]
        if away:
            try:
                messages |= await self._bodies.read(group.topic.id, away, group.topic.size_of(away[0]))
                # Reading takes its time: a lease may have ended meanwhile, and its message gone.
                leases = [lease for lease in leases if group.lease_of(lease.key.seq) is lease]
                if not all(messages[lease.key.seq] for lease in leases):
                    raise StorageFailed("a message that was stored can't be read")
            except BaseException:
                self._undo(group, [lease.key for lease in leases])
                raise
        ahead_s = self._clocks.wall() - self._clocks.now()
        whole = [
            Delivery(message, lease.key, lease.attempt, lease.deadline + ahead_s)
            for lease in leases
            if (message := messages[lease.key.seq]) is not None and message.body is not None
        ]
        self._stats.delivered += len(whole)
        if len(whole) < len(leases):
            intact = {delivery.lease for delivery in whole}
            self._bury_damaged(group, [lease.key for lease in leases if lease.key not in intact])
        return whole

    def _bury_damaged(self, group: Group, keys: Sequence[LeaseKey]) -> None:
        """Their bodies are not what was published; to try them for ever would stop the rest."""
        self._submit(self._core.condemn(group, keys, DAMAGED, self._clocks.wall()))
        self._act()

    async def park(
        self, subscription: "EmbeddedSubscription", limit: int, wait_s: float, attend: Attend | None, *, again: bool
    ) -> list[Lease]:
        """Wait for messages, in line; in front, where one has had its turn and it came to nothing."""
        parked = Parked(subscription, limit, self._clocks.now() + wait_s, again=again)
        subscription.parked = parked
        if parked.room > 0:
            parking = self._parkings_of(subscription).setdefault(subscription.group, Parking())
            if again:
                parking.rejoin(parked)
            else:
                parking.join(parked)
        else:
            self._full[parked] = None
        hung_up = False
        try:
            with parked.scope:
                await (anyio.sleep_forever() if attend is None else attend())
                hung_up = True
        except BaseException:
            self._leave(parked, undo=True)
            raise
        self._leave(parked, undo=hung_up)
        if hung_up:
            raise ConsumerGone
        if parked.error is not None:
            raise fresh(parked.error)
        if not parked.handed:
            return []
        self._stats.wake_s.observe(self._clocks.timer() - parked.handed_at)
        return parked.handed

    def _leave(self, parked: Parked, *, undo: bool) -> None:
        subscription = parked.subscription
        subscription.parked = None
        self._full.pop(parked, None)
        parkings = self._parkings_of(subscription)
        parking = parkings.get(subscription.group)
        if parking is not None:
            parking.leave(parked)
            if not parking:
                del parkings[subscription.group]
        if undo:
            self._undo(subscription.group, [lease.key for lease in parked.handed])

    # Giving back

    def release(self, group: Group, deliveries: Sequence[Delivery]) -> None:
        """Undo leases whose messages never reached their consumer."""
        self._undo(group, [delivery.lease for delivery in deliveries])

    def _undo(self, group: Group, keys: Sequence[LeaseKey]) -> None:
        self._stats.undone += len(keys)
        for key in keys:
            self._core.undo(group, key)
        self._act()

    def abandon(self, subscription: "EmbeddedSubscription", grace_s: float) -> None:
        """A consumer with leases is gone: nobody is told of their ends any more, and they end soon."""
        now = self._clocks.now()
        for lease in subscription.in_flight:
            lease.owner = None
            self._core.shorten(subscription.group, lease.key, grace_s, now)
        subscription.in_flight.clear()
        self._act()

    # Dealing

    def deal(self, group: Group) -> None:
        """k messages wake at most k consumers, longest parked first; they get one each in turn, until out."""
        if self.draining:
            return
        for parkings in (self._ahead, self._parkings):
            if parking := parkings.get(group):
                self._deal_to(parking, group)

    def _deal_to(self, parking: Parking, group: Group) -> None:
        now = self._clocks.now()
        # Others that are READY may be behind their key, or the topic paused: who gets nothing stays in line.
        seqs = self._core.take(group, now, min(group.ready, len(parking)))
        lucky = parking.first(len(seqs))
        hands = [[seq] for seq in seqs]
        if group.ready:
            rooms = [parked.room for parked in lucky]
            _deal_on(self._core.take(group, now, min(group.ready, sum(rooms) - len(rooms))), hands, rooms)
        for parked, hand in zip(lucky, hands, strict=True):
            parked.handed += self._lease(parked.subscription, hand, now)
            parked.handed_at = self._clocks.timer()
            parked.wake()
        self.woken += len(lucky)

    def made_room(self, subscription: "EmbeddedSubscription") -> None:
        """A parked consumer may take more than it could: it stands in line again."""
        parked = subscription.parked
        if parked is not None and not parked.handed and parked.room > 0:
            self._full.pop(parked, None)
            self._parkings_of(subscription).setdefault(subscription.group, Parking()).join(parked)
            self._core.effects.deliverable[subscription.group] = None

    # Everybody

    def parked(self) -> int:
        """How many stand in line."""
        return sum(len(parking) for parkings in (self._ahead, self._parkings) for parking in parkings.values())

    def parked_in(self, group: Group) -> int:
        """How many of them wait for this group's messages."""
        return len(self._ahead.get(group, ())) + len(self._parkings.get(group, ()))

    def tell_gone(self, topic: Topic) -> None:
        """A topic was deleted: wake everybody who is parked there."""
        for group in topic.groups.values():
            self._tell_all(group, TopicNotFound(topic.name))
        self._bodies.forget(topic.id)

    def tell_group_gone(self, group: Group) -> None:
        """A group was deleted: wake everybody who is parked there."""
        self._tell_all(group, GroupNotFound(group.topic.name, group.name))

    def _tell_all(self, group: Group, error: QueueError) -> None:
        for parkings in (self._ahead, self._parkings):
            parking = parkings.pop(group, None)
            for parked in parking.everyone() if parking else ():
                parked.error = error
                parked.wake()

    def drain(self) -> None:
        """Hand out nothing more: wake everybody, with nothing."""
        self.draining = True
        for parking in [*self._ahead.values(), *self._parkings.values()]:
            for parked in parking.everyone():
                parked.wake()
        for parked in self._full:
            parked.wake()


def _deal_on(seqs: Sequence[int], hands: Sequence[list[int]], rooms: Sequence[int]) -> None:
    """One each in turn, until out of them or of room."""
    left = iter(seqs)
    turn = list(zip(hands, rooms, strict=True))
    while turn := [(hand, room) for hand, room in turn if len(hand) < room]:
        for hand, _ in turn:
            seq = next(left, None)
            if seq is None:
                return
            hand.append(seq)


class EmbeddedSubscription:
    """See `Subscription`."""

    __slots__ = (
        "_acknowledge",
        "_consumer",
        "_presence",
        "_presences",
        "_stream",
        "ahead",
        "dealer",
        "group",
        "in_flight",
        "lease_s",
        "parked",
        "prefetch",
    )

    def __init__(
        self,
        dealer: Dealer,
        group: Group,
        acknowledge: Callable[[Group, Sequence[Delivery]], None],
        presences: Presences,
        *,
        lease_s: float | None,
        prefetch: int | None,
        consumer: Consumer | None,
        stream: bool,
        ahead: bool,
    ) -> None:
        self.dealer = dealer
        self.group = group
        self.lease_s = lease_s
        self.prefetch = prefetch
        self.ahead = ahead
        self.in_flight: dict[Lease, None] = {}
        self.parked: Parked | None = None
        self._acknowledge = acknowledge
        self._presences = presences
        self._presence: Presence | None = None
        self._consumer = consumer
        self._stream = stream

    def room(self, limit: int) -> int:
        """How many of ``limit`` more messages the prefetch leaves."""
        return limit if self.prefetch is None else min(limit, self.prefetch - len(self.in_flight))

    def lease_ended(self, lease: Lease) -> None:
        """One of the counted leases has ended."""
        self.in_flight.pop(lease, None)
        self.dealer.made_room(self)

    async def take(self, limit: int, wait_s: float, attend: Attend | None = None) -> list[Delivery]:
        """See `Subscription`."""
        until = self.dealer.now() + wait_s
        again = False
        while True:
            leases = await self._lease(limit, wait_s, attend, again=again)
            deliveries = await self.dealer.deliver(self.group, leases) if leases else []
            if deliveries or not leases:
                return deliveries
            # All of them were damaged, or came too late: no reason to tell a consumer that there is nothing.
            wait_s, again = max(0.0, until - self.dealer.now()), True

    async def _lease(self, limit: int, wait_s: float, attend: Attend | None, *, again: bool) -> list[Lease]:
        if self.group.topic.gone:
            raise TopicNotFound(self.group.topic.name)
        if self.group.gone:
            raise GroupNotFound(self.group.topic.name, self.group.name)
        if self.dealer.draining:
            raise Draining
        leases = self.dealer.claim(self, self.room(limit))
        waits = not leases and wait_s > 0
        self._show(waits)
        if waits:
            try:
                leases = await self.dealer.park(self, limit, wait_s, attend, again=again)
            finally:
                self._unpark()
        return leases

    def _show(self, waits: bool) -> None:
        """A stream is there from its first take on, a poll while it is parked."""
        if self._consumer is None:
            return
        if self._stream:
            if self._presence is None:
                self._presence = self._presences.open_stream(self, self._consumer)
        elif waits:
            self._presence = self._presences.park(self.group, self._consumer)
        else:
            self._presences.asked(self.group, self._consumer)

    def _unpark(self) -> None:
        if self._presence is not None and not self._stream:
            self._presences.unpark(self._presence)
            self._presence = None

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """See `Subscription`."""
        self.dealer.release(self.group, deliveries)

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """See `Subscription`."""
        self._acknowledge(self.group, deliveries)

    def close(self, grace_s: float) -> None:
        """See `Subscription`."""
        if self._presence is not None:
            self._presences.close_stream(self._presence, self, grace_s)
            self._presence = None
        if self.in_flight and not self.dealer.draining:
            self.dealer.abandon(self, grace_s)
