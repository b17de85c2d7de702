"""Pushes as the engine keeps them; who delivers them stands outside, and is told of each that comes or goes."""

from wakeq_server.core.model import Push, PushConfig, PushStanding
from wakeq_server.core.topic import Topic
from wakeq_server.engine.administration import Administration
from wakeq_server.engine.base import PushDeliverer
from wakeq_server.errors import PushNotFound


class PushAdministration(Administration):
    """The part of the embedded engine that `Engine` lists under pushes."""

    _deliverer: PushDeliverer | None

    async def put_push(self, topic: str, name: str, config: PushConfig) -> bool:
        """See `Engine`."""
        put = self.core.put_push(self.group(topic, config.group), name, config)
        await self._durably(put)
        return put.new

    async def describe_push(self, topic: str, name: str) -> tuple[Push, PushStanding]:
        """See `Engine`."""
        push = self._push(self.core.topic(topic), name)
        return push, self._standing(push)

    async def describe_pushes(self, topic: str) -> list[tuple[Push, PushStanding]]:
        """See `Engine`."""
        found = self.core.topic(topic)
        pushes = [push for _, push in sorted(found.pushes.items()) if push.id not in found.dropping_pushes]
        return [(push, self._standing(push)) for push in pushes]

    async def delete_push(self, topic: str, name: str) -> None:
        """See `Engine`."""
        found = self.core.topic(topic)
        await self._durably(self.core.drop_push(found, self._push(found, name)))

    async def end_push(self, push: Push) -> bool:
        """See `Engine`."""
        topic = self.core.topics.get(push.topic)
        if topic is None or topic.pushes.get(push.name) is not push or push.id in topic.dropping_pushes:
            return False
        await self._durably(self.core.drop_push(topic, push))
        return True

    def deliver_pushes(self, deliverer: PushDeliverer) -> None:
        """See `Engine`."""
        self._deliverer = deliverer
        for topic in self.core.topics.values():
            for push in topic.pushes.values():
                deliverer.push_put(push)

    def _tell_deliverer(self, push: Push, there: bool) -> None:
        if self._deliverer is not None:
            (self._deliverer.push_put if there else self._deliverer.push_ended)(push)

    def _push(self, topic: Topic, name: str) -> Push:
        push = topic.pushes.get(name)
        if push is None or push.id in topic.dropping_pushes:
            raise PushNotFound(topic.name, name)
        return push

    def _standing(self, push: Push) -> PushStanding:
        return PushStanding() if self._deliverer is None else self._deliverer.push_standing(push)
