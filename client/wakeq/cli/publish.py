"""`wakeq publish`."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import orjson
import typer

import wakeq
from wakeq._connection import DEFAULT_URL
from wakeq.cli import _values
from wakeq.cli._ndjson import publish_lines
from wakeq.cli._talk import Topic, Url, fail, note, say, talk

_ONE_VALUE = "a string needs its quotes, as in '\"hello\"'; --raw publishes bytes to a topic whose schema is any"
_MANY_VALUES = "--ndjson publishes a message a line"


def publish(
    topic: Topic,
    body: Annotated[
        str | None,
        typer.Argument(metavar="BODY", help="The message; without it, or as -, what stdin has.", show_default=False),
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE", help="The message is what this file has.")
    ] = None,
    ndjson: Annotated[
        bool, typer.Option("--ndjson", help="A message a line, from --file or stdin; published in batches, in order.")
    ] = False,
    lenient: Annotated[
        bool, typer.Option("--lenient", help="With --ndjson: leave out and name the lines that are refused, and go on.")
    ] = False,
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
    header: Annotated[
        list[Any] | None,
        typer.Option(parser=_values.header, metavar="NAME=VALUE", help="A header, handed over with it. Repeatable."),
    ] = None,
    idempotency_key: Annotated[
        Any, typer.Option(parser=_values.utf8, metavar="KEY", help="A publish that comes again enqueues nothing.")
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Publish a message: a JSON value, or with --raw any bytes; or many, a JSON value a line, with --ndjson."""
    if file is not None and body is not None:
        fail("there are two messages, BODY and --file", "give one of them", code=2)
    if lenient and not ndjson:
        fail("--lenient says what to do with lines", "add --ndjson", code=2)
    attributes = {"delay_s": delay_s, "ttl_s": ttl_s, "key": key, "headers": dict(header or ())}
    if ndjson:
        _refuse_with_ndjson(
            {
                "BODY": body not in (None, "-"),
                "--raw": raw,
                "--idempotency-key": idempotency_key is not None,
            }
        )
        with _opened(file) as source:
            publish_lines(url, topic, source, attributes, lenient=lenient)
        return
    content = _content(body, file)
    message = content if raw else _json(content)

    async def work(client: wakeq.AsyncClient) -> wakeq.Published:
        try:
            return await client.publish(topic, message, **attributes, idempotency_key=idempotency_key)
        except wakeq.InvalidMessage:
            # A body is looked at before its topic is looked for; who mistyped the topic is to be told that first.
            await client.topic(topic)
            raise

    published = talk(url, work, topic)
    say(f"published message {published.first_seq} to topic {topic}")


def _refuse_with_ndjson(given: Mapping[str, object]) -> None:
    for option, is_given in given.items():
        if is_given:
            fail(f"{option} is about one message, and --ndjson reads many", "leave out one of them", code=2)


def _content(body: str | None, file: str | None) -> bytes:
    if body not in (None, "-"):
        return os.fsencode(str(body))
    with _opened(file) as source:
        return source.read()


@contextmanager
def _opened(file: str | None) -> Iterator[BinaryIO]:
    if file in (None, "-"):
        if sys.stdin is None:
            fail("there is no message: stdin is closed", "give BODY or --file", code=2)
        if sys.stdin.isatty():
            note("reading from the terminal; Ctrl-D on an empty line ends it")
        yield sys.stdin.buffer
        return
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(Path(str(file)).open("rb"))
        except OSError as error:
            fail(f"{file} can't be read: {error.strerror}", "--file names what has the message", code=2)
        yield opened


def _json(content: bytes) -> orjson.Fragment:
    """The body as it is written, once it is known to be JSON."""
    if not content.strip():
        fail("the body is empty", _ONE_VALUE, code=2)
    try:
        orjson.loads(content)
    except orjson.JSONDecodeError as error:
        hint = _MANY_VALUES if error.lineno > 1 and error.msg.startswith("unexpected content") else _ONE_VALUE
        fail(f"the body is not JSON: {error.msg}, line {error.lineno}, column {error.colno}", hint, code=2)
    return orjson.Fragment(content)
