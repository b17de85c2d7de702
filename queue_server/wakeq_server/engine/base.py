"""What HTTP calls. Small, so that a distributed engine can stand behind it as well as the embedded one.

Nothing here says in which process a message lives: a claim may be a pull request to another server, and
`Subscription.release` a message to it.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Protocol

from wakeq_server.core.model import (
    DEFAULT_GROUP,
    Consumer,
    ConsumerInfo,
    Delivery,
    GroupInfo,
    Moved,
    NewMessage,
    Overview,
    Peeked,
    PresenceEvent,
    Published,
    Push,
    PushConfig,
    PushStanding,
    Settle,
    SettleResult,
    TopicConfig,
    TopicInfo,
)
from wakeq_server.engine.stats import Stats
from wakeq_server.errors import QueueError

Attend = Callable[[], Awaitable[None]]
"""Runs while a consumer is parked and is cancelled when it wakes. When it returns by itself, the consumer is gone."""


class Subscription(Protocol):
    """One consumer's claim on a group of a topic."""

    async def take(self, limit: int, wait_s: float, attend: Attend | None = None) -> list[Delivery]:
        """Lease up to ``limit`` messages, as soon as there is one; none after ``wait_s``, or when drained.

        Longest parked first; a message wakes one consumer. Whoever is cancelled in here has taken nothing.
        Raises ConsumerGone when ``attend`` returned, TopicNotFound when the topic was deleted meanwhile,
        Draining when the server hands out no more.
        """

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """These never reached the consumer: back to their places, no attempt counted."""

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Ack, durable with the next commit; nobody waits for it."""

    def close(self, grace_s: float) -> None:
        """The stream is closed: its leases end within ``grace_s``, unless somebody extends them.

        For so long its consumer counts as present, too. A draining server leaves leases as they are.
        """


class Watch(Protocol):
    """What happens to topics and their consumers, from the moment on when it was made. To be closed."""

    def snapshot(self) -> Iterator[PresenceEvent]:
        """Who was present at that moment, each as if it were just coming."""

    async def take(self, limit: int, attend: Attend) -> list[PresenceEvent]:
        """Up to ``limit`` events, as soon as there is one.

        Raises ConsumerGone when ``attend`` returned, Draining, and BacklogOverflow when too many have not been taken.
        """

    def close(self) -> None:
        """Nobody watches any more."""


class PushDeliverer(Protocol):
    """Whoever posts what is to be pushed. It is called between two awaits, and may call `push_changed` meanwhile."""

    def push_put(self, push: Push) -> None:
        """There is this push, from now on, in place of that of the same name if there was one."""

    def push_ended(self, push: Push) -> None:
        """It is gone, or its topic or group is. What is being posted may be finished."""

    def push_standing(self, push: Push) -> PushStanding:
        """How its delivery goes."""


class Engine(Protocol):
    """Topics, and what is done with them.

    Every method that names a topic raises TopicNotFound; every one that writes, StorageFull or StorageFailed,
    and then has changed nothing.
    """

    name: str
    capabilities: frozenset[str]

    @property
    def stats(self) -> Stats:
        """What has been counted."""

    async def topic_config(self, topic: str) -> TopicConfig:
        """How the topic is configured."""

    async def create_topic(self, topic: str, config: TopicConfig) -> bool:
        """Make a topic unless there is one; says whether it was made.

        Raises TooManyTopics, never TopicNotFound.
        """

    async def put_topic(self, topic: str, config: TopicConfig) -> bool:
        """Make a topic, or replace its configuration; says whether it was made.

        Raises TooManyTopics, never TopicNotFound.
        """

    async def delete_topic(self, topic: str) -> None:
        """Drop a topic with all its messages; whoever is parked there is told."""

    async def describe_topic(self, topic: str) -> TopicInfo:
        """How the topic stands."""

    async def list_topics(self, after: str, limit: int) -> list[TopicInfo]:
        """Topics by name, from behind ``after``."""

    async def overview(self, limit: int) -> Overview:
        """All topics together, and up to ``limit`` of the busiest by themselves, the busiest first."""

    async def pause_topic(self, topic: str, paused: bool) -> None:
        """Stop delivery, or start it again; publishes and settles go on."""

    async def put_group(self, topic: str, group: str) -> bool:
        """Make a group that gets every message from now on, unless there is one; says whether it was made."""

    async def describe_group(self, topic: str, group: str) -> GroupInfo:
        """How the group stands. Raises GroupNotFound."""

    async def delete_group(self, topic: str, group: str) -> None:
        """Drop a group; whoever is parked there is told. Raises GroupNotFound."""

    async def put_push(self, topic: str, name: str, config: PushConfig) -> bool:
        """Push a group's messages, in place of the push of that name; says whether there was none.

        Raises GroupNotFound.
        """

    async def describe_push(self, topic: str, name: str) -> tuple[Push, PushStanding]:
        """The push of that name, and how its delivery goes. Raises PushNotFound."""

    async def describe_pushes(self, topic: str) -> list[tuple[Push, PushStanding]]:
        """All pushes of a topic, by name."""

    async def delete_push(self, topic: str, name: str) -> None:
        """End a push; what is being posted may be finished. Raises PushNotFound."""

    async def end_push(self, push: Push) -> bool:
        """End this push, unless it has ended or been replaced; says whether it did. Never raises TopicNotFound."""

    def deliver_pushes(self, deliverer: PushDeliverer) -> None:
        """Tell of all pushes there are, at once, and from then on of each that comes or goes."""

    async def purge(self, topic: str, group: str) -> int:
        """Drop what is READY or DELAYED in a group, and say how many. Raises GroupNotFound."""

    async def redrive(self, topic: str, group: str, limit: int | None) -> Moved:
        """Make dead letters READY again, as if never delivered, the oldest first. Raises GroupNotFound."""

    async def peek(self, topic: str, group: str, state: str, after: int, limit: int) -> list[Peeked]:
        """Messages of a group in ``ready``, ``delayed``, ``leased`` or ``dead``, by seq; takes none.

        Raises GroupNotFound.
        """

    async def publish_each(self, topic: str, messages: Sequence[NewMessage]) -> list[Published | QueueError]:
        """Take each message by itself, with its own ``id`` as idempotency key; what each was given, or refused with."""

    async def publish(
        self, topic: str, messages: Sequence[NewMessage], *, key: str | None = None, hold_s: float = 0.0
    ) -> Published:
        """Take all messages or none; returns when they are durable and consumers have been woken.

        ``key`` is the idempotency key of the whole. One seen before is answered as the first time, when that is
        durable. Raises IdempotencyConflict, TopicFull. Where there is no room, waits up to ``hold_s`` for some. A
        caller that is cancelled cancels its own waiting, not the publish.
        """

    async def subscribe(
        self,
        topic: str,
        *,
        group: str = DEFAULT_GROUP,
        lease_s: float | None = None,
        prefetch: int | None = None,
        consumer: Consumer | None = None,
        stream: bool = False,
        ahead: bool = False,
    ) -> Subscription:
        """A consumer. ``lease_s`` None: the topic's. ``prefetch`` bounds its unsettled messages.

        ``consumer`` is present while it is parked, or, with ``stream``, from the first `take` to `close`; and for a
        grace. ``ahead``: while parked it is dealt all it has room for before others are dealt anything.

        Raises GroupNotFound.
        """

    async def settle(self, topic: str, lines: Sequence[Settle]) -> list[SettleResult]:
        """End or extend leases; returns when what was decided is durable. A cancelled caller cancels only its wait."""

    async def consumers(self, topic: str, group: str | None) -> list[ConsumerInfo]:
        """Who is present in a group, or, with None, in any; longest first. Raises GroupNotFound."""

    async def watch(self, topics: frozenset[str] | None) -> Watch:
        """Watch these topics, which need not be there yet, or, with None, all. Raises Draining, never TopicNotFound."""

    def push_changed(self, topic: str, group: str, name: str, url: str, *, up: bool) -> None:
        """Tell whoever watches that a push works, or has failed; ``url`` is without credentials."""

    def parked(self) -> int:
        """How many consumers are parked."""

    def drain(self) -> None:
        """Hand out nothing more: parked consumers wake with nothing, watches end. Publishes and settles go on."""

    @property
    def draining(self) -> bool:
        """Whether it has been told to."""

    async def leases_ended(self) -> None:
        """Return when no message is leased any more."""
