"""What is done to topics and groups, rather than with messages one by one."""

from collections.abc import Sequence
from heapq import nsmallest
from typing import Protocol

from wakeq_server.core.model import ConsumerInfo, GroupInfo, Message, Moved, Overview, Peeked, TopicConfig, TopicInfo
from wakeq_server.core.peeking import peek
from wakeq_server.core.queue import QueueCore
from wakeq_server.core.survey import Survey
from wakeq_server.core.topic import Group, Topic
from wakeq_server.core.transactions import Transaction
from wakeq_server.engine.bodies import Bodies
from wakeq_server.engine.clocks import Clocks
from wakeq_server.engine.commits import GroupCommit
from wakeq_server.engine.dealing import DAMAGED, Dealer
from wakeq_server.engine.presence import Presences
from wakeq_server.errors import GroupNotFound, TopicNotFound

_AT_A_TIME = 500
"""Topics looked at before others may run."""


class Durably(Protocol):
    """Waits for a transaction to be durable, and raises what became of it."""

    async def __call__(self, transaction: Transaction) -> None:
        """Wait."""


class Administration:
    """The part of the embedded engine that `Engine` lists under topics and groups."""

    core: QueueCore
    _clocks: Clocks
    _commits: GroupCommit
    _dealer: Dealer
    _bodies: Bodies
    _presences: Presences
    _durably: Durably

    async def topic_config(self, topic: str) -> TopicConfig:
        """See `Engine`."""
        return self.core.topic(topic).config

    async def create_topic(self, topic: str, config: TopicConfig) -> bool:
        """See `Engine`."""
        if await self._existing(topic) is not None:
            return False
        await self._durably(self.core.create(topic, config, self._clocks.wall()))
        return True

    async def put_topic(self, topic: str, config: TopicConfig) -> bool:
        """See `Engine`."""
        existing = await self._existing(topic)
        if existing is None:
            await self._durably(self.core.create(topic, config, self._clocks.wall()))
        else:
            await self._durably(self.core.configure(existing, config))
        return existing is None

    async def delete_topic(self, topic: str) -> None:
        """See `Engine`."""
        await self._durably(self.core.drop(self.core.topic(topic)))

    async def pause_topic(self, topic: str, paused: bool) -> None:
        """See `Engine`."""
        while (queue := self.core.topic(topic)).changing is not None:
            await self._commits.written()
        await self._durably(self.core.pause(queue, paused))

    async def describe_topic(self, topic: str) -> TopicInfo:
        """See `Engine`."""
        return self._describe(self.core.topic(topic))

    async def list_topics(self, after: str, limit: int) -> list[TopicInfo]:
        """See `Engine`."""
        found = (name for name, topic in self.core.topics.items() if name > after and not topic.dropping)
        return [self._describe(self.core.topics[name]) for name in nsmallest(limit, found)]

    async def overview(self, limit: int) -> Overview:
        """See `Engine`."""
        survey = Survey(limit, self._clocks.now())
        # The newest first: they are mostly the busiest, and a place among those is cheap to find from above.
        topics = list(reversed(self.core.topics.values()))
        for start in range(0, len(topics), _AT_A_TIME):
            survey.look(topics[start : start + _AT_A_TIME])
            # Whoever looks can wait; messages can't.
            await self._clocks.turn()
        busiest = tuple(self._describe(topic) for topic in survey.busiest if not topic.gone)
        return survey.overview()._replace(busiest=busiest)

    def _describe(self, topic: Topic) -> TopicInfo:
        info = topic.describe(self._clocks.now(), self._clocks.wall())
        groups = tuple(self._with_parked(topic.groups[group.name], group) for group in info.groups)
        return info._replace(groups=groups)

    def _with_parked(self, group: Group, info: GroupInfo) -> GroupInfo:
        return info._replace(parked=self._dealer.parked_in(group))

    async def _existing(self, name: str) -> Topic | None:
        """The topic of that name.

        One that is being dropped is waited for, so that its successor is another; and so is what changes it, so that
        the next change begins where that one has ended, or failed.
        """
        while (topic := self.core.topics.get(name)) is not None and (topic.dropping or topic.changing is not None):
            await self._commits.written()
        return topic

    # Groups

    def group(self, topic: str, name: str) -> Group:
        """The group of that name. Raises TopicNotFound, GroupNotFound."""
        found = self.core.topic(topic).groups.get(name)
        if found is None or found.dropping:
            raise GroupNotFound(topic, name)
        return found

    async def put_group(self, topic: str, group: str) -> bool:
        """See `Engine`."""
        while True:
            queue = self.core.topic(topic)
            found = queue.groups.get(group)
            if found is None and group not in queue.coming_groups:
                await self._durably(self.core.put_group(queue, group))
                return True
            # Its maker, or its end, may still be waiting for the disk.
            await self._commits.written()
            if found is not None and not found.dropping:
                return False

    async def describe_group(self, topic: str, group: str) -> GroupInfo:
        """See `Engine`."""
        found = self.group(topic, group)
        return self._with_parked(found, found.describe(self._clocks.now(), self._clocks.wall()))

    async def delete_group(self, topic: str, group: str) -> None:
        """See `Engine`."""
        await self._durably(self.core.drop_group(self.group(topic, group)))

    async def consumers(self, topic: str, group: str | None) -> list[ConsumerInfo]:
        """See `Engine`."""
        groups = self.core.topic(topic).groups if group is None else [self.group(topic, group).name]
        present = [one for name in groups for one in self._presences.describe(topic, name)]
        return sorted(present, key=lambda one: (one.since, one.id, one.group))

    async def purge(self, topic: str, group: str) -> int:
        """See `Engine`."""
        purge = self.core.purge(self.group(topic, group))
        if purge.dropped:
            await self._durably(purge)
        return len(purge.dropped)

    async def redrive(self, topic: str, group: str, limit: int | None) -> Moved:
        """See `Engine`."""
        found = self.group(topic, group)
        redrive = self.core.redrive(found, limit)
        if redrive.seqs:
            await self._durably(redrive)
        return Moved(len(redrive.seqs), len(found.dead))

    async def peek(self, topic: str, group: str, state: str, after: int, limit: int) -> list[Peeked]:
        """See `Engine`."""
        found = self.group(topic, group)
        peeked = peek(found, state, after, limit, self._clocks.wall() - self._clocks.now())
        bodiless = [one.message.seq for one in peeked if one.message.body is None]
        whole = {one.message.seq: one.message for one in peeked if one.message.body is not None}
        whole |= await self._read(found.topic, bodiless)
        return [_with_body(one, whole[one.message.seq]) for one in peeked if one.message.seq in whole]

    async def _read(self, topic: Topic, seqs: Sequence[int]) -> dict[int, Message]:
        read = await self._bodies.read(topic.id, seqs, topic.size_of(seqs[0])) if seqs else {}
        if topic.gone:
            raise TopicNotFound(topic.name)
        return read


def _with_body(peeked: Peeked, whole: Message) -> Peeked:
    if whole.body is None:
        return peeked._replace(reason=peeked.reason or DAMAGED)
    return peeked._replace(message=whole)
