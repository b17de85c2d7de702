"""`wakeq consume --exec`: a command for each message."""

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

import anyio
from anyio.abc import Process

import wakeq
from wakeq.cli._deliveries import attributes, body_of
from wakeq.cli._stop import Stop
from wakeq.cli._taking import Intake
from wakeq.cli._talk import counted, fail, note

# What a shell says of a command that is not there, or is none.
_NOT_RUN = (126, 127)
# Of a lease, so that one extension may fail and the next is still in time.
_EXTEND_AFTER = 1 / 3
_TERMINATE_S = 5.0
_UNREAD = (anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionResetError, BrokenPipeError)
_GIVE_BACK_S = 5.0
_OWN = re.compile("WAKEQ_(TOPIC|GROUP|SEQ|ATTEMPT|PUBLISHED_AT|ID|KEY|CONTENT_TYPE|HEADER_.*)")


class Failure(NamedTuple):
    """Why a message is given back."""

    reason: str
    begun: bool = True
    """Whether the command has run for it. Else that is no attempt: no message dies of a command that isn't there."""


_INTERRUPTED = Failure("interrupted")


class Commands:
    """Runs a command for each message: acked if it ends with 0, else given back with what it ended with."""

    def __init__(
        self, command: str, *, concurrency: int, lease_s: float, grace_s: float, env: Mapping[str, str]
    ) -> None:
        """At most ``concurrency`` at a time, each message leased for ``lease_s`` until its command ends.

        When a signal has ended the taking, those that run have ``grace_s``. ``env`` is what all are told.
        """
        self._command = command
        self._lease_s = lease_s
        self._grace_s = grace_s
        self._env = {**{name: value for name, value in os.environ.items() if not _OWN.fullmatch(name)}, **env}
        self._free = anyio.Semaphore(concurrency)
        self._concurrency = concurrency
        self._not_run: str | None = None
        self.given_back = 0
        """Messages that weren't acked."""

    async def run(self, intake: Intake, stop: Stop) -> None:
        """Until there are no more, or a signal says so. Fails where the shell can't run the command."""
        with stop.working:
            async with anyio.create_task_group() as tasks:
                with stop.taking():
                    while deliveries := await self._take(intake):
                        for delivery in deliveries:
                            tasks.start_soon(self._handle, delivery, stop)
                if stop.received is not None:
                    self._say_what_still_runs()
                    tasks.cancel_scope.deadline = anyio.current_time() + self._grace_s
        if self._not_run is not None:
            fail(f"the command can't be run ({self._not_run}): {self._command}", "is it there, and executable?")

    async def _take(self, intake: Intake) -> list[wakeq.Delivery]:
        await self._free.acquire()
        slots, taken = 1, 0
        try:
            while slots < self._concurrency and self._free.value:
                self._free.acquire_nowait()
                slots += 1
            deliveries = await intake.take(slots)
            taken = len(deliveries)
            return deliveries
        finally:
            for _ in range(slots - taken):
                self._free.release()

    def _say_what_still_runs(self) -> None:
        running = self._concurrency - self._free.value
        if running:
            note(
                f"waiting {self._grace_s:g} s at most for {counted(running, 'command')}; a second signal ends the wait"
            )

    async def _handle(self, delivery: wakeq.Delivery, stop: Stop) -> None:
        failure: Failure | None = _INTERRUPTED
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep, delivery)
                failure = await self._outcome(delivery, stop)
                tasks.cancel_scope.cancel()
        finally:
            # A signal ends commands, not the settles of those that have ended.
            with anyio.CancelScope(shield=True):
                await self._settle(delivery, failure)
            self._free.release()

    async def _outcome(self, delivery: wakeq.Delivery, stop: Stop) -> Failure | None:
        """Run the command: what it failed of, if it did."""
        try:
            code = await self._run(delivery)
        except OSError as error:
            reason = f"not started: {error.strerror}"
        else:
            if code == 0:
                return None
            reason = f"exit code {code}" if code > 0 else f"ended by {_signal_name(-code)}"
            if code not in _NOT_RUN:
                return Failure(reason)
        # Of the next message it would be the same.
        self._not_run = reason
        stop.no_more()
        return Failure(reason, begun=False)

    async def _run(self, delivery: wakeq.Delivery) -> int:
        # In a session of its own: a Ctrl-C is meant for us, and what the command starts ends with it.
        process = await anyio.open_process(
            self._command, stdin=subprocess.PIPE, stdout=None, stderr=None,
            env=self._env | attributes(delivery), start_new_session=True,
        )  # fmt: skip
        try:
            assert process.stdin is not None
            # A command need not read its message.
            with suppress(*_UNREAD):
                await process.stdin.send(body_of(delivery))
            with suppress(*_UNREAD):
                await process.stdin.aclose()
            return await process.wait()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await _terminate(process)
            raise

    async def _keep(self, delivery: wakeq.Delivery) -> None:
        while True:
            await anyio.sleep(self._lease_s * _EXTEND_AFTER)
            try:
                await delivery.extend(self._lease_s)
            except wakeq.LeaseLost:
                note(f"message {delivery.seq}: its lease has ended, and another consumer may be given it")
                return
            except wakeq.WakeqError:
                # The next may come through, and is in time.
                continue

    async def _settle(self, delivery: wakeq.Delivery, failure: Failure | None) -> None:
        patience_s = _GIVE_BACK_S if failure == _INTERRUPTED else max(self._lease_s, _GIVE_BACK_S)
        told = f"message {delivery.seq} comes again: no answer within {patience_s:g} s"
        try:
            with anyio.move_on_after(patience_s):
                if failure is None:
                    await delivery.ack()
                    return
                if failure.begun:
                    await delivery.nack(delay_s=0.0 if failure == _INTERRUPTED else None, reason=failure.reason)
                else:
                    await delivery.release()
                told = f"message {delivery.seq}, attempt {delivery.attempt}, was given back: {failure.reason}"
        except wakeq.WakeqError as error:
            told = f"message {delivery.seq} comes again: {error.detail}"
        note(told)
        self.given_back += 1


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        # One of the real-time signals, of which most have no name.
        return f"signal {number}"


async def _terminate(process: Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with anyio.move_on_after(_TERMINATE_S):
            await process.wait()
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
