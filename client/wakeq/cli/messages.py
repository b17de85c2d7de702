"""`wakeq peek` and `wakeq redrive`."""

from typing import Annotated, Literal

import orjson
import typer

from wakeq._connection import DEFAULT_URL
from wakeq.cli import _tables
from wakeq.cli._talk import DEFAULT_GROUP, Group, Topic, Url, counted, note, say, talk


def peek(
    topic: Topic,
    state: Annotated[Literal["ready", "delayed", "leased", "dead"], typer.Option(help="Which messages.")] = "ready",
    group: Group = DEFAULT_GROUP,
    limit: Annotated[int, typer.Option(metavar="N", help="At most so many, to 100.")] = 20,
    after: Annotated[int, typer.Option(metavar="SEQ", help="Only those behind this sequence number.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the server's JSON, a line a message.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Show messages, and take none."""
    found = talk(url, lambda client: client.peek(topic, state=state, group=group, after=after, limit=limit), topic)
    for peeked in found:
        if as_json:
            typer.echo(orjson.dumps(peeked.raw))
        else:
            _tables.show_message(peeked)
    if not found:
        behind = f" behind {after}" if after else ""
        note(f"no message of topic {topic}, group {group}, is {state}{behind}")
    elif len(found) == limit:
        note(f"there may be more: --after {found[-1].seq}")


def redrive(
    topic: Topic,
    group: Group = DEFAULT_GROUP,
    most: Annotated[int | None, typer.Option("--max", metavar="N", min=1, help="At most so many; the oldest.")] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Make a group's dead letters ready again. They are as if they had never been delivered."""
    done = talk(url, lambda client: client.redrive(topic, group=group, max=most), topic)
    moved = counted(done.moved, "dead letter")
    say(f"redrove {moved} of topic {topic}, group {group}; {done.remaining:,} remain")
