"""Values as people write and read them on the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from wakeq.cli import _values


def refused(parse: Callable[[str], Any], text: str) -> str:
    with pytest.raises(typer.BadParameter) as refusal:
        parse(text)
    return refusal.value.message


DURATIONS = [
    ("30", 30.0), ("1.5", 1.5), ("0", 0.0), ("30s", 30.0), ("5m", 300.0), ("2h", 7_200.0), ("14d", 1_209_600.0),
    ("500ms", 0.5), ("1.5h", 5_400.0), ("1h30m", 5_400.0), ("1d2h3m4s5ms", 93_784.005), (" 5M ", 300.0),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), DURATIONS)
def test_durations(text: str, value: float) -> None:
    assert _values.seconds(text) == pytest.approx(value, rel=1e-12)
    assert _values.seconds_or_none(text) == _values.seconds(text)


@pytest.mark.parametrize(
    "text", ["", "s", "5x", "-5", "5 m", "1e3", "inf", "nan", "5m!", "m5", "٣", "none", "1.s", "9" * 400]
)
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    assert "30, 30s, 5m, 2h, 14d" in refused(_values.seconds, text)


def test_none_is_said_where_it_may_be() -> None:
    for parse in (_values.seconds_or_none, _values.count_or_none, _values.bytes_or_none, _values.name_or_none):
        assert parse("none") is parse("None") is _values.NONE


@given(st.integers(0, 10**12))
def test_a_duration_is_shown_as_it_can_be_typed(milliseconds: int) -> None:
    assert _values.seconds(_values.duration(milliseconds / 1_000)) == pytest.approx(milliseconds / 1_000, abs=1e-6)


SHOWN = [
    (0, "0s"), (0.5, "0.5s"), (30, "30s"), (60, "1m"), (90, "1m30s"), (1_209_600, "14d"), (3_600.25, "1h0.25s"),
    (120.1, "2m0.1s"), (93_784, "1d2h3m4s"), (0.000001, "0.000001s"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), SHOWN)
def test_durations_are_shown_whole(value: float, text: str) -> None:
    assert _values.duration(value) == text


AGES = [
    (None, "-"), (0.9, "0s"), (59.9, "59s"), (60, "1m"), (192.7, "3m12s"), (3_599, "59m59s"), (3_661, "1h1m"),
    (86_399, "23h59m"), (93_784, "1d2h"), (90_000_000, "1041d16h"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), AGES)
def test_ages_have_their_two_largest_units(value: float | None, text: str) -> None:
    assert _values.age(value) == text


SIZES = [("0", 0), ("65536", 65_536), ("64KiB", 65_536), ("1mib", 1 << 20), ("2 GiB", 2 << 30)]


@pytest.mark.parametrize(("text", "value"), SIZES)
def test_sizes(text: str, value: int) -> None:
    assert _values.bytes_or_none(text) == value


@pytest.mark.parametrize("text", ["", "1.5MiB", "1MB", "-1", "KiB", "٣", "9" * 5_000])
def test_what_is_no_size_is_refused_with_examples(text: str) -> None:
    assert "64KiB" in refused(_values.bytes_or_none, text)


@given(st.integers(0, 1 << 40))
def test_a_size_is_shown_as_it_can_be_typed(value: int) -> None:
    assert _values.bytes_or_none(_values.exact_size(value)) == value


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (1_023, "1023 B"), (1_024, "1 KiB"), (1_536, "1.5 KiB"), (64 << 20, "64 MiB")]
)
def test_sizes_are_shown_about(value: int, text: str) -> None:
    assert _values.size(value) == text


def test_counts() -> None:
    assert _values.count_or_none("12") == 12
    for text in ("", "1.5", "-1", "x", "9" * 5_000):
        assert "whole number" in refused(_values.count_or_none, text)


def test_names_are_one_segment_of_a_path() -> None:
    for name in ("a", "..", "a b", "ü"):
        assert _values.name(name) == _values.name_or_none(name) == name
    for name in ("", "a/b"):
        assert "1 to 255 characters" in refused(_values.name, name)
    assert "UTF-8" in refused(_values.name, "\udcff")


def test_a_schema_is_a_name_or_a_file(tmp_path: Path) -> None:
    for name in ("queue_message", "json", "any"):
        assert _values.schema(name) == name
    file = tmp_path / "schema.json"
    file.write_text(json.dumps({"type": "object"}))
    assert _values.schema(str(file)) == {"type": "object"}
    file.write_text("{")
    assert "is not JSON" in refused(_values.schema, str(file))
    file.write_bytes(b"\xff")
    assert "is not JSON" in refused(_values.schema, str(file))
    file.write_text("[]")
    assert "an object" in refused(_values.schema, str(file))
    assert "No such file" in refused(_values.schema, str(tmp_path / "none"))
    assert "queue_message, json, any" in refused(_values.schema, str(tmp_path))


def test_what_could_do_something_to_a_terminal_is_spelled_out() -> None:
    assert _values.visible("a\x1b[2J\n\x9b\u202e\ud800 ü日") == "a\\x1b[2J\\n\\x9b\\u202e\\ud800 ü日"
