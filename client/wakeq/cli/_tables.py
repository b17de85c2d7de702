"""Topics, groups and messages for people."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson
import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

import wakeq
from wakeq.cli import _grid, _values
from wakeq.cli._standing import COUNTS, Standing

# The head of a table, two remarks, and the line of the cursor.
_AROUND = 4


def show_topics(topics: Iterable[wakeq.TopicInfo]) -> None:
    """A line a topic; the counts are those of all its groups together."""
    numbers = (*COUNTS, "oldest", "groups")
    table = _grid.table("name", "schema", *numbers, "delivery", numbers=numbers)
    for info in topics:
        standing = Standing.of(info)
        table.add_row(
            _grid.text(info.name), _schema(info.config.schema), *_numbers(standing.counts),
            _values.age(standing.oldest_age_s), str(len(info.groups)), _delivery(standing.paused),
        )  # fmt: skip
    _grid.show(table)


def show_standings(standings: Sequence[Standing]) -> None:
    """A line a topic, with what comes and goes."""
    _grid.show(_standings_table(standings))


def watched(standings: Sequence[Standing], console: Console, remark: str) -> RenderableType:
    """The same for a terminal: the busiest topics, where there are more than it has lines for."""
    room = max(1, console.height - _AROUND)
    busiest = sorted(standings, key=lambda standing: standing.traffic, reverse=True)[:room]
    table = _standings_table([standing for standing in standings if standing in busiest])
    left_out = len(standings) - len(busiest)
    remarks = [f"and {left_out:,} less busy"] if left_out else []
    remarks += [remark] if remark else [] if standings else ["there are no topics"]
    shown = Text.from_ansi(_grid.rendered(table), no_wrap=True, overflow="crop")
    return Group(shown, Text("\n".join(map(_values.visible, remarks)), overflow="ellipsis", no_wrap=True))


def _standings_table(standings: Iterable[Standing]) -> Table:
    numbers = (*COUNTS, "in/s", "out/s", "oldest")
    table = _grid.table("topic", *numbers, numbers=numbers)
    for standing in standings:
        rates = (standing.published_per_s, standing.delivered_per_s)
        paused = " (paused)" if standing.paused else ""
        table.add_row(
            _grid.text(standing.topic + paused), *_numbers(standing.counts), *(f"{rate:,.1f}" for rate in rates),
            _values.age(standing.oldest_age_s),
        )  # fmt: skip
    return table


def show_topic(info: wakeq.TopicInfo) -> None:
    """Everything about one topic."""
    about = _grid.pairs(
        [
            ("name", info.name),
            ("created", f"{info.created_at:%Y-%m-%d %H:%M:%S} UTC"),
            ("delivery", _delivery(info.paused)),
            ("messages", f"{info.messages:,} ({_values.size(info.bytes)})"),
            *settings(info.raw["config"]).items(),
        ]
    )
    _grid.show(about, Text(""), _groups_table(info.groups.values()))


def show_groups(groups: Iterable[wakeq.GroupInfo]) -> None:
    """A line a group."""
    _grid.show(_groups_table(groups))


def show_message(peeked: wakeq.Peeked) -> None:
    """A line about a message, and its body as it is."""
    parts = [f"#{peeked.seq}", peeked.state, f"published {peeked.published_at:%Y-%m-%d %H:%M:%S} UTC"]
    parts += [f"attempt {peeked.attempt}"] if peeked.attempt else []
    parts += [f"{_DUE[peeked.state]} {peeked.due_at:%Y-%m-%d %H:%M:%S} UTC"] if peeked.due_at else []
    said = {"id": peeked.id, "key": peeked.key, "reason": peeked.reason, **peeked.headers}
    parts += [f"{name}={value}" for name, value in said.items() if value is not None]
    typer.echo(_values.visible("  ".join(parts)))
    typer.echo(_body(peeked))


_DUE = {"ready": "due", "delayed": "ready at", "leased": "leased until", "dead": "died"}


def settings(config: Mapping[str, Any]) -> dict[str, str]:
    """A configuration by the names of the command line's options; what this version doesn't know is shown too."""
    return {_option(name): text for name, text in _flat(config)}


def _flat(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in config.items():
        if name == "retry_backoff_s":
            yield from ((f"retry_{end}_s", _setting(f"retry_{end}_s", value[end])) for end in value)
        else:
            yield name, _setting(name, value)


def _option(field: str) -> str:
    return field.removesuffix("_s").replace("_", "-")


def _setting(name: str, value: Any) -> str:
    if value is None:
        return "the schema's default" if name == "max_message_bytes" else "none"
    if name == "max_deliveries" and value == 0:
        return "no limit"
    if name.endswith("_s") and isinstance(value, int | float):
        return _values.duration(value)
    if name.endswith("_bytes") and isinstance(value, int):
        return _values.exact_size(value)
    return _values.visible(value if isinstance(value, str) else orjson.dumps(value).decode())


def _body(peeked: wakeq.Peeked) -> str:
    if not isinstance(peeked.body, bytes) or peeked.content_type is None:
        return _values.visible(orjson.dumps(peeked.body).decode())
    try:
        return "\n".join(map(_values.visible, peeked.body.decode().split("\n")))
    except UnicodeDecodeError:
        return f"({_values.size(len(peeked.body))} of {peeked.content_type}; --json shows them in base64)"


def _groups_table(groups: Iterable[wakeq.GroupInfo]) -> Table:
    table = _grid.table("group", *COUNTS, "oldest", numbers=(*COUNTS, "oldest"))
    for group in groups:
        counts = [getattr(group, name) for name in COUNTS]
        table.add_row(_grid.text(group.name), *_numbers(counts), _values.age(group.oldest_age_s))
    return table


def _numbers(counts: Iterable[int]) -> list[str]:
    return [f"{count:,}" for count in counts]


def _schema(schema: str | Mapping[str, Any]) -> str:
    return schema if isinstance(schema, str) else "JSON Schema"


def _delivery(paused: bool) -> str:
    return "paused" if paused else "on"
