"""`wakeq publish`."""

import os
import sys
from typing import Annotated, Any

import orjson
import typer

from wakeq._async_client import DEFAULT_URL
from wakeq.cli import _values
from wakeq.cli._talk import Topic, Url, fail, say, talk


def publish(
    topic: Topic,
    body: Annotated[
        str, typer.Argument(metavar="BODY", help="The message; - is what stdin has.", show_default=False)
    ] = "-",
    raw: Annotated[bool, typer.Option("--raw", help="Bytes as they are, for a topic whose schema is any.")] = False,
    delay_s: Annotated[
        Any, typer.Option("--delay", parser=_values.seconds, metavar="DURATION", help="Not delivered before.")
    ] = None,
    ttl_s: Annotated[
        Any, typer.Option("--ttl", parser=_values.seconds, metavar="DURATION", help="Dropped undelivered after.")
    ] = None,
    key: Annotated[
        Any,
        typer.Option(parser=_values.utf8, metavar="KEY", help="Ordering key: of each, one message is out at a time."),
    ] = None,
    idempotency_key: Annotated[
        Any, typer.Option(parser=_values.utf8, metavar="KEY", help="A publish that comes again enqueues nothing.")
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Publish a message: a JSON value, or with --raw any bytes."""
    content = sys.stdin.buffer.read() if body == "-" else os.fsencode(body)
    published = talk(
        url,
        lambda client: client.publish(
            topic,
            content if raw else _json(content),
            delay_s=delay_s,
            ttl_s=ttl_s,
            key=key,
            idempotency_key=idempotency_key,
        ),
        topic,
    )
    say(f"published message {published.first_seq} to topic {topic}")


def _json(content: bytes) -> orjson.Fragment:
    """The body as it is written, once it is known to be JSON."""
    try:
        orjson.loads(content)
    except orjson.JSONDecodeError as error:
        hint = "a string needs its quotes, as in '\"hello\"'; --raw publishes bytes to a topic whose schema is any"
        fail(f"the body is not JSON: {error}", hint, code=2)
    return orjson.Fragment(content)
