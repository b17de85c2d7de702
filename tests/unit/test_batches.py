"""What is done for many messages at once is what is done for each by itself."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.core import Bench
from wakeq_server.core.dedup import fingerprint
from wakeq_server.core.model import Delivery, LeaseKey, Message, NewMessage, Settle, TopicConfig
from wakeq_server.errors import InvalidMessage, MessageTooLarge
from wakeq_server.http.publishing import _messages
from wakeq_server.http.wire import deliveries_json, delivery_json, messages_json

OUTCOMES = st.lists(st.sampled_from(["ack", "ack", "ack", "nack", "dead", "release", "extend"]), min_size=1, max_size=8)
NEW = st.sampled_from(
    [NewMessage(b"1"), NewMessage(b"22"), NewMessage(b"3", key="k"), NewMessage(b"4", ttl_s=5.0, headers={"a": "b"})]
)


def standing(bench: Bench) -> Any:
    core, topic = bench.core, bench.core.topic("t")
    return (
        [(*group.describe(bench.now, bench.wall), group.cursor, sorted(group.open)) for group in topic.groups.values()],
        (topic.held_messages, topic.held_bytes, sorted(topic.messages), topic.unheld, core.leased, core.memory_used),
        (
            bool(core.effects.deliverable),
            bool(core.effects.roomier),
            len(core.effects.ended),
            sorted((group.name, seq) for group, seq in core.changed),
        ),
        (sorted(bench.store.messages), sorted(bench.store.histories)),
    )


@settings(max_examples=100, deadline=None)
@given(
    new=st.lists(NEW, min_size=1, max_size=8),
    outcomes=OUTCOMES,
    second=st.booleans(),
    budget=st.sampled_from([1 << 62, 1_300, 0]),
)
def test_leases_that_end_together_end_as_each_by_itself(
    new: list[NewMessage], outcomes: list[str], second: bool, budget: int
) -> None:
    found = []
    for together in (True, False):
        bench = Bench(budget)
        topic = bench.topic("t", TopicConfig(max_messages=10))
        if second:
            bench.group(topic, "second")
        bench.publish(topic, *new)
        group = topic.groups["default"]
        keys = [lease.key.encode() for lease in bench.core.lease(group, bench.core.take(group, 100.0, 8), None, 100.0)]
        lines = [Settle(outcome, key) for outcome, key in zip(outcomes, keys, strict=False)]  # type: ignore[arg-type]
        bench.now += 1.0
        for batch in [lines] if together else [[line] for line in lines]:
            results, settle = bench.core.settle(topic, batch, bench.now, bench.wall)
            assert {result.status for result in results} <= {"ok"}
            bench.write(settle)
        # An outcome that is repeated is known.
        acks = [line for line in lines if line.outcome == "ack"]
        assert {result.status for result in bench.core.settle(topic, acks, bench.now, bench.wall)[0]} <= {"ok"}
        bench.write()
        found.append(standing(bench))
    assert found[0] == found[1]


@pytest.mark.parametrize("wrong", ["", "x", "0-0", "1-0-1", "1-0-x-1-1", "1-9-1-1-1", "1-0-99-1-1", "1-0-1-1-1-1"])
def test_what_is_no_lease_ends_none_of_those_beside_it(wrong: str) -> None:
    bench = Bench()
    topic = bench.topic()
    bench.publish(topic)
    key = bench.claim(topic.groups["default"]).key
    others = [wrong, f"{key.encode()} ", key.encode().replace("-1-", "-01-", 1), key._replace(number=99).encode()]
    results, settle = bench.core.settle(topic, [Settle("ack", one) for one in others], bench.now, bench.wall)
    assert not settle
    for one, result in zip(others, results, strict=True):
        assert result.status == ("unknown" if LeaseKey.decode(one) is None else "stale")


MESSAGES = st.builds(
    lambda seq, body, at, more: Message(seq, body, len(body), at, **more),
    st.integers(1, 1 << 39),
    st.sampled_from([b'"x"', b"{}", b"1"]),
    st.sampled_from([0.0, 1.7e9, 1.7e9 + 0.5]),
    st.sampled_from(
        [
            *[{}] * 4,
            {"headers": {"a": "ż"}},
            {"id": 'i"d'},
            {"key": "k"},
            {"content_type": "text/plain"},
            {"due_at": 1.0, "expires_at": 2.0},
        ]
    ),
)
KEYS = st.builds(LeaseKey, *[st.integers(0, 1 << 40)] * 5)
DELIVERIES = st.builds(Delivery, MESSAGES, KEYS, st.integers(1, 9), st.sampled_from([0.0, 1.7e9, 1.8e9]))


@given(st.lists(DELIVERIES, max_size=6))
def test_deliveries_together_are_written_as_each_by_itself(deliveries: list[Delivery]) -> None:
    text = deliveries_json(deliveries)
    assert text == messages_json(map(delivery_json, deliveries))
    assert [one["lease_id"] for one in orjson.loads(text)["messages"]] == [one.lease.encode() for one in deliveries]


def test_what_is_kept_of_an_idempotent_publish_stays_what_it_was() -> None:
    """Keys outlive an upgrade of the server."""
    new = [NewMessage(b"{}"), NewMessage(b"x", "text/plain", {"b": "1", "a": "2"}, "i", "k", 1.5, 2.0)]
    assert fingerprint(new).hex() == "40b4ec030a02e2390f9e78a2f9dca638"


@pytest.mark.parametrize("schema", ["json", "any"])
def test_of_a_batch_the_first_line_that_is_wrong_is_named(schema: str) -> None:
    config = TopicConfig(schema=schema, max_message_bytes=9)  # type: ignore[arg-type]
    lines = list(enumerate([b"1", b'"two"', b"[3]", b"nul", b'"a long one"'], 1))
    assert _messages(config, lines[:3], "k") == [NewMessage(line) for _, line in lines[:3]]
    with pytest.raises(InvalidMessage, match="line 4"):
        _messages(config, lines, "k")
    with pytest.raises(MessageTooLarge, match="line 5"):
        _messages(config, [*lines[:3], lines[4]], "k")
