"""Publishes of one topic: a lone one is a plain request, those that come while one is on its way share the next.

Messages that say nothing but their bodies go as a batch under one key: the server decides, writes and remembers that at
once, at a third of what envelopes cost it. It takes all of a batch or none; where it refuses one, they go as envelopes,
and each hears for itself. Where an answer is lost they go again as they went, whoever has given up meanwhile: under
other keys they might be enqueued twice.
"""

import base64
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import anyio
import orjson

from wakeq._bodies import encoded
from wakeq._connection import Answer, Connection, messages_path, topic_path
from wakeq._errors import ServerUnavailable, WakeqError, error_of, raise_for_answer, read_answer, same_error
from wakeq._lane import Lane, Part
from wakeq._model import Published
from wakeq._wire import Header

BATCH_MAX_MESSAGES = 10_000
BATCH_MAX_BYTES = 16 * 1024 * 1024
_BYTES = b"application/octet-stream"
_LINES = b"application/x-ndjson"
_ENVELOPE_LINES = b"application/vnd.wakeq.envelopes+x-ndjson"
_ENVELOPES: list[Header] = [
    (b"content-type", _ENVELOPE_LINES),
    (b"prefer", b"handling=lenient"),
]
_ENVELOPE_BYTES = 64
"""What an envelope has around a body where it says nothing but its key, or a few more."""
_FOR_ONE = (400, 413, 415, 422, 429, 431)
"""Refusals of a batch for what one of its messages is, or for which the topic has no room as a whole."""
_BUSY = 503


def new_key() -> str:
    """An idempotency key that nobody else has."""
    return os.urandom(16).hex()


class Outgoing(Part):
    """What is published."""

    __slots__ = ("_published", "headers", "maybe_sent_at")

    content: bytes
    """Of a request of its own."""
    content_type: bytes

    def __init__(self, headers: list[Header]) -> None:
        super().__init__()
        self.headers = headers
        self.maybe_sent_at: float | None = None
        """When it was first sent without an answer."""
        self._published: Published | None = None

    @property
    def result(self) -> Published:
        """Once it is over without an error."""
        assert self._published is not None
        return self._published

    def published(self, result: Published) -> None:
        """It is on the server."""
        self._published = result
        self.end()

    def sent(self, at: float) -> None:
        """A request with it was made then, and may have been read."""
        if self.maybe_sent_at is None:
            self.maybe_sent_at = at

    def end(self, error: WakeqError | None = None) -> None:
        """It has its outcome. What was sent before may be there, though it could not be sent again."""
        if isinstance(error, ServerUnavailable) and self.maybe_sent_at is not None:
            error.may_have_happened = True
        super().end(error)

    def read(self, answer: Answer) -> Published:
        """What the answer to a request of its own says."""
        raise NotImplementedError


class Message(Outgoing):
    """One message, which may share a request with others."""

    __slots__ = ("_fields", "_line", "content", "content_type", "is_free")

    def __init__(
        self, body: Any, headers: list[Header], fields: Callable[[], Mapping[str, Any]], *, is_free: bool = False
    ) -> None:
        """``fields`` say in an envelope what ``headers`` say. Raises TypeError where the body isn't JSON.

        ``is_free``: they say nothing but a key that the program doesn't know, so it may go under another.
        """
        super().__init__(headers)
        is_bytes = isinstance(body, bytes)
        self.content = body if is_bytes else encoded(body)
        self.content_type = _BYTES if is_bytes else b"application/json"
        self._fields = fields
        self._line: bytes | None = None
        self.is_free = is_free and not is_bytes

    @property
    def line(self) -> bytes:
        """The message as an envelope."""
        if self._line is None:
            body = _in_base64(self.content) if self.content_type is _BYTES else {"body": orjson.Fragment(self.content)}
            self._line = orjson.dumps({**self._fields(), **body})
        return self._line

    @property
    def size(self) -> int:
        """Bytes of its line, or a few more."""
        return len(self.content) + _ENVELOPE_BYTES if self.is_free else len(self.line) + 1

    def read(self, answer: Answer) -> Published:
        """The message's number."""
        seq = read_answer(answer, lambda _: int(answer.headers[b"wakeq-seq"]))
        return Published(seq, seq)


class Batch(Outgoing):
    """Messages that are published all or none."""

    __slots__ = ("content", "content_type")

    def __init__(self, bodies: Iterable[Any], headers: list[Header], fields: Mapping[str, Any]) -> None:
        """``fields`` is what an envelope of each says beside its body. Raises TypeError where a body isn't JSON."""
        super().__init__(headers)
        self.alone = True
        lines: Iterable[bytes] = map(encoded, bodies)
        if fields:
            lines = (orjson.dumps({**fields, "body": orjson.Fragment(line)}) for line in lines)
        self.content = b"\n".join(lines)
        self.content_type = _ENVELOPE_LINES if fields else _LINES

    @property
    def size(self) -> int:
        """Bytes of the messages."""
        return len(self.content)

    def read(self, answer: Answer) -> Published:
        """The first and the last message's number."""
        return read_answer(answer, lambda said: Published(said["first_seq"], said["last_seq"]))


