"""Values as people write and read them: durations, sizes, names, schemas."""

import json
import re
from pathlib import Path
from typing import Any

import typer

_UNITS_S = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
# More digits than any limit has, and few enough for a float and an int.
_DIGITS = "[0-9]{1,15}"
_NUMBER = re.compile(rf"{_DIGITS}(?:\.{_DIGITS})?")
_COUNT = re.compile(_DIGITS)
_ONE = re.compile(rf"({_NUMBER.pattern})(ms|[dhms])")
_WHOLE = re.compile(rf"(?:{_ONE.pattern})+")
_BYTES = {"": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_LARGE = ("GiB", "MiB", "KiB")
_SIZE = re.compile(rf"({_DIGITS})\s*(|kib|mib|gib)", re.IGNORECASE)
_SCHEMAS = ("queue_message", "json", "any")


class _NoneGiven:
    """`none` on the command line, which is not the same as an option that isn't there."""


NONE = _NoneGiven()


def seconds(text: str) -> float:
    """`30`, `1.5`, `500ms`, `30s`, `5m`, `2h`, `14d`, or several together as in `1h30m`."""
    lowered = text.strip().lower()
    if _NUMBER.fullmatch(lowered):
        return float(lowered)
    if not _WHOLE.fullmatch(lowered):
        raise typer.BadParameter(f"{text!r} is no duration; write 30, 30s, 5m, 2h, 14d, 500ms or 1h30m")
    return sum(float(number) * _UNITS_S[unit] for number, unit in _ONE.findall(lowered))


def seconds_or_none(text: str) -> Any:
    """A duration, or `none`."""
    return NONE if _is_none(text) else seconds(text)


def count_or_none(text: str) -> Any:
    """A whole number, or `none`."""
    if _is_none(text):
        return NONE
    if not _COUNT.fullmatch(text.strip()):
        raise typer.BadParameter(f"{text!r} is no whole number, nor none")
    return int(text)


def bytes_or_none(text: str) -> Any:
    """A number of bytes, `64KiB`, `1MiB`, `1GiB`, or `none`."""
    if _is_none(text):
        return NONE
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no number of bytes; write 65536, 64KiB, 1MiB, 1GiB or none")
    return int(match[1]) * _BYTES[match[2].lower()]


def name(text: str) -> str:
    """A name that a topic or a group may have: others would ask for another path."""
    if not text or "/" in text:
        raise typer.BadParameter("a name has 1 to 255 characters, none of them / or a control character")
    return utf8(text)


def name_or_none(text: str) -> Any:
    """A topic's name, or `none`."""
    return NONE if _is_none(text) else name(text)


def utf8(text: str) -> str:
    """Text that can be sent: the shell may give bytes that are none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("must be UTF-8") from None
    return text


def header(text: str) -> Any:
    """`NAME=VALUE`: the two."""
    name, equals, value = utf8(text).partition("=")
    if not name or not equals:
        raise typer.BadParameter(f"{text!r} is no header; write NAME=VALUE")
    return name, value


def schema(text: str) -> Any:
    """A schema's name, or the JSON Schema in a file."""
    if text in _SCHEMAS:
        return text
    try:
        found = json.loads(Path(text).read_bytes())
    except OSError as error:
        raise typer.BadParameter(
            f"{text!r} is neither {', '.join(_SCHEMAS)} nor a file that can be read: {error.strerror}"
        ) from None
    except ValueError as error:
        raise typer.BadParameter(f"{text} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{text} has no JSON Schema, which is an object")
    return found


def _is_none(text: str) -> bool:
    return text.strip().lower() == "none"


def duration(value: float) -> str:
    """A duration to the last digit; `seconds` reads it back."""
    whole, parts = int(value), []
    for unit in ("d", "h", "m"):
        size = int(_UNITS_S[unit])
        if whole >= size:
            parts.append(f"{whole // size}{unit}")
            whole %= size
    rest = round(whole + value - int(value), 9)
    if rest or not parts:
        parts.append(f"{rest:.9f}".rstrip("0").rstrip(".") + "s")
    return "".join(parts)


def age(value: float | None) -> str:
    """How long ago, as finely as one wants to know: its two largest units."""
    if value is None:
        return "-"
    whole = int(value)
    if whole < 60:
        return f"{whole}s"
    if whole < 3_600:
        return duration(whole)
    return duration(whole - whole % (60 if whole < 86_400 else 3_600))


def exact_size(value: int) -> str:
    """Bytes to the last one; `bytes_or_none` reads it back."""
    unit = next((unit for unit in _LARGE if value and value % _BYTES[unit.lower()] == 0), "")
    return f"{value // _BYTES[unit.lower()]}{unit}"


def size(value: int) -> str:
    """Bytes, about, in the largest unit that leaves a number from 1 on."""
    for unit in _LARGE:
        scale = _BYTES[unit.lower()]
        if value >= scale:
            return f"{value / scale:.1f}".removesuffix(".0") + f" {unit}"
    return f"{value} B"


def visible(text: str) -> str:
    """Text whose control characters can do nothing to a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
