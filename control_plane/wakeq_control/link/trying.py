"""What is tried again until the queue is there."""

import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import structlog

import wakeq
from wakeq._backoff import Backoff

_T = TypeVar("_T")
_log: Any = structlog.get_logger("wakeq.control")

PERMANENT = (
    wakeq.BadRequest,
    wakeq.BodyTooLarge,
    wakeq.Forbidden,
    wakeq.IdempotencyConflict,
    wakeq.InvalidBody,
    wakeq.InvalidMessage,
    wakeq.MessageTooLarge,
    wakeq.UnsupportedMediaType,
)
"""What a server says of a request that it would say again."""


def new_backoff() -> Backoff:
    """Delays of one series of attempts."""
    return Backoff(random.random)


async def until_done(what: str, work: Callable[[], Awaitable[_T]], backoff: Backoff | None = None) -> _T:
    """What ``work`` returns, however often it has to be tried. Raises what is `PERMANENT`.

    Work that goes well for long before it fails tells ``backoff`` so.
    """
    backoff = backoff or new_backoff()
    told = ""
    while True:
        try:
            result = await work()
        except PERMANENT:
            raise
        except wakeq.WakeqError as error:
            if error.detail != told:
                # Once for each reason: a queue that is down for an hour is one line.
                told = error.detail
                _log.warning("trying again", what=what, reason=error.detail)
            await anyio.sleep(backoff.next_delay_s(error.retry_after_s or 0.0))
            continue
        if told:
            _log.info("done at last", what=what)
        return result
