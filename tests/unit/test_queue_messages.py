"""A message of llama_deploy's is completed without its model where that is plain, to what the model makes of it."""

import json
import uuid
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wakeq_server.errors import InvalidMessage
from wakeq_server.http import schemas
from wakeq_server.http.schemas import ActionTypes, QueueMessage

JSON = b"application/json"
numbers = st.integers() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
times = st.none() | st.text() | values
stats = st.dictionaries(
    st.sampled_from(["publish_time", "process_start_time", "process_end_time", "other"]), times, max_size=3
)
messages = st.fixed_dictionaries(
    {"id_": st.text()},
    optional={
        "publisher_id": st.text() | values,
        "data": st.dictionaries(st.text(), values, max_size=3) | values,
        "action": st.sampled_from([action.value for action in ActionTypes]) | values,
        "stats": stats | values,
        "type": st.text() | values,
        "more": values,
    },
)


def by_the_model(body: bytes) -> bytes | None:
    """None where it refuses."""
    try:
        return QueueMessage.model_validate_json(body).model_dump_json().encode()
    except ValueError:
        return None


def completed(body: bytes) -> bytes | None:
    try:
        return schemas.new_message("queue_message", body, JSON).body
    except InvalidMessage:
        return None


def dumped(value: Any) -> bytes:

    return json.dumps(value, ensure_ascii=False).encode()


@given(messages)
def test_it_is_what_the_model_says(message: dict[str, Any]) -> None:
    body = dumped(message)
    assert completed(body) == by_the_model(body)


@given(st.text("0123456789.-+eE", min_size=1, max_size=25))
def test_numbers_are_what_the_model_says(number: str) -> None:
    body = b'{"id_":"a","data":{"n":%b}}' % number.encode()
    assert completed(body) == by_the_model(body)


@pytest.mark.parametrize(
    "text",
    [r"\u0000\u001f\u007f", r"\/\b\f\n\r\t\"\\", r"\u00e4\ud83d\ude00", "\u2028\x7f", r"\u2028"],
)
def test_text_is_what_the_model_says(text: str) -> None:
    body = b'{"id_":"a","type":"%b"}' % text.encode()
    assert completed(body) == by_the_model(body)


@pytest.mark.parametrize("depth", [1, 150, 240])
def test_deep_data_is_kept(depth: int) -> None:
    body = b'{"id_":"a","data":{"a":%b1%b}}' % (b"[" * depth, b"]" * depth)
    assert orjson.loads(completed(body) or b"")["data"] == orjson.loads(body)["data"]


def test_ids_differ_and_are_uuids() -> None:
    ids = [orjson.loads(completed(b"{}") or b"")["id_"] for _ in range(1_000)]
    assert len(set(ids)) == 1_000
    assert all(str(uuid.UUID(one, version=4)) == one for one in ids)
