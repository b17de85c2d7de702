"""The clients: each does one thing with the engine, as a request handler would, tells the checker what it asked and
what it was answered, and may be cancelled wherever it waits."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import anyio
import anyio.lowlevel

from tests.simulation.checker import Checker
from tests.simulation.model import INF, PublishCall, check
from wakeq_server.core.model import DEFAULT_GROUP, Delivery, NewMessage, Published, Settle, TopicConfig
from wakeq_server.engine.dealing import EmbeddedSubscription
from wakeq_server.engine.embedded import EmbeddedEngine
from wakeq_server.errors import ConsumerGone, Draining, GroupNotFound, QueueError, StorageError, TopicNotFound

NOT_THERE = (TopicNotFound, GroupNotFound)


@dataclass(eq=False)
class Client:
    """One request under way."""

    number: int
    kind: str
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    line_is_cut: anyio.Event = field(default_factory=anyio.Event)
    subscription: EmbeddedSubscription | None = None
    publishing: PublishCall | None = None
    taking: bool = False
    turn: int = 0
    """Who began to take before has the first turn."""
    ends: float = INF
    dead: bool = False
    """Its server has crashed: what it does from now on nobody sees."""
    hung_up: bool = False


@dataclass
class Held:
    """A delivery in some client's hands."""

    topic: str
    delivery: Delivery


