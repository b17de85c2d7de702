"""`wakeq topics`."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

import wakeq
from wakeq._connection import DEFAULT_URL
from wakeq.cli import _tables, _values
from wakeq.cli._style import STYLE
from wakeq.cli._talk import (
    DEFAULT_GROUP,
    Group,
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

app = typer.Typer(no_args_is_help=True, help="Make, configure, look at and look after topics.", **STYLE)


def _setting(flag: str, parser: Any, metavar: str, about: str) -> Any:
    return typer.Option(flag, parser=parser, metavar=metavar, help=about, show_default=False)


Schema = Annotated[
    Any,
    _setting(
        "--schema", _values.schema, "NAME|FILE", "queue_message, json, any, or a file with the JSON Schema of a body."
    ),
]
Lease = Annotated[Any, _setting("--lease", _values.seconds, "DURATION", "How long a claimed message stays hidden.")]
MaxDeliveries = Annotated[
    int | None,
    typer.Option("--max-deliveries", metavar="N", help="Deliveries after which a message is dead; 0: no limit."),
]
RetryMin = Annotated[
    Any, _setting("--retry-min", _values.seconds, "DURATION", "Delay after a first nack; doubles with each attempt.")
]
RetryMax = Annotated[Any, _setting("--retry-max", _values.seconds, "DURATION", "Longest delay after a nack.")]
DeadTtl = Annotated[Any, _setting("--dead-ttl", _values.seconds, "DURATION", "How long dead letters are kept.")]
DeadLetterTopic = Annotated[
    Any, _setting("--dead-letter-topic", _values.name_or_none, "TOPIC|none", "Where dead letters go; none: they stay.")
]
Ttl = Annotated[
    Any, _setting("--ttl", _values.seconds_or_none, "DURATION|none", "When an undelivered message is dropped.")
]
MaxMessages = Annotated[
    Any, _setting("--max-messages", _values.count_or_none, "N|none", "Unsettled messages before publishes are refused.")
]
MaxBytes = Annotated[
    Any, _setting("--max-bytes", _values.bytes_or_none, "SIZE|none", "Bytes of theirs before publishes are refused.")
]
MaxMessageBytes = Annotated[
    Any,
    _setting("--max-message-bytes", _values.bytes_or_none, "SIZE|none", "Largest body; none: as the schema has it."),
]
DedupWindow = Annotated[
    Any, _setting("--dedup-window", _values.seconds, "DURATION", "How long an idempotency key is remembered.")
]


@app.command()
def create(
    topic: Topic,
    schema: Schema = None,
    lease_s: Lease = None,
    max_deliveries: MaxDeliveries = None,
    retry_min: RetryMin = None,
    retry_max: RetryMax = None,
    dead_ttl_s: DeadTtl = None,
    dead_letter_topic: DeadLetterTopic = None,
    ttl_s: Ttl = None,
    max_messages: MaxMessages = None,
    max_bytes: MaxBytes = None,
    max_message_bytes: MaxMessageBytes = None,
    dedup_window_s: DedupWindow = None,
    if_not_exists: IfNotExists = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Make a topic. What isn't named has the server's default. Durations: 30, 30s, 5m, 2h, 14d."""
    config = _named(locals())

    async def work(client: wakeq.AsyncClient) -> bool:
        try:
            await client.topic(topic)
        except wakeq.TopicNotFound:
            await client.create_topic(topic, **config)
            return True
        return False

    if talk(url, work, topic):
        say(f"created topic {topic}")
    elif if_not_exists:
        say(f"topic {topic} exists; it was left as it is")
    else:
        fail(f"topic {topic} exists", "`wakeq topics configure` changes it; --if-not-exists leaves it as it is")