class _Group:
    """Messages that go together, all or none, until it is known what has become of them."""

    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages
        self.content = b"\n".join([message.content for message in messages])
        self.headers: list[Header] = [(b"content-type", _LINES), (b"idempotency-key", new_key().encode())]

    def join(self) -> None:
        """From now on they go in no other way."""
        for message in self.messages:
            message.group = self

    def dissolve(self) -> None:
        """They may. In the end, too: messages and their group would be a cycle, left to the garbage collector."""
        for message in self.messages:
            message.group = None


def _in_base64(content: bytes) -> dict[str, str]:
    return {"body_b64": base64.b64encode(content).decode(), "content_type": _BYTES.decode()}


class Publisher(Lane[Outgoing]):
    """The lane of a topic's publishes."""

    def __init__(self, connection: Connection, topic: str, *, jitter: Callable[[], float]) -> None:
        super().__init__(jitter=jitter, most=BATCH_MAX_MESSAGES, max_bytes=BATCH_MAX_BYTES)
        self._connection = connection
        self._topic = topic
        self._window_s: float | None = None

    async def send(self, parts: list[Outgoing]) -> None:
        """A message as itself; several as a batch, or as envelopes of which each is taken by itself."""
        parts = await self._in_time(parts)
        if not parts:
            return
        group = parts[0].group
        if isinstance(group, _Group):
            await self._send_again(group)
        elif len(parts) == 1:
            await self._send_one(parts[0])
        else:
            # A batch of `publish_many` goes alone.
            messages = [part for part in parts if isinstance(part, Message)]
            if not all(message.is_free for message in messages) or not await self._are_taken(_Group(messages)):
                await self._send_envelopes(messages)

    async def _in_time(self, parts: list[Outgoing]) -> list[Outgoing]:
        """Those that surely enqueue nothing twice; ends the others.

        The server forgets an idempotency key when its topic's deduplication window is over, and would then take for
        another message what comes again. Whoever has lost no answer pays nothing for this.
        """
        if all(part.maybe_sent_at is None for part in parts):
            # Another time it may be another.
            self._window_s = None
            return parts
        if self._window_s is None:
            self._window_s = await self._dedup_window_s()
        first_sent_at = anyio.current_time() + self._connection.timeout - self._window_s
        for part in parts:
            if part.maybe_sent_at is not None and part.maybe_sent_at < first_sent_at:
                part.end(
                    ServerUnavailable(
                        "the answer was lost, and the topic's deduplication window is too short to ask again"
                    )
                )
        return [part for part in parts if not part.over]

    async def _dedup_window_s(self) -> float:
        answer = await self._connection.ask("GET", topic_path(self._topic))
        try:
            raise_for_answer(answer)
        except WakeqError as error:
            if error.status not in _FOR_ONE:
                raise
            # It would be taken for a refusal of what is to be published.
            raise ServerUnavailable(f"the topic can't be looked at: {error.detail}") from error
        return read_answer(answer, lambda said: float(said["config"]["dedup_window_s"]))

    async def _send_one(self, part: Outgoing) -> None:
        if isinstance(part, Message):
            part.is_free = False
        headers = [(b"content-type", part.content_type), *part.headers]
        part.published(part.read(await self._post(part.content, headers)))

    async def _are_taken(self, group: _Group) -> bool:
        """Send it for the first time; False where nothing of it is taken together."""
        # Before: the leader may be cancelled while it waits for the answer.
        group.join()
        try:
            await self._send_group(group)
        except WakeqError as error:
            refused = error.status in _FOR_ONE
            if refused or not getattr(error, "may_have_happened", error.status != _BUSY):
                group.dissolve()
            if not refused:
                raise
            return False
        return True

    async def _send_again(self, group: _Group) -> None:
        try:
            await self._send_group(group)
        except WakeqError as error:
            if isinstance(error, ServerUnavailable) or error.status == _BUSY:
                raise
            # They may have been enqueued the first time, so they go in no other way.
            group.dissolve()
            for message in group.messages:
                if not message.over:
                    message.end(same_error(error))

    async def _send_group(self, group: _Group) -> None:
        answer = await self._post(group.content, group.headers)
        first = read_answer(answer, lambda said: int(said["first_seq"]))
        group.dissolve()
        for seq, message in enumerate(group.messages, first):
            if not message.over:
                message.published(Published(seq, seq))

    async def _send_envelopes(self, messages: list[Message]) -> None:
        # Under another key than its own, what the server has read already would be another message.
        for message in messages:
            message.is_free = False
        answer = await self._post(b"\n".join([message.line for message in messages]), _ENVELOPES)
        results = read_answer(answer, lambda said: [_outcome(*one) for one in enumerate(said["results"], 1)])
        for message, result in zip(messages, results, strict=True):
            if isinstance(result, Published):
                message.published(result)
            else:
                message.end(result)

    async def _post(self, content: bytes, headers: list[Header]) -> Answer:
        path = messages_path(self._topic)
        answer = await self._connection.ask("POST", path, content=content, headers=headers)
        raise_for_answer(answer)
        return answer


def _outcome(number: int, result: Mapping[str, Any]) -> Published | WakeqError:
    if "seq" in result:
        return Published(result["seq"], result["seq"])
    # Whoever published one message knows of no lines.
    detail, line = str(result["detail"]), f"line {number}"
    if detail.startswith(f"{line} "):
        detail = f"the message{detail.removeprefix(line)}"
    error = error_of(str(result["code"]), detail.removeprefix(f"{line}: "))
    error.retry_after_s = result.get("retry_after_s")
    return error
