"""`wakeq publish --ndjson`: a message a line, in batches of which each is published whole or not at all."""

import os
import re
import stat
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from typing import Any, BinaryIO

import anyio
import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import wakeq
from wakeq.cli._lines import BadLine, Batch, Line, batches
from wakeq.cli._stop import Stop, stoppable
from wakeq.cli._talk import counted, fail, note, say, talk

_RETRY_S = 60.0
# What is wrong with one message alone.
_OF_ONE = (wakeq.InvalidMessage, wakeq.MessageTooLarge, wakeq.BadRequest)
_LINE = re.compile(r"^line (\d+)")


def publish_lines(url: str, topic: str, source: BinaryIO, attributes: Mapping[str, Any], *, lenient: bool) -> None:
    """Publish the lines of ``source``, in order, and say how many. One that is refused is named by its number.

    It ends the publishing, unless that is ``lenient``: then it is left out. ``attributes`` are each message's.
    """
    publisher = (_Lenient if lenient else _Publisher)(topic, source, attributes)
    began = time.monotonic()
    with _bar(source) if sys.stdout.isatty() and sys.stderr.isatty() else nullcontext() as bar:
        try:
            talk(url, lambda client: publisher.run(client, bar), topic, retry_s=_RETRY_S)
        except BadLine as error:
            fail(str(error), "each line is one JSON value", code=2)
    took_s = time.monotonic() - began
    rate = f" in {took_s:.1f} s, {publisher.count / took_s:,.0f} a second" if publisher.count else ""
    say(f"published {counted(publisher.count, 'message')} to topic {topic}{rate}")
    if publisher.left_out:
        fail(f"{counted(publisher.left_out, 'line')} left out", "")


class _Publisher:
    """Publishes lines, and knows how far it has come."""

    def __init__(self, topic: str, source: BinaryIO, attributes: Mapping[str, Any]) -> None:
        self._topic = topic
        self._source = source
        self._attributes = attributes
        self._last = 0
        self._asked: list[Line] = []
        self.count = 0
        """Messages that are published."""
        self.left_out = 0
        """Lines that were refused, and named."""

    async def run(self, client: wakeq.AsyncClient, bar: Progress | None) -> None:
        """All of them. Where that fails, it says what is published, and what isn't."""
        # Batches are tried again; a server that isn't there at all is told at once. The topic may be made by them.
        with suppress(wakeq.TopicNotFound):
            await client.topic(self._topic)
        try:
            async with stoppable() as stop:
                with stop.working:
                    await self._publish_all(client, stop, bar)
                if stop.received is not None:
                    note(self._reached())
                    raise typer.Exit(1)
        except (BadLine, wakeq.WakeqError):
            note(self._reached())
            raise

    async def _publish_all(self, client: wakeq.AsyncClient, stop: Stop, bar: Progress | None) -> None:
        coming = batches(self._source)
        while stop.received is None:
            batch = None
            with stop.taking():
                batch = await anext(coming, None)
            if batch is None:
                return
            await self._publish(client, batch)
            if bar is not None:
                _show(bar, self.count, batch.read)

    async def _publish(self, client: wakeq.AsyncClient, batch: Batch) -> None:
        bodies = [_json(line) for line in batch.lines]
        self._asked = batch.lines
        try:
            await client.publish_many(self._topic, bodies, **self._attributes)
        except wakeq.WakeqError as error:
            error.detail = self._by_number(error.detail)
            if not (isinstance(error, wakeq.ServerUnavailable) and error.may_have_happened):
                self._asked = []
            raise
        self._asked = []
        self._last = batch.lines[-1].number
        self.count += len(bodies)

    def _by_number(self, detail: str) -> str:
        """What the server says of a line of its batch, said of the input's."""
        match = _LINE.match(detail)
        if match is None or not 0 < int(match[1]) <= len(self._asked):
            return detail
        return f"line {self._asked[int(match[1]) - 1].number}{detail[match.end() :]}"

    def _reached(self) -> str:
        done = f"lines 1 to {self._last} are published" if self._last else "nothing is published"
        if self._asked:
            return f"{done}; whether lines {self._asked[0].number} to {self._asked[-1].number} are isn't known"
        return f"{done}, and nothing behind them" if self._last else done


class _Lenient(_Publisher):
    """Publishes each line by itself. The client has those of a batch share requests."""

    async def _publish(self, client: wakeq.AsyncClient, batch: Batch) -> None:
        self._asked = batch.lines
        errors: list[wakeq.WakeqError] = []

        async def publish(line: Line) -> None:
            try:
                await client.publish(self._topic, _json(line), **self._attributes)
                self.count += 1
            except BadLine as error:
                self._leave_out(str(error))
            except _OF_ONE as error:
                self._leave_out(f"line {line.number}: {error.detail}")
            except wakeq.WakeqError as error:
                errors.append(error)

        async with anyio.create_task_group() as tasks:
            for line in batch.lines:
                tasks.start_soon(publish, line)
        if errors:
            # Others of the batch may have gone through.
            raise errors[0]
        self._asked = []
        self._last = batch.lines[-1].number

    def _leave_out(self, why: str) -> None:
        self.left_out += 1
        note(f"left out: {why}")


def _json(line: Line) -> orjson.Fragment:
    try:
        orjson.loads(line.content)
    except orjson.JSONDecodeError as error:
        raise BadLine(f"line {line.number} is not JSON: {error.msg}, column {error.colno}") from None
    return orjson.Fragment(line.content)


def _bar(source: BinaryIO) -> Progress:
    """How far it has come, on a terminal; with a bar where the input's size is known."""
    about = os.fstat(source.fileno())
    bar = Progress(
        BarColumn(),
        TextColumn("{task.fields[count]:,} messages"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    bar.add_task("", total=about.st_size if stat.S_ISREG(about.st_mode) else None, count=0, rate=0.0)
    return bar


def _show(bar: Progress, count: int, read: int) -> None:
    (task,) = bar.tasks
    bar.update(task.id, completed=read, count=count, rate=count / (task.elapsed or 1.0))
