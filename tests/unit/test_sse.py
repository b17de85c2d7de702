"""The parser of server-sent events: whatever the pieces, the events are those of the whole."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wakeq._sse import ServerSentEvent, SSEParser

Events = list[tuple[str, str, str]]

BOM = b"\xef\xbb\xbf"

# What a stream says, and what is in it: event, data, id.
STREAMS: list[tuple[bytes, Events]] = [
    (b"", []),
    (b"\n\n\n", []),
    (b"data: a\n\n", [("message", "a", "")]),
    (b"data: a\ndata: b\n\n", [("message", "a\nb", "")]),
    (b"data: a\n\ndata: b\n\n", [("message", "a", ""), ("message", "b", "")]),
    (b"id: 1\nevent: x\ndata: a\n\n", [("x", "a", "1")]),
    (b"event: x\n\ndata: a\n\n", [("message", "a", "")]),
    (b"event:\ndata: a\n\n", [("message", "a", "")]),
    (b"event: x\nevent: y\ndata: a\n\n", [("y", "a", "")]),
    (
        b"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n",
        [("message", "a", "1"), ("message", "b", "1"), ("message", "c", "")],
    ),
    (b"id: 1\n\ndata: a\n\n", [("message", "a", "1")]),
    (b"id: 1\nid: 2\0\ndata: a\n\n", [("message", "a", "1")]),
    (b"data\n\n", [("message", "", "")]),
    (b"data:\ndata\n\n", [("message", "\n", "")]),
    (b"data:a\ndata:  b\ndata:\tc\n\n", [("message", "a\n b\n\tc", "")]),
    (b"data: a: b\n\n", [("message", "a: b", "")]),
    (b":\n\n: ping\ndata: a\n:\n\n", [("message", "a", "")]),
    (b" data: a\nData: b\nnothing: c\ndata : d\n\n", []),
    (b"data: \xc3\xbc \xf0\x9f\x98\x80 \xe2\x80\xa8\n\n", [("message", "ü \U0001f600 \u2028", "")]),
    (b"data: \xff\n\n", [("message", "\ufffd", "")]),
    (b"data: a\x0b\x0c\x1c\x85\n\n", [("message", "a\x0b\x0c\x1c\ufffd", "")]),
    (BOM + b"data: a\n\n" + BOM + b"data: b\n\n", [("message", "a", "")]),
    (BOM + BOM + b"data: a\n\ndata: b\n\n", [("message", "b", "")]),
    (b"data: a\n\ndata: never finished", [("message", "a", "")]),
    (b"data: a\n\ndata: not dispatched\n", [("message", "a", "")]),
    (b"data: a\r\n\r\ndata: b\r\r\ndata: c\n\r\n", [("message", "a", ""), ("message", "b", ""), ("message", "c", "")]),
    (b"data: a\rdata: b\r\ndata: c\n\rx", [("message", "a\nb\nc", "")]),
]


def parse(*pieces: bytes) -> tuple[Events, int | None]:
    """The events of a stream that comes in these pieces, and its retry."""
    parser = SSEParser()
    found = [event for piece in pieces for event in parser.feed(piece)]
    return [(event.event, event.data, event.id) for event in found], parser.retry_ms


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


@pytest.mark.parametrize(("data", "events"), STREAMS, ids=lambda value: repr(value)[:40])
def test_a_stream_whole_and_byte_by_byte(data: bytes, events: Events) -> None:
    assert parse(data)[0] == events
    assert parse(*bytewise(data))[0] == events


@pytest.mark.parametrize("line_end", [b"\r", b"\r\n"], ids=repr)
@pytest.mark.parametrize(
    ("data", "events"), [case for case in STREAMS if b"\r" not in case[0]], ids=lambda value: repr(value)[:40]
)
def test_line_ends_are_all_the_same(data: bytes, events: Events, line_end: bytes) -> None:
    changed = data.replace(b"\n", line_end)
    assert parse(changed)[0] == events
    assert parse(*bytewise(changed))[0] == events


def test_an_event_is_given_with_its_last_line_end_and_not_before() -> None:
    parser = SSEParser()
    assert parser.feed(b"data: a\r\n\r") == [ServerSentEvent("message", "a", "")]
    assert parser.feed(b"\n") == []
    assert parser.feed(b"data: b\n") == []
    assert parser.feed(b"\n") == [ServerSentEvent("message", "b", "")]


def test_an_empty_piece_changes_nothing() -> None:
    assert parse(b"data: a\r", b"", b"\n", b"", b"\r", b"")[0] == [("message", "a", "")]


@pytest.mark.parametrize(
    ("data", "retry_ms"),
    [
        (b"retry: 1500\n", 1_500),
        (b"retry:0\n\n", 0),
        (b"retry: 1\nretry: 2\n", 2),
        (b"retry: 5\nretry: -1\nretry: 1.5\nretry: x\nretry\nretry: \nretry:  6\n", 5),
        ("retry: ٣\nretry: ²\n".encode(), None),
        (b"retry: 7", None),
        (b"data: a\n\n", None),
    ],
)
def test_retry_is_a_number_of_digits(data: bytes, retry_ms: int | None) -> None:
    assert parse(data)[1] == retry_ms
    assert parse(*bytewise(data))[1] == retry_ms


def reference(data: bytes) -> Events:
    """The standard's algorithm, on a stream that is there as a whole."""
    events: Events = []
    event, values, last_id = "", list[str](), ""
    lines = re.split(r"\r\n|\r|\n", data.removeprefix(BOM).decode(errors="replace"))[:-1]
    for line in lines:
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if not line:
            events += [(event or "message", "\n".join(values), last_id)] if values else []
            event, values = "", []
        elif name == "data":
            values.append(value)
        elif name == "event":
            event = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return events


_WORDS = [b"data", b"event", b"id", b"retry", b":", b": ", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"x", b"\0", b"7", BOM]
streams = st.lists(st.sampled_from(_WORDS) | st.binary(max_size=3), max_size=40).map(b"".join)


@given(streams, st.data())
def test_any_split_gives_the_events_of_the_whole(data: bytes, draw: st.DataObject) -> None:
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=8)))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    assert parse(*pieces)[0] == parse(*bytewise(data))[0] == reference(data)


def test_a_long_line_costs_in_proportion_to_its_length() -> None:
    piece, count = b"x" * 4_096, 8_192
    parser = SSEParser()
    parser.feed(b"data: ")
    began = time.monotonic()
    for _ in range(count):
        parser.feed(piece)
    (event,) = parser.feed(b"\n\n")
    assert len(event.data) == len(piece) * count
    # Copying what has come with each piece would be 128 GB.
    assert time.monotonic() - began < 5.0
