"""What wakeq's queue server answers differently from llama_deploy's, on purpose: each difference once, by name.

A name is the first cell of its row in `docs/protocol.md`. A recorded difference comes with a function that
takes it back: given the recorded answer and ours, it returns ours without that one difference, and leaves it alone
where it can't see it. So a difference may show only in exactly the form described here.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.support.recordings import VERSIONS, Recorded

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "protocol.md"


class Answered(NamedTuple):
    """An answer as it is compared."""

    status: int
    headers: dict[str, str]
    body: bytes


class Difference(NamedTuple):
    """One difference that the recordings show."""

    name: str
    take_back: Callable[[Recorded, Answered], Answered]
    versions: tuple[str, ...] = VERSIONS


def without_server_header(recorded: Recorded, ours: Answered) -> Answered:
    if recorded.headers.get("server") != "uvicorn" or "server" in ours.headers:
        return ours
    return ours._replace(headers=ours.headers | {"server": "uvicorn"})


def _resized(ours: Answered, recorded: Recorded) -> Answered:
    """Ours with the recorded body, whose length goes with it."""
    length = {"content-length": recorded.headers["content-length"]}
    return ours._replace(body=recorded.body, headers=ours.headers | length)


def _as_recorded(ours: Answered, recorded: Recorded) -> Answered:
    """The recorded answer, but for headers that don't describe the body."""
    about = ("content-type", "content-length")
    headers = {name: value for name, value in ours.headers.items() if name not in about}
    said = {name: recorded.headers[name] for name in about if name in recorded.headers}
    return Answered(recorded.status, headers | said, recorded.body)


def with_error_members(recorded: Recorded, ours: Answered) -> Answered:
    if (
        recorded.status < 400
        or recorded.status != ours.status
        or recorded.headers["content-type"] != "application/json"
    ):
        return ours
    if recorded.method == "HEAD":
        return _resized(ours, recorded)
    more = json.loads(ours.body)
    detail_first = ours.body.startswith(recorded.body[:-1] + b",")
    if not detail_first or list(more) != ["detail", "type", "title", "status", "code"] or more["status"] != ours.status:
        return ours
    return _resized(ours, recorded)


def with_seq_header(recorded: Recorded, ours: Answered) -> Answered:
    if recorded.method != "POST" or not recorded.target.startswith("/messages/") or ours.status != 200:
        return ours
    if not re.fullmatch(r"[1-9]\d*", ours.headers.get("wakeq-seq", "")):
        return ours
    return ours._replace(headers={name: value for name, value in ours.headers.items() if name != "wakeq-seq"})


def with_existing_topic_taken(recorded: Recorded, ours: Answered) -> Answered:
    if recorded.status != 409 or (ours.status, ours.body, ours.headers["content-length"]) != (200, b"null", "4"):
        return ours
    return _resized(ours, recorded)._replace(status=409)


def with_unknown_fields(recorded: Recorded, ours: Answered) -> Answered:
    if recorded.method != "GET" or b',"zzz":1}' not in ours.body or not ours.body.endswith(b',"extra":1}'):
        return ours
    body = ours.body.replace(b',"zzz":1}', b"}").removesuffix(b',"extra":1}') + b"}"
    return ours._replace(body=body, headers=ours.headers | {"content-length": str(len(body))})


def with_lone_surrogate_delivered(recorded: Recorded, ours: Answered) -> Answered:
    if recorded.status != 500 or ours.status != 200 or json.loads(ours.body)["data"] != {"a": "\ud800"}:
        return ours
    kind = {"content-type": recorded.headers["content-type"]}
    return _resized(ours, recorded)._replace(status=500, headers={**_resized(ours, recorded).headers, **kind})


def with_every_method_allowed(recorded: Recorded, ours: Answered) -> Answered:
    if recorded.headers.get("allow") != "POST" or ours.headers.get("allow") != "GET, POST":
        return ours
    return ours._replace(headers=ours.headers | {"allow": "POST"})


def with_topic_shown(recorded: Recorded, ours: Answered) -> Answered:
    if (recorded.method, recorded.target, ours.status) != ("GET", "/topics/x", 200):
        return ours
    shown = json.loads(ours.body)
    if shown["name"] != "x" or shown["config"]["schema"] != "queue_message":
        return ours
    return _resized(ours, recorded)._replace(status=405, headers=_resized(ours, recorded).headers | {"allow": "POST"})


def with_control_characters_refused(recorded: Recorded, ours: Answered) -> Answered:
    if not recorded.target.endswith("/%00") or ours.headers["content-type"] != "application/json":
        return ours
    # Where topics aren't made by being named, only their making says what is wrong with the name.
    code = ("BAD_REQUEST", 400) if recorded.target.startswith("/topics/") else ("TOPIC_NOT_FOUND", 404)
    if (json.loads(ours.body)["code"], ours.status) != code:
        return ours
    return _resized(ours, recorded)._replace(status=recorded.status)


def with_own_pages(recorded: Recorded, ours: Answered) -> Answered:
    if recorded.target not in ("/docs", "/redoc") or b"wakeq" not in ours.body:
        return ours
    return _resized(ours, recorded)


def with_own_description(recorded: Recorded, ours: Answered) -> Answered:
    if recorded.target != "/openapi.json" or json.loads(ours.body)["info"]["title"] != "wakeq queue server":
        return ours
    return _resized(ours, recorded)


def with_absolute_form(recorded: Recorded, ours: Answered) -> Answered:
    if not recorded.target.startswith("http://") or recorded.status != 404 or ours.body != b"null":
        return ours
    return _resized(ours, recorded)._replace(status=404)


def with_refusal_of_garbage(recorded: Recorded, ours: Answered) -> Answered:
    if recorded.status != 400 or recorded.body != b"Invalid HTTP request received." or ours.status != 400:
        return ours
    if ours.headers["content-type"] != "application/problem+json" or json.loads(ours.body)["code"] != "BAD_REQUEST":
        return ours
    return _as_recorded(ours, recorded)


def with_what_is_no_text_refused(recorded: Recorded, ours: Answered) -> Answered:
    if not recorded.target.endswith("/%FF") or ours.status != 400 or json.loads(ours.body)["code"] != "BAD_REQUEST":
        return ours
    return _as_recorded(ours, recorded)


RECORDED = (
    Difference("any answer", without_server_header),
    Difference("any error", with_error_members),
    Difference("`POST /messages/{topic}`", with_seq_header),
    Difference("`POST /messages/{topic}` with unknown fields", with_unknown_fields),
    Difference("`POST /messages/{topic}` with a lone surrogate", with_lone_surrogate_delivered),
    Difference("`POST /topics/{topic}` of an existing topic", with_existing_topic_taken, ("0.4.2",)),
    Difference("`GET /topics/{topic}`", with_topic_shown),
    Difference("a wrong method", with_every_method_allowed),
    Difference("a control character in a topic's name", with_control_characters_refused),
    Difference("`GET /docs`, `GET /redoc`", with_own_pages),
    Difference("`GET /openapi.json`", with_own_description),
    Difference("an absolute-form target", with_absolute_form, ("0.4.2",)),
    Difference("what is not HTTP", with_refusal_of_garbage),
    Difference("a path or a query that isn't UTF-8", with_what_is_no_text_refused),
)


def documented() -> list[str]:
    """The first cells of the rows of the table of differences."""
    _, _, section = DOCUMENT.read_text(encoding="utf-8").partition("\n## 10. ")
    lines = section.partition("\n## ")[0].splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    return [row.split(" | ")[0].removeprefix("| ") for row in rows[1:]]
