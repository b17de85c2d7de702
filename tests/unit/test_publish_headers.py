"""What of a publish fits in headers, and what is refused before it is sent."""

from typing import Any

import pytest

import wakeq
from wakeq._attributes import publish_headers


def headers(
    delay_s: float | None = None, ttl_s: float | None = None, key: str | None = None, **more: Any
) -> dict[bytes, bytes]:
    return dict(publish_headers(delay_s, ttl_s, key, more.get("headers", {}), more.get("idempotency_key")))


def test_nothing_is_said_unless_it_is_given() -> None:
    assert headers() == {}


def test_everything_has_its_header() -> None:
    said = headers(0.0, 1.5, "", headers={"A-b": "ü", "TraceParent": "t"}, idempotency_key="i")
    assert said == {
        b"wakeq-delay": b"0.0",
        b"wakeq-ttl": b"1.5",
        b"wakeq-ordering-key": b"",
        b"idempotency-key": b"i",
        b"wakeq-h-a-b": "ü".encode(),
        b"traceparent": b"t",
    }


@pytest.mark.parametrize("value", [" a", "a\t", "a\nb", "\0", "\x7f", "\ud800"], ids=ascii)
def test_values_that_would_not_arrive_as_they_are_are_refused_by_name(value: str) -> None:
    for given, name in (
        ({"key": value}, "key"),
        ({"idempotency_key": value}, "idempotency_key"),
        ({"headers": {"h": value}}, "headers.h"),
    ):
        with pytest.raises(wakeq.BadRequest, match=rf"^{name}: ") as refused:
            headers(**given)
        assert (refused.value.code, refused.value.status) == ("BAD_REQUEST", 400)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "ü", "a\n"], ids=ascii)
def test_names_that_no_header_can_have_are_refused(name: str) -> None:
    with pytest.raises(wakeq.BadRequest, match=r"^headers: "):
        headers(headers={name: "v"})
