"""Serves pushes: takes messages when they are there, posts each, and settles it by the answer.

A push that waits is one parked task, and nothing else: it is dealt to before other consumers, takes as many messages
as it may have in flight, and parks again while they are being posted.

A target that can't be reached says nothing about the message, so that one is undone and the others are left to whoever
else is parked: the push is suspended, for a time that doubles with each failure, at random below that (full jitter,
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). After that one message is tried, from the
end of the line like any consumer's, until one is answered: only then is the push up again.

Whatever this task waits for, it waits in one cancel scope (`_wait`), which is cancelled when that has changed: a
request has ended, the push was suspended or came up, or another was put in its place.
"""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import structlog
from anyio.abc import TaskGroup

from wakeq_server.core.model import Delivery, Push, PushStanding, Settle
from wakeq_server.engine.base import Engine, Subscription
from wakeq_server.errors import Draining, QueueError
from wakeq_server.push.posting import Answered, Failed, Poster, Unreachable, lease_s, origin
from wakeq_server.settings import PUSH_RETRY_MAX_S, PUSH_RETRY_MIN_S

_log = structlog.get_logger("wakeq.push")

GONE = 410


class Pusher:
    """Serves every push of an engine. Made by `open_pusher`."""

    def __init__(
        self,
        engine: Engine,
        poster: Poster,
        tasks: TaskGroup,
        wall: Callable[[], float],
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """``jitter`` gives numbers in [0, 1)."""
        self.engine = engine
        self.poster = poster
        self.tasks = tasks
        self.wall = wall
        self.jitter = jitter
        self._served: dict[tuple[str, str], ServedPush] = {}

    def push_put(self, push: Push) -> None:
        """See `PushDeliverer`."""
        key = push.topic, push.name
        if key in self._served:
            self._served[key].replace(push)
        else:
            served = self._served[key] = ServedPush(self, push)
            self.tasks.start_soon(served.serve)
        self.tell(push, up=True)

    def push_ended(self, push: Push) -> None:
        """See `PushDeliverer`."""
        served = self._served.pop((push.topic, push.name), None)
        if served is not None:
            served.end()
            self.tell(push, up=False)

    def tell(self, push: Push, *, up: bool) -> None:
        """Tell whoever watches that a push works from now on, or doesn't."""
        self.engine.push_changed(push.topic, push.config.group, push.name, push.config.shown_url, up=up)

    def push_standing(self, push: Push) -> PushStanding:
        """See `PushDeliverer`."""
        served = self._served.get((push.topic, push.name))
        return PushStanding() if served is None else served.standing()


class ServedPush:
    """One push, whatever is put in its place."""

    def __init__(self, pusher: Pusher, push: Push) -> None:
        self._pusher = pusher
        self._engine = pusher.engine
        self._push = push
        self._life = anyio.CancelScope()
        self._wait = anyio.CancelScope()
        self._in_flight = 0
        self._delivered = 0
        self._failed = 0
        self._last_error: str | None = None
        self._failures = 0
        """Connections that have failed in a row; 0: up."""
        self._resumes = 0.0
        self._resumes_at = 0.0
        self._spell = 0
        """Counts what makes earlier requests say nothing about the target: suspensions, and other targets."""

    def standing(self) -> PushStanding:
        """How it goes."""
        until = self._resumes_at if self._failures else None
        return PushStanding(until, self._in_flight, self._delivered, self._failed, self._last_error)

    def replace(self, push: Push) -> None:
        """Serve this from now on; what is being posted goes on as it was."""
        self._push = push
        self._spell += 1
        self._set_failures(0)
        self._last_error = None
        self._wait.cancel()

    def end(self) -> None:
        """Take no more; what is being posted goes on."""
        self._set_failures(0)
        self._life.cancel()

    # Taking

    async def serve(self) -> None:
        """Take and post, until it has ended or the server drains."""
        with self._life:
            while not self._engine.draining:
                self._wait = anyio.CancelScope()
                try:
                    with self._wait:
                        await self._take()
                except Draining:
                    return
                except QueueError as error:
                    # The store can't be read, or the topic is just being deleted; not to be asked again at once.
                    self._suspend(self._spell, error.detail)

    async def _take(self) -> None:
        """Wait until messages may be taken, take them, and have them posted."""
        push = self._push
        room = (1 if self._failures else push.config.max_in_flight) - self._in_flight
        if room <= 0:
            await anyio.sleep_forever()
        if self._failures:
            await anyio.sleep_until(self._resumes)
        subscription = await self._engine.subscribe(
            push.topic, group=push.config.group, lease_s=lease_s(push.config), ahead=not self._failures
        )
        # Between here and their tasks there is no await: cancelled, it has taken nothing.
        for delivery in await subscription.take(room, float("inf")):
            self._in_flight += 1
            self._pusher.tasks.start_soon(self._deliver, push, subscription, delivery)

    # Posting

    async def _deliver(self, push: Push, subscription: Subscription, delivery: Delivery) -> None:
        spell = self._spell
        try:
            outcome = await self._pusher.poster.post(push, delivery)
        except BaseException:
            subscription.release([delivery])
            raise
        finally:
            self._one_ended()
        match outcome:
            case Unreachable(problem):
                self._suspend(spell, problem)
                subscription.release([delivery])
            case Answered(status) if status == GONE:
                await self._remove(push, spell, subscription, delivery)
            case Answered(status) if 200 <= status < 300:
                self._reached(spell)
                await self._ack(push, subscription, delivery)
            case Answered(status):
                self._reached(spell)
                await self._nack(push, delivery, _reason(status))
            case Failed(problem):
                self._reached(spell)
                await self._nack(push, delivery, problem)

    def _one_ended(self) -> None:
        """A request has ended: there is room, if that is what is waited for."""
        full = self._in_flight >= (1 if self._failures else self._push.config.max_in_flight)
        self._in_flight -= 1
        if full:
            self._wait.cancel()

    async def _ack(self, push: Push, subscription: Subscription, delivery: Delivery) -> None:
        self._delivered += 1
        self._engine.stats.pushes_delivered += 1
        if delivery.message.key is None:
            subscription.acknowledge([delivery])
        else:
            # The next message of its key waits for this, so it doesn't wait for another commit to ride along with.
            await self._settle(push, [Settle("ack", delivery.lease.encode())])

    async def _nack(self, push: Push, delivery: Delivery, reason: str) -> None:
        self._failed += 1
        self._engine.stats.pushes_failed += 1
        self._last_error = reason
        await self._settle(push, [Settle("nack", delivery.lease.encode(), reason=reason)])

    async def _settle(self, push: Push, lines: Sequence[Settle]) -> None:
        try:
            await self._engine.settle(push.topic, lines)
        except QueueError as error:
            # What was not stored ends with its lease, and the message comes again.
            self._last_error = error.detail

    async def _remove(self, push: Push, spell: int, subscription: Subscription, delivery: Delivery) -> None:
        """The target wants no more, ever."""
        # Until the push is gone for good, it must not take the message that is given back here.
        self._back_off(spell)
        subscription.release([delivery])
        try:
            if await self._engine.end_push(push):
                _log.warning("push removed", **_named(push), reason=_reason(GONE))
        except QueueError as error:
            self._last_error = error.detail

    # Up and down

    def _reached(self, spell: int) -> None:
        if self._failures and spell == self._spell:
            self._set_failures(0)
            self._wait.cancel()
            _log.info("push up", **_named(self._push))
            self._pusher.tell(self._push, up=True)

    def _suspend(self, spell: int, problem: str) -> None:
        if not self._back_off(spell):
            return
        self._last_error = problem
        if self._failures == 1:
            _log.warning("push suspended", **_named(self._push), reason=problem)
            self._pusher.tell(self._push, up=False)

    def _back_off(self, spell: int) -> bool:
        """Take no more for a while; not where it is known already that what was asked then can't be reached."""
        if spell != self._spell or self._life.cancel_called:
            return False
        self._spell += 1
        self._set_failures(self._failures + 1)
        longest = min(PUSH_RETRY_MAX_S, PUSH_RETRY_MIN_S * 2.0 ** min(self._failures - 1, 60))
        delay_s = longest * self._pusher.jitter()
        self._resumes = anyio.current_time() + delay_s
        self._resumes_at = self._pusher.wall() + delay_s
        self._wait.cancel()
        return True

    def _set_failures(self, failures: int) -> None:
        self._engine.stats.pushes_suspended += bool(failures) - bool(self._failures)
        self._failures = failures


def _reason(status: int) -> str:
    """What a message's history says of an answer."""
    return f"HTTP {status}, and redirects are not followed" if 300 <= status < 400 else f"HTTP {status}"


def _named(push: Push) -> dict[str, str]:
    return {"topic": push.topic, "push": push.name, "target": origin(push.config.url)}


@asynccontextmanager
async def open_pusher(engine: Engine, poster: Poster, wall: Callable[[], float]) -> AsyncIterator[Pusher]:
    """Serve the engine's pushes; on the way out, what has not been answered is undone."""
    async with anyio.create_task_group() as tasks:
        pusher = Pusher(engine, poster, tasks, wall)
        engine.deliver_pushes(pusher)
        try:
            yield pusher
        finally:
            tasks.cancel_scope.cancel()