@app.command()
def configure(
    topic: Topic,
    schema: Schema = None,
    lease_s: Lease = None,
    max_deliveries: MaxDeliveries = None,
    retry_min: RetryMin = None,
    retry_max: RetryMax = None,
    dead_ttl_s: DeadTtl = None,
    dead_letter_topic: DeadLetterTopic = None,
    ttl_s: Ttl = None,
    max_messages: MaxMessages = None,
    max_bytes: MaxBytes = None,
    max_message_bytes: MaxMessageBytes = None,
    dedup_window_s: DedupWindow = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Change the named settings of a topic, and leave the others. Durations: 30, 30s, 5m, 2h, 14d."""
    changes = _named(locals())
    if not changes:
        fail("no setting was named", "see wakeq topics configure --help", code=2)

    async def work(client: wakeq.AsyncClient) -> tuple[wakeq.TopicInfo, wakeq.TopicInfo]:
        return await client.topic(topic), await client.configure_topic(topic, **changes)

    before, after = (_tables.settings(info.raw["config"]) for info in talk(url, work, topic))
    changed = [f"{name}: {before.get(name)} → {after[name]}" for name in after if after[name] != before.get(name)]
    for line in changed:
        say(line)
    if not changed:
        say(f"topic {topic} is so already; nothing was changed")


_SETTINGS = (
    "schema",
    "lease_s",
    "max_deliveries",
    "dead_ttl_s",
    "dead_letter_topic",
    "ttl_s",
    "max_messages",
    "max_bytes",
    "max_message_bytes",
    "dedup_window_s",
)


def _named(given: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that the options name, as it goes to the server."""
    config = {name: given[name] for name in _SETTINGS if given[name] is not None}
    backoff = {end: given[f"retry_{end}"] for end in ("min", "max") if given[f"retry_{end}"] is not None}
    if backoff:
        config["retry_backoff_s"] = backoff
    return {name: None if value is _values.NONE else value for name, value in config.items()}


@app.command("list")
def list_(as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Show all topics, a line each. The counts are those of all groups together."""

    async def work(client: wakeq.AsyncClient) -> list[wakeq.TopicInfo]:
        return [info async for info in client.topics()]

    topics = talk(url, work)
    if as_json:
        print_json({"topics": [info.raw for info in topics]})
    elif topics:
        _tables.show_topics(topics)
    else:
        note("there are no topics")


@app.command()
def show(topic: Topic, as_json: Json = False, url: Url = DEFAULT_URL) -> None:
    """Show a topic: its settings, and how each of its groups stands."""
    info = talk(url, lambda client: client.topic(topic), topic)
    if as_json:
        print_json(info.raw)
    else:
        _tables.show_topic(info)


@app.command()
def delete(topic: Topic, yes: Yes = False, url: Url = DEFAULT_URL) -> None:
    """Drop a topic with all its messages and groups."""
    asking = must_ask(yes)
    held = _held(talk(url, lambda client: client.topic(topic), topic))
    if asking:
        ask(f"Delete topic {topic} with {held}?")
    talk(url, lambda client: client.delete_topic(topic), topic)
    say(f"deleted topic {topic} with {held}")


def _held(info: wakeq.TopicInfo) -> str:
    dead = sum(group.dead for group in info.groups.values())
    return f"{counted(info.messages, 'message')} and {counted(dead, 'dead letter')}"


@app.command()
def purge(topic: Topic, group: Group = DEFAULT_GROUP, yes: Yes = False, url: Url = DEFAULT_URL) -> None:
    """Drop what is ready or delayed in a group. Leased messages and dead letters stay."""
    if must_ask(yes):
        standing = talk(url, lambda client: client.group(topic, group), topic)
        ask(f"Drop {counted(standing.ready + standing.delayed, 'message')} of topic {topic}, group {group}?")
    purged = talk(url, lambda client: client.purge(topic, group=group), topic)
    say(f"purged {counted(purged, 'message')} of topic {topic}, group {group}")


@app.command()
def pause(topic: Topic, url: Url = DEFAULT_URL) -> None:
    """Stop delivery; publishes and settles go on, and consumers wait."""
    info = talk(url, lambda client: client.pause(topic), topic)
    say(f"paused topic {topic}; it holds {counted(info.messages, 'message')}")


@app.command()
def resume(topic: Topic, url: Url = DEFAULT_URL) -> None:
    """Start delivery again."""
    info = talk(url, lambda client: client.resume(topic), topic)
    say(f"resumed topic {topic}; it holds {counted(info.messages, 'message')}")
