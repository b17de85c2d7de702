"""What an attempt tells the control plane: one word at a time, each with all that was said meanwhile.

An event that nothing is on its way before is sent at once. What comes while a word is on its way shares the next, and
so does the attempt's end: nothing overtakes anything, and a short task is one word.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.abc

import wakeq
from wakeq_control.link.trying import PERMANENT
from wakeq_control.service.runnable import Outcome, refused

EVENTS_MAX = 1_000
"""Events of one word."""
Say = Callable[[dict[str, Any]], Awaitable[None]]
"""Says it to the control plane, until that has stored it. Raises WakeqError, ValueError, RecursionError."""
_UNSENDABLE = (*PERMANENT, ValueError, RecursionError)


class Saying:
    """One attempt's."""

    def __init__(self, say: Say, *, tasks: anyio.abc.TaskGroup, failed: Callable[[], None]) -> None:
        """``tasks`` runs what says it.

        ``failed`` is called when an event can't be sent: what comes behind it, such as a question, is never shown.
        """
        self._say = say
        self._tasks = tasks
        self._failed = failed
        self._waiting: list[dict[str, Any]] = []
        self._sent = 0
        self._sender: anyio.CancelScope | None = None
        """Of the task that says events, if there is one."""
        self._ends = False
        """Whether what is said from now on goes with the end."""
        self._busy = False
        """Whether a word is on its way."""
        self._answered: anyio.Event | None = None
        """What the end waits for it by."""
        self._error: Exception | None = None
        self._unsendable = ""

    def event(self, data: dict[str, Any]) -> None:
        """Say an event, soon."""
        self._waiting.append(data)
        if self._sender is None and not self._ends:
            self._sender = anyio.CancelScope()
            self._tasks.start_soon(self._send, self._sender)

    def about_to_end(self) -> None:
        """What is said from now on goes with the end."""
        self._ends = True

    async def end(self, outcome: Outcome) -> None:
        """Say how the attempt has ended, behind all events. Raises WakeqError where another attempt may be able to."""
        self._ends = True
        while self._busy:
            self._answered = anyio.Event()
            await self._answered.wait()
        try:
            if self._error is not None:
                raise self._error
            while len(self._waiting) > EVENTS_MAX:
                await self._send_some()
            await self._send_some(outcome)
        except _UNSENDABLE as error:
            await self._put(0, [], refused("RESULT_REFUSED", f"{self._unsendable} can't be sent: {error}"))

    def stop(self) -> None:
        """Say nothing more."""
        self._ends = True
        if self._sender is not None:
            self._sender.cancel()

    async def _send(self, scope: anyio.CancelScope) -> None:
        with scope:
            # An end that has come meanwhile takes along what there is.
            while self._waiting and not (self._busy or self._ends):
                try:
                    await self._send_some()
                except (wakeq.WakeqError, ValueError, RecursionError) as error:
                    self._give_up(error)
                    return
        self._sender = None

    def _give_up(self, error: Exception) -> None:
        self._error = error
        self._failed()

    async def _send_some(self, outcome: Outcome | None = None) -> None:
        self._busy = True
        events = self._waiting[:EVENTS_MAX]
        try:
            await self._put(self._sent, events, outcome)
        finally:
            self._busy = False
            answered, self._answered = self._answered, None
            if answered is not None:
                answered.set()
        del self._waiting[: len(events)]
        self._sent += len(events)

    async def _put(self, first: int, events: list[dict[str, Any]], outcome: Outcome | None) -> None:
        try:
            await self._say(_word(first, events, outcome))
        except _UNSENDABLE:
            if len(events) + (outcome is not None) == 1:
                self._unsendable = "an event" if events else "the result or the workflow's context"
                raise
            # Of several, which one it is.
            for number, event in enumerate(events, first):
                await self._put(number, [event], None)
            if outcome is not None:
                await self._put(first + len(events), [], outcome)


def _word(first: int, events: list[dict[str, Any]], outcome: Outcome | None) -> dict[str, Any]:
    said: dict[str, Any] = {"index": first, "events": events}
    if outcome is not None:
        said["end"] = {
            "result": outcome.result,
            "error": outcome.error,
            "context": outcome.context,
            "retryable": outcome.retryable,
        }
    return said
