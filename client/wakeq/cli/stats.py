"""`wakeq stats`."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Self

import anyio
import orjson
import typer
from rich.console import Console
from rich.live import Live

import wakeq
from wakeq._connection import DEFAULT_URL
from wakeq.cli import _complete, _tables, _values
from wakeq.cli._standing import Standing
from wakeq.cli._talk import Url, fail, note, talk

_EVERY_S = 2.0
_SHORTEST_S = 0.1


def _interval(text: str) -> float:
    seconds = _values.seconds(text)
    if seconds < _SHORTEST_S:
        raise typer.BadParameter(f"must be at least {_values.duration(_SHORTEST_S)}")
    return seconds


def stats(
    topics: Annotated[
        list[str] | None,
        typer.Argument(
            parser=_values.name,
            metavar="TOPIC",
            help="Which topics; without a name, all of them.",
            show_default=False,
            autocompletion=_complete.topics,
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again, until interrupted.")] = False,
    every_s: Annotated[
        Any,
        typer.Option("--every", parser=_interval, metavar="DURATION", help="With --watch: how often.  [default: 2s]"),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print a line of JSON a topic, which is what anything but a terminal is given."),
    ] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show what topics hold, what comes and goes, and who waits. The figures are those of all groups together.

    in/s and out/s are messages published and delivered a second; oldest is the age of the oldest that isn't settled.
    """
    if every_s is not None and not watch:
        fail("--every says how often --watch shows it", "add --watch", code=2)
    names = list(dict.fromkeys(topics or []))
    on_terminal = sys.stdout.isatty() and not as_json

    async def work(client: wakeq.AsyncClient) -> None:
        standings = await _standings(client, names)
        if not watch:
            (_print_table if on_terminal else _print_lines)(standings)
            return
        with _Screen() if on_terminal else _Lines() as display:
            display.show(standings)
            while True:
                # A display is looked at, not woken: how often it changes is its reader's wish.
                await anyio.sleep(every_s or _EVERY_S)
                try:
                    display.show(await _standings(client, names))
                except wakeq.ServerUnavailable as error:
                    display.missed(error)

    talk(url, work, *names)


async def _standings(client: wakeq.AsyncClient, topics: Sequence[str]) -> list[Standing]:
    if topics:
        return [Standing.of(await client.topic(name)) for name in topics]
    return [Standing.of(info) async for info in client.topics()]


def _print_lines(standings: Sequence[Standing]) -> None:
    at = {"at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"}
    for standing in standings:
        typer.echo(orjson.dumps(at | asdict(standing)))


def _print_table(standings: Sequence[Standing]) -> None:
    if standings:
        _tables.show_standings(standings)
    else:
        note("there are no topics")


class _Lines:
    """Lines of JSON, a line a topic each time."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, standings: Sequence[Standing]) -> None:
        _print_lines(standings)

    def missed(self, error: wakeq.ServerUnavailable) -> None:
        note(f"{error.detail}; trying again")


class _Screen:
    """A table that changes in place."""

    def __init__(self) -> None:
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)
        self._last: Sequence[Standing] = ()

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._live.__exit__(*raised)

    def show(self, standings: Sequence[Standing]) -> None:
        self._last = standings
        self._update("")

    def missed(self, error: wakeq.ServerUnavailable) -> None:
        self._update(f"{error.detail}; trying again")

    def _update(self, remark: str) -> None:
        self._live.update(_tables.watched(self._last, self._console, remark), refresh=True)
