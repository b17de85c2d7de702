"""The queue in simulation: what it has taken it keeps, what isn't acked comes again, and a key is enqueued once."""

import asyncio
from bisect import insort
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import anyio

from tests.simulation.plane.network import Network

GRACE_S = 5.0


@dataclass(order=True)
class Message:
    """What was published."""

    seq: int
    key: str = field(compare=False)
    body: dict[str, Any] = field(compare=False)


class Topic:
    """Messages in the order of their publishing, and one stream of them at a time, or several."""

    def __init__(self) -> None:
        self.waiting: list[Message] = []
        self.streams: list[Stream] = []
        self.keys: set[str] = set()
        self.something = anyio.Event()
        self.dead: list[Message] = []
        self.handed: Callable[[dict[str, Any]], None] = lambda body: None

    def put(self, message: Message) -> None:
        """Make it deliverable, in its place."""
        insort(self.waiting, message)
        self.something.set()


class Delivery:
    """A message in a consumer's hands; acked at its end, unless that goes wrong or it is somebody else's by then."""

    def __init__(self, stream: "Stream", message: Message) -> None:
        self._stream = stream
        self.message = message
        self._settled = False

    @property
    def body(self) -> dict[str, Any]:
        return self.message.body

    async def dead(self, *, reason: str) -> None:
        self._settled = True
        if self._stream.end(self):
            self._stream.topic.dead.append(self.message)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._settled:
            return
        if error is None:
            self._stream.ack(self)
        elif isinstance(error, Exception):
            self._stream.give_back(self)


class Stream:
    """A consumer's leases."""

    def __init__(self, queue: "Queue", topic: Topic, prefetch: int, *, grace_s: float) -> None:
        self.name = ("", "")
        """Whose topic it is, and who the consumer is; those without a name are nobody's presence."""
        self._queue = queue
        self.topic = topic
        self._prefetch = prefetch
        self._grace_s = grace_s
        self.leased: set[Delivery] = set()

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        while True:
            while not self.starving:
                self.topic.something = anyio.Event() if self.topic.something.is_set() else self.topic.something
                await self.topic.something.wait()
            delivery = Delivery(self, self.topic.waiting.pop(0))
            self.leased.add(delivery)
            self._queue.counts["delivered"] += 1
            self.topic.handed(delivery.body)
            yield delivery

    @property
    def starving(self) -> bool:
        """Whether there is something for it that it isn't given."""
        return bool(self.topic.waiting) and len(self.leased) < self._prefetch

    def end(self, delivery: Delivery) -> bool:
        """End a lease; False where it has ended before."""
        if delivery not in self.leased:
            return False
        self.leased.discard(delivery)
        self.topic.something.set()
        return True

    def ack(self, delivery: Delivery) -> None:
        """Done with, unless the ack is lost: then it comes again when its lease ends, which may be now."""
        if self._queue.loses():
            self.give_back(delivery)
        else:
            self.end(delivery)

    def give_back(self, delivery: Delivery) -> None:
        """For whoever comes next."""
        if self.end(delivery):
            self._queue.counts["redelivered"] += 1
            self.topic.put(delivery.message)

    def in_order(self) -> list[Delivery]:
        """What is leased."""
        return sorted(self.leased, key=lambda delivery: delivery.message.seq)

    def give_all_back(self) -> None:
        """As when its connection breaks: the consumer goes on with what it has, and gets it again."""
        for delivery in self.in_order():
            self.give_back(delivery)

    async def close(self) -> None:
        """Its consumer is gone."""
        self.topic.streams.remove(self)
        self._queue.left(self)
        if self.leased and self._grace_s:
            self._queue.later.append((self._queue.now() + self._grace_s, self))
        else:
            self.give_all_back()


class Queue:
    """All topics."""

    def __init__(self, network: Network, now: Callable[[], float], random: Callable[[], float]) -> None:
        self._network = network
        self.now = now
        self._random = random
        self.topics: dict[str, Topic] = {}
        self.counts: Counter[str] = Counter()
        self.later: list[tuple[float, Stream]] = []
        """Streams whose leases end when their grace does."""
        self.present: set[tuple[str, str]] = set()
        """Whose topics are consumed, and by whom; until its grace is over who is gone is there."""
        self.watcher: Callable[[str, str, bool], None] | None = None
        """Is told who comes and goes."""
        self.starts: Counter[tuple[str, int]] = Counter()
        """Messages that start a task, by its id and by how many attempts had failed."""
        self._seq = 0

    def loses(self) -> bool:
        return bool(self._random() < self._network.loss)

    def topic(self, name: str) -> Topic:
        return self.topics.setdefault(name, Topic())

    async def publish(self, topic: str, body: dict[str, Any], key: str) -> None:
        """Raises ServerUnavailable, when it is there or not."""
        await self._network.carry()
        found = self.topic(topic)
        if key not in found.keys:
            found.keys.add(key)
            self._seq += 1
            self.counts["published"] += 1
            if body.get("action") == "new_task":
                self.starts[body["data"]["task_id"], body["data"].get("retries", 0)] += 1
            found.put(Message(self._seq, key, body))
        await self._network.carry()

    @asynccontextmanager
    async def consume(
        self, topic: str, *, prefetch: int, grace_s: float = GRACE_S, consumer: str = ""
    ) -> AsyncIterator[Stream]:
        found = self.topic(topic)
        stream = Stream(self, found, prefetch, grace_s=grace_s)
        found.streams.append(stream)
        if consumer:
            stream.name = (topic, consumer)
            self._see(stream.name, comes=True)
        try:
            yield stream
        finally:
            await stream.close()

    def left(self, stream: Stream) -> None:
        """A consumer has closed its stream; it is gone when its grace is over."""
        if stream.name[1]:
            asyncio.get_running_loop().call_later(GRACE_S, lambda: self._see(stream.name, comes=False))

    def _see(self, name: tuple[str, str], *, comes: bool) -> None:
        (self.present.add if comes else self.present.discard)(name)
        if self.watcher is not None:
            self.watcher(*name, comes)

    def pass_time(self) -> None:
        """Leases of those that are gone end."""
        now = self.now()
        for ends, stream in self.later:
            if ends <= now:
                stream.give_all_back()
        self.later = [(ends, stream) for ends, stream in self.later if ends > now]

    def break_streams(self) -> None:
        """As when the queue is killed: whatever is leased comes again, in order."""
        for topic in self.topics.values():
            for stream in topic.streams:
                stream.give_all_back()


class Broker:
    """The queue as the control plane and workers know it: what `wakeq_control.link.broker.Broker` can do."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.client = self

    def topic(self, service: str) -> str:
        return service

    async def make_topic(self, service: str, *, is_worker: bool = False) -> None:
        self._queue.topic(service)

    async def publish(self, service: str, body: dict[str, Any], key: str) -> None:
        await self._queue.publish(service, body, key)

    def consume(self, topic: str, *, prefetch: int, lease_s: float, grace_s: float = GRACE_S) -> Any:
        return self._queue.consume(topic, prefetch=prefetch, grace_s=grace_s)
