"""`wakeq groups`."""

from typing import Annotated

import typer

import wakeq
from wakeq._connection import DEFAULT_URL
from wakeq.cli import _tables, _values
from wakeq.cli._style import STYLE
from wakeq.cli._talk import (
    IfNotExists,
    Json,
    Topic,
    Url,
    Yes,
    ask,
    counted,
    fail,
    must_ask,
    note,
    print_json,
    say,
    talk,
)

app = typer.Typer(no_args_is_help=True, help="Make, show and delete the groups of a topic.", **STYLE)

Name = Annotated[
    str, typer.Argument(parser=_values.name, metavar="GROUP", help="The group's name.", show_default=False)
]


@app.command()
def create(topic: Topic, group: Name, if_not_exists: IfNotExists = False, url: Url = DEFAULT_URL) -> None:
    """Make a group, which gets every message published from now on."""

    async def work(client: wakeq.AsyncClient) -> bool:
        try:
            await client.group(topic, group)
        except wakeq.GroupNotFound:
            await client.put_group(topic, group)
            return True
        return False

    if talk(url, work, topic):
        say(f"created group {group} of topic {topic}")
    elif if_not_exists:
        say(f"group {group} of topic {topic} exists; it was left as it is")
    else:
        fail(f"group {group} of topic {topic} exists", "--if-not-exists leaves it as it is")


@app.command("list")
def list_(topic: Topic, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Show a topic's groups, a line each."""
    info = talk(url, lambda client: client.topic(topic), topic)
    if as_json:
        print_json(info.raw["groups"])
    elif info.groups:
        _tables.show_groups(info.groups.values())
    else:
        note(f"topic {topic} has no groups, so its messages go nowhere")


@app.command()
def delete(topic: Topic, group: Name, yes: Yes = False, url: Url = DEFAULT_URL) -> None:
    """Drop a group, with the messages that only it still needed."""
    asking = must_ask(yes)
    standing = talk(url, lambda client: client.group(topic, group), topic)
    undone = counted(standing.ready + standing.delayed + standing.leased, "message")
    held = f"{undone} and {counted(standing.dead, 'dead letter')}"
    if asking:
        ask(f"Delete group {group} of topic {topic} with {held}?")
    talk(url, lambda client: client.delete_group(topic, group), topic)
    say(f"deleted group {group} of topic {topic} with {held}")
