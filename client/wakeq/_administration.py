"""What operators do with topics and groups: the client's methods that move no messages between programs."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

from wakeq._connection import Answer, path_segment, topic_path
from wakeq._errors import read_answer
from wakeq._model import GroupInfo, Peeked, Redriven, TopicInfo

_PAGE = 100


class Administration(ABC):
    """Base of the client; each method raises ServerUnavailable, and TopicNotFound where it names a topic."""

    @abstractmethod
    async def _ask(
        self, method: str, path: str, *, json: Any = None, params: Mapping[str, object] | None = None
    ) -> Answer:
        """A request's answer. Raises what it says went wrong."""

    async def create_topic(self, topic: str, **config: Any) -> TopicInfo:
        """Make a topic, or replace its whole configuration: ``schema``, ``lease_s``, … as in docs/protocol.md.

        What isn't named has its default. Raises BadRequest naming the field.
        """
        return read_answer(await self._ask("PUT", topic_path(topic), json=config), TopicInfo.from_wire)

    async def configure_topic(self, topic: str, **changes: Any) -> TopicInfo:
        """Change the named settings of a topic and leave the others; None takes off what may be none.

        Of ``retry_backoff_s``, ``min`` or ``max`` may be named alone. The configuration is read, changed and put back:
        of two that do so at one moment, the later may undo the earlier. Raises BadRequest naming the field.
        """
        config = dict((await self.topic(topic)).raw["config"])
        backoff = changes.get("retry_backoff_s")
        if isinstance(backoff, Mapping):
            changes["retry_backoff_s"] = {**config["retry_backoff_s"], **backoff}
        return await self.create_topic(topic, **config | changes)

    async def topic(self, topic: str) -> TopicInfo:
        """How a topic stands."""
        return read_answer(await self._ask("GET", topic_path(topic)), TopicInfo.from_wire)

    async def topics(self, *, after: str = "") -> AsyncIterator[TopicInfo]:
        """All topics by name, those behind ``after``; asked for in pages as they are needed."""
        behind: str | None = after
        while behind is not None:
            page, behind = await self._topics_from(behind)
            for info in page:
                yield info

    async def _topics_from(self, after: str) -> tuple[list[TopicInfo], str | None]:
        """A page of topics, and behind which the next begins; None: this was the last."""
        answer = await self._ask("GET", "/topics", params={"after": after, "limit": _PAGE})
        page = read_answer(answer, lambda said: [TopicInfo.from_wire(wire) for wire in said["topics"]])
        return page, page[-1].name if len(page) == _PAGE else None

    async def delete_topic(self, topic: str) -> None:
        """Drop a topic with all its messages; its parked consumers are told TopicNotFound."""
        await self._ask("DELETE", topic_path(topic))

    async def pause(self, topic: str) -> TopicInfo:
        """Stop delivery. Publishes and settles go on; consumers wait as on an empty topic."""
        return read_answer(await self._ask("POST", f"{topic_path(topic)}/pause"), TopicInfo.from_wire)

    async def resume(self, topic: str) -> TopicInfo:
        """Start delivery again."""
        return read_answer(await self._ask("POST", f"{topic_path(topic)}/resume"), TopicInfo.from_wire)

    async def peek(
        self,
        topic: str,
        *,
        state: Literal["ready", "delayed", "leased", "dead"] = "ready",
        group: str | None = None,
        after: int = 0,
        limit: int = 20,
    ) -> list[Peeked]:
        """At most ``limit`` (1 to 100) messages in a state, by seq from behind ``after``; takes none of them.

        Raises GroupNotFound, BadRequest.
        """
        params = _of_group(group) | {"state": state, "after": after, "limit": limit}
        answer = await self._ask("GET", f"{topic_path(topic)}/messages", params=params)
        return read_answer(answer, lambda said: [Peeked.from_wire(wire) for wire in said["messages"]])

    async def purge(self, topic: str, *, group: str | None = None) -> int:
        """Drop what is ready or delayed in a group; says how many. Leases and dead letters stay.

        Raises GroupNotFound.
        """
        answer = await self._ask("POST", f"{topic_path(topic)}/purge", params=_of_group(group))
        return read_answer(answer, lambda said: int(said["purged"]))

    async def redrive(self, topic: str, *, group: str | None = None, max: int | None = None) -> Redriven:  # noqa: A002
        """Make a group's dead letters ready again as if never delivered: the oldest ``max``, or all.

        Raises GroupNotFound, BadRequest.
        """
        answer = await self._ask("POST", f"{topic_path(topic)}/redrive", params=_of_group(group), json={"max": max})
        return read_answer(answer, lambda said: Redriven(said["moved"], said["remaining"]))

    async def put_group(self, topic: str, group: str) -> GroupInfo:
        """Make a group, which gets every message published from now on, or find it made. Raises BadRequest."""
        return read_answer(await self._ask("PUT", _group(topic, group)), lambda said: GroupInfo.from_wire(group, said))

    async def group(self, topic: str, group: str) -> GroupInfo:
        """How a group stands. Raises GroupNotFound."""
        return read_answer(await self._ask("GET", _group(topic, group)), lambda said: GroupInfo.from_wire(group, said))

    async def delete_group(self, topic: str, group: str) -> None:
        """Drop a group with what only it still needed; its parked consumers are told GroupNotFound.

        Raises GroupNotFound.
        """
        await self._ask("DELETE", _group(topic, group))


def _group(topic: str, group: str) -> str:
    return f"{topic_path(topic)}/groups/{path_segment(group)}"


def _of_group(group: str | None) -> dict[str, Any]:
    return {} if group is None else {"group": group}