class Clients:
    """What clients do, on one server."""

    def __init__(
        self,
        engine: EmbeddedEngine,
        checker: Checker,
        log: Callable[[str], None],
        held: list[Held],
        everyone: Mapping[int, Client],
    ) -> None:
        self.engine = engine
        self.checker = checker
        self.log = log
        self.held = held
        self._everyone = everyone
        self._turns = count(1)

    # Publishing

    async def publish(
        self, client: Client, topic: str, messages: list[NewMessage], key: str | None, hold_s: float
    ) -> None:
        call = self.checker.publish_called(topic, messages, key, held=hold_s > 0)
        client.publishing = call
        try:
            published = await self.engine.publish(topic, messages, key=key, hold_s=hold_s)
        except QueueError as error:
            self._refused(client, error)
            if not client.dead:
                self.checker.publish_refused(call, error)
        except BaseException:
            call.left = True
            raise
        else:
            if not client.dead:
                self.log(f"{client.kind} {client.number}: {published.first_seq}, duplicate: {published.duplicate}")
                self.checker.publish_answered(call, published)

    async def publish_each(self, client: Client, topic: str, messages: list[NewMessage]) -> None:
        calls = [self.checker.publish_called(topic, [message], message.id) for message in messages]
        try:
            results = await self.engine.publish_each(topic, messages)
        except QueueError as error:
            self._refused(client, error)
            return
        finally:
            for call in calls:
                call.left = True
        if client.dead:
            return
        for call, result in zip(calls, results, strict=True):
            if isinstance(result, Published):
                self.log(f"{client.kind} {client.number}: {result.first_seq}, duplicate: {result.duplicate}")
                self.checker.publish_answered(call, result)
            else:
                self._refused(client, result)
                self.checker.publish_refused(call, result)

    def _refused(self, client: Client, error: QueueError) -> None:
        if not client.dead:
            self.log(f"{client.kind} {client.number}: {error.code}")

    # Receiving

    async def _subscribe(
        self, client: Client, topic: str, group: str, lease_s: float | None, prefetch: int | None
    ) -> EmbeddedSubscription | None:
        try:
            client.subscription = await self.engine.subscribe(topic, group=group, lease_s=lease_s, prefetch=prefetch)
        except NOT_THERE as error:
            self._refused(client, error)
        return client.subscription

    async def _take(
        self, client: Client, limit: int, wait_s: float, *, expected: Sequence[int] | None = None
    ) -> list[Delivery]:
        """Raises ConsumerGone, Draining, and what else `take` does."""
        subscription = client.subscription
        assert subscription is not None
        called = self.checker.now()
        client.taking, client.turn, client.ends = True, next(self._turns), called + wait_s
        try:
            deliveries = await subscription.take(limit, wait_s, client.line_is_cut.wait)
        finally:
            client.taking = False
        if client.dead:
            return []
        seqs = [delivery.message.seq for delivery in deliveries]
        self.log(f"{client.kind} {client.number}: got {', '.join(map(str, deliveries and self._names(deliveries)))}")
        owner = client if subscription.prefetch is not None else None
        self.checker.delivered(deliveries, owner=owner, called=called, length=subscription.lease_s)
        check(len(seqs) <= limit, f"{len(seqs)} messages were given to one who had asked for {limit}")
        if seqs:
            self._check_turn(client, subscription)
        woken_for_nothing = not seqs and self.checker.now() < client.ends and not self.engine.draining
        check(not woken_for_nothing, f"{client.kind} {client.number} was woken for nothing")
        if expected is not None and self.checker.now() < called + subscription.group.topic.config.lease_s:
            # Later some may have ended while they were read.
            check(seqs == list(expected)[:limit], f"a claim got {seqs}, with {list(expected)} ready")
        return deliveries

    def _check_turn(self, client: Client, subscription: EmbeddedSubscription) -> None:
        """The longest parked goes first. Streams may have had no room. Those whose turn came to nothing stand in front
        again, in the order that they know it in."""
        group = subscription.group
        if self.checker.blurred(group.topic.id):
            return
        for other in self._everyone.values():
            its = other.subscription
            parked = its.parked if its is not None else None
            waits = other.taking and parked is not None and not parked.handed and not parked.again
            leaves = other.hung_up or other.scope.cancel_called or other.ends <= self.checker.now()
            if waits and not leaves and its is not None and its.group is group and its.prefetch is None:
                check(
                    other.turn > client.turn, f"{client.kind} {client.number} came before {other.kind} {other.number}"
                )

    def _names(self, deliveries: Sequence[Delivery]) -> list[str]:
        return [f"{one.message.seq} as {one.lease.encode()}, attempt {one.attempt}" for one in deliveries]

    async def claim(
        self,
        client: Client,
        topic: str,
        group: str,
        *,
        limit: int = 1,
        wait_s: float = 0.0,
        lease_s: float | None = None,
        turns: int = 0,
        expected: Sequence[int] | None = None,
    ) -> None:
        if await self._subscribe(client, topic, group, lease_s, None) is None:
            return
        try:
            deliveries = await self._take(client, limit, wait_s, expected=expected)
        except (ConsumerGone, QueueError) as error:
            self._ended(client, error)
            return
        if await self._written(client, deliveries, turns):
            self.held += [Held(topic, delivery) for delivery in deliveries]

    async def get(self, client: Client, topic: str, *, wait_s: float, turns: int, arrives: bool) -> None:
        """As llama_deploy's clients: no settle, the server acks what it has written, if it arrived."""
        if await self._subscribe(client, topic, DEFAULT_GROUP, None, None) is None:
            return
        try:
            deliveries = await self._take(client, 1, wait_s)
        except (ConsumerGone, QueueError) as error:
            self._ended(client, error)
            return
        if await self._written(client, deliveries, turns, arrives=arrives) and deliveries:
            self.log(f"{client.kind} {client.number}: acked {deliveries[0].message.seq}")
            self.checker.acknowledged(deliveries)
            self._of(client).acknowledge(deliveries)

    async def stream(
        self, client: Client, topic: str, group: str, *, prefetch: int, lease_s: float, grace_s: float, turns: int
    ) -> None:
        if await self._subscribe(client, topic, group, lease_s, prefetch) is None:
            return
        try:
            while True:
                deliveries = await self._take(client, prefetch, INF)
                if not deliveries or not await self._written(client, deliveries, turns):
                    return
                self.held += [Held(topic, delivery) for delivery in deliveries]
        except (ConsumerGone, QueueError) as error:
            self._ended(client, error)
        finally:
            if not client.dead:
                self.log(f"{client.kind} {client.number}: closed, {grace_s} s of grace")
                # A server that drains leaves leases as they are.
                self.checker.closed(client, INF if self.engine.draining else grace_s)
            self._of(client).close(grace_s)

    def _of(self, client: Client) -> EmbeddedSubscription:
        assert client.subscription is not None
        return client.subscription

    async def _written(
        self, client: Client, deliveries: Sequence[Delivery], turns: int, *, arrives: bool = True
    ) -> bool:
        """Write an answer, which takes a while; what doesn't arrive is undone."""
        done = False
        try:
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            done = arrives
        finally:
            if not done and deliveries:
                if not client.dead:
                    self.log(f"{client.kind} {client.number}: released {[one.message.seq for one in deliveries]}")
                    self.checker.released(deliveries)
                self._of(client).release(deliveries)
        return done

    def _ended(self, client: Client, error: Exception) -> None:
        if client.dead:
            return
        self.log(f"{client.kind} {client.number}: {type(error).__name__}")
        if isinstance(error, ConsumerGone):
            check(client.hung_up, f"{client.kind} {client.number} was taken for gone")
        elif isinstance(error, Draining):
            check(self.engine.draining, "Draining, but the engine doesn't drain")
        elif not isinstance(error, StorageError):
            topic = self.checker.topic(self._of(client).group.topic.name)
            known = topic is not None and self._of(client).group.id in topic.groups
            gone = self._of(client).group.gone or self._of(client).group.topic.gone
            check(gone or not known, f"{client.kind} {client.number} was told of the end of what is still there")

    # Settling

    async def settle(self, client: Client, topic: str, lines: list[Settle]) -> None:
        call = self.checker.settle_called(topic, lines)
        try:
            results = await self.engine.settle(topic, lines)
        except StorageError as error:
            self._refused(client, error)
            if not client.dead:
                self.checker.settle_failed(call)
        except TopicNotFound as error:
            self._refused(client, error)
            if not client.dead:
                self.checker.settle_failed(call)
        else:
            if not client.dead:
                self.log(f"{client.kind} {client.number}: {', '.join(result.status for result in results)}")
                self.checker.settle_answered(call, results)

    # Administration

    async def admin(
        self, client: Client, name: str, call: Callable[[], Coroutine[Any, Any, object]]
    ) -> object | QueueError:
        """What an administrator asks for; the answer, or the refusal."""
        try:
            answer = await call()
        except QueueError as error:
            self._refused(client, error)
            return error
        if not client.dead:
            self.log(f"{client.kind} {client.number}: {name}: {answer}")
        return answer

    async def purge(self, client: Client, topic: str, group: str, *, calm: bool) -> None:
        sweep = self.checker.purge_called(topic, group, calm=calm)
        with suppress(*NOT_THERE):
            try:
                count = await self.engine.purge(topic, group)
            except StorageError:
                if sweep is not None and not client.dead:
                    self.checker.sweep_failed(sweep)
                return
            if not client.dead:
                self.log(f"{client.kind} {client.number}: {count}")
                if sweep is not None:
                    self.checker.purged(sweep, count)

    async def redrive(self, client: Client, topic: str, group: str, limit: int | None, *, calm: bool) -> None:
        moves = any(config.dead_letter_topic for config in self._configs(topic))
        sweep = self.checker.redrive_called(topic, group, calm=calm and limit is None and not moves)
        with suppress(*NOT_THERE):
            try:
                moved = await self.engine.redrive(topic, group, limit)
            except StorageError:
                if sweep is not None and not client.dead:
                    self.checker.sweep_failed(sweep)
                return
            if not client.dead:
                self.log(f"{client.kind} {client.number}: {moved}")
                if sweep is not None:
                    self.checker.redriven(sweep, moved)

    def _configs(self, topic: str) -> list[TopicConfig]:
        known = self.checker.topic(topic)
        return [] if known is None else [known.config]

    async def pause(self, client: Client, topic: str, paused: bool) -> None:
        known = self.checker.topic(topic)
        if known is not None:
            known.pausing += 1
        answer = await self.admin(client, "pause", lambda: self.engine.pause_topic(topic, paused))
        if known is not None and not client.dead and not isinstance(answer, QueueError):
            known.paused = paused

    async def put_topic(self, client: Client, topic: str, config: TopicConfig) -> None:
        await self.admin(client, "made", lambda: self.engine.create_topic(topic, config))

    async def delete_topic(self, client: Client, topic: str) -> None:
        self.checker.deleting.add(topic)
        await self.admin(client, "deleted", lambda: self.engine.delete_topic(topic))

    async def put_group(self, client: Client, topic: str, group: str) -> None:
        await self.admin(client, "made", lambda: self.engine.put_group(topic, group))

    async def delete_group(self, client: Client, topic: str, group: str) -> None:
        await self.admin(client, "deleted", lambda: self.engine.delete_group(topic, group))

    async def look(self, client: Client, topic: str, group: str, state: str) -> None:
        await self.admin(client, "peeked", lambda: self._seqs(topic, group, state))

    async def _seqs(self, topic: str, group: str, state: str) -> list[int]:
        await self.engine.describe_topic(topic)
        return [peeked.message.seq for peeked in await self.engine.peek(topic, group, state, 0, 20)]
