"""A worker's link to the control plane, which all its attempts share.

What attempts say goes in requests, one on its way at a time: whoever speaks meanwhile shares the next. What they must
know comes over one stream, which is opened again and again; with each the worker registers anew, and then those that
have begun say so anew, and hear what they have missed. What is said twice happens once.
"""

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any, Protocol

import anyio

import wakeq
from wakeq._errors import error_of
from wakeq._lane import Lane, Part
from wakeq_control.codec import dump
from wakeq_control.link.trying import new_backoff, until_done
from wakeq_control.service.control import ControlPlane
from wakeq_control.service.registering import Registration

_NOT_FOUND = 404
_WORDS_MAX = 1_000
_REQUEST_MAX_BYTES = 8 * 1024 * 1024


class Follower(Protocol):
    """An attempt."""

    ref: int
    """What the link knows it by."""

    @property
    def begun(self) -> bool:
        """Whether it has been told of its beginning."""

    def announcement(self) -> dict[str, Any]:
        """How it begins, or goes on."""

    def told(self, said: dict[str, Any]) -> None:
        """The control plane has something to say to it."""

    def refused(self, error: wakeq.WakeqError) -> None:
        """The control plane doesn't let it go on."""


class _Word(Part):
    """What one attempt says."""

    __slots__ = ("answer", "content", "link")

    def __init__(self, said: dict[str, Any]) -> None:
        """Raises ValueError, RecursionError."""
        super().__init__()
        self.patience_s = math.inf
        self.content = dump(said)
        self.answer: dict[str, Any] = {}
        self.link = 0
        """Which link has it."""

    @property
    def size(self) -> int:
        return len(self.content) + 1


class _Words(Lane[_Word]):
    """All attempts' words."""

    def __init__(self, link: "Link", jitter: Callable[[], float]) -> None:
        super().__init__(jitter=jitter, most=_WORDS_MAX, max_bytes=_REQUEST_MAX_BYTES)
        self._link = link

    async def send(self, parts: list[_Word]) -> None:
        number, answers = await self._link.ask(b'{"words":[%b]}' % b",".join([part.content for part in parts]))
        for part, answer in zip(parts, answers, strict=True):
            part.link, part.answer = number, answer
            part.end(error_of(answer["code"], answer["detail"]) if "code" in answer else None)


class Link:
    """One worker's."""

    def __init__(
        self,
        control: ControlPlane,
        worker: str,
        registration: Registration,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """``worker`` is the worker's name."""
        self._control = control
        self._worker = worker
        self._registration = registration
        self._words = _Words(self, jitter)
        self._refs = count(1)
        self._attempts: dict[int, Follower] = {}
        self._number = 0
        self._open = anyio.Event()
        self._reading = anyio.CancelScope()

    async def run(self) -> None:
        """Be registered, and hear what attempts must know, for ever. Raises StartupError."""
        async with anyio.create_task_group() as tasks:
            backoff = new_backoff()

            def opened() -> None:
                backoff.succeeded()
                for attempt in self._attempts.values():
                    if attempt.begun:
                        tasks.start_soon(self._go_on, attempt)

            await until_done("following the control plane", partial(self._follow, opened), backoff)

    @contextmanager
    def following(self, attempt: Follower) -> Iterator[None]:
        """The attempt is told what comes for it."""
        attempt.ref = next(self._refs)
        self._attempts[attempt.ref] = attempt
        try:
            yield
        finally:
            del self._attempts[attempt.ref]

    async def announce(self, attempt: Follower) -> None:
        """Begin an attempt, or go on with it; it is told what comes of that. Raises WakeqError: that never happens."""
        while attempt.ref in self._attempts:
            word = await self._submit(attempt.announcement())
            attempt.told(word.answer)
            if word.link == self._number:
                return
            # It has begun, and nobody would tell it anything: the link that it began by is gone.

    async def _go_on(self, attempt: Follower) -> None:
        try:
            await self.announce(attempt)
        except wakeq.WakeqError as error:
            attempt.refused(error)

    async def say(self, said: dict[str, Any]) -> dict[str, Any]:
        """What the control plane answers. Raises WakeqError where it refuses it, ValueError, RecursionError."""
        return (await self._submit(said)).answer

    async def _submit(self, said: dict[str, Any]) -> _Word:
        word = _Word(said)
        await self._words.submit(word)
        return word

    async def ask(self, content: bytes) -> tuple[int, list[dict[str, Any]]]:
        """Make a request as soon as the link is open; returns which one it was, too. Raises WakeqError."""
        while not self._open.is_set():
            await self._open.wait()
        number = self._number
        try:
            return number, await self._control.say(self._worker, number, content)
        except wakeq.WakeqError as error:
            if error.status != _NOT_FOUND:
                raise
            # It has begun anew, and the stream doesn't know yet.
            if number == self._number:
                self._close()
            raise wakeq.ServerUnavailable("the control plane doesn't know this worker") from error

    def _close(self) -> None:
        self._closed()
        self._reading.cancel()

    def _closed(self) -> None:
        # Who waits for it to be open goes on waiting for the same event.
        if self._open.is_set():
            self._open = anyio.Event()

    async def _follow(self, opened: Callable[[], None]) -> None:
        self._number += 1
        with anyio.CancelScope() as self._reading:
            try:
                link = self._control.link(self._worker, self._number)
                async with self._registration.over(link) as lines:
                    self._open.set()
                    opened()
                    async for line in lines:
                        attempt = self._attempts.get(line["ref"])
                        if attempt is not None:
                            attempt.told(line)
            finally:
                self._closed()
        raise wakeq.ServerUnavailable("the control plane has ended the stream")
