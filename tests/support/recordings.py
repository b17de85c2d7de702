"""The recorded answers of llama_deploy's own servers (`tests/recordings/`), as data.

A recording is a list of requests with their answers, in the order in which they were made:

    ## LABEL: METHOD TARGET  body=PYTHON LITERAL
        HTTP/1.1 STATUS REASON | NAME: VALUE; NAME: VALUE
        PYTHON LITERAL [...(N bytes)]

What a request had beside its body (a content type, a version) stands in its label, in words; `SENT` has it in code.
`Date` and `Connection` were left out when it was recorded.
"""

import ast
import re
from pathlib import Path
from typing import NamedTuple

DIRECTORY = Path(__file__).parent.parent / "recordings"
VERSIONS = ("0.4.2", "0.8.1")

_REQUEST = re.compile(r"## +(?P<label>.*?): (?P<method>[A-Z]+) (?P<target>\S+)(?:  body=(?P<body>.*))?")
_ANSWER = re.compile(r"    HTTP/1\.1 (?P<status>\d+) [^|]*\| (?P<headers>.*)")
_BODY = re.compile(r"    (?P<body>b(?P<quote>['\"]).*(?P=quote)) (?:\.\.\.\(\d+ bytes\))?")
_BETWEEN_FIELDS = re.compile(r"; (?=[A-Za-z-]+: )")
_FIFO = re.compile(r"FIFO order: (?P<types>\[.*\]) (?P<rest>b'.*')")
_ASIDE = ("--- ", "   took ", "openapi paths: ", "schemas: ")

SENT: dict[str, dict[str, str | None]] = {
    "POST no body": {"Content-Type": None},
    "POST valid, text/plain": {"Content-Type": "text/plain"},
    "POST valid, no content-type": {"Content-Type": None},
    "POST valid, application/vnd.x+json": {"Content-Type": "application/vnd.x+json"},
    "POST valid, charset": {"Content-Type": "application/json; charset=utf-8"},
    "keep-alive header": {"Connection": "keep-alive"},
    "Expect: 100-continue": {"Expect": "100-continue"},
}
"""Request headers by label; those that are None were not sent."""


class Recorded(NamedTuple):
    """One request and what the original answered."""

    line: int
    label: str
    method: str
    target: str
    sent: bytes | None
    status: int
    headers: dict[str, str]
    body: bytes
    interim: bool = False
    """Whether a `100 Continue` came first."""

    @property
    def request_headers(self) -> dict[str, str | None]:
        """What the request had, beside what belongs to its body."""
        return SENT.get(self.label, {})


def recording(version: str, server: str = "queue") -> list[Recorded]:
    """The recording of one llama_deploy version. Raises ValueError at a line that isn't understood."""
    lines = (DIRECTORY / f"{server}-{version}.txt").read_text(encoding="utf-8").splitlines()
    numbered = [(number, line) for number, line in enumerate(lines, 1) if not line.startswith(_ASIDE)]
    found: list[Recorded] = []
    while numbered:
        number, line = numbered.pop(0)
        if fifo := _FIFO.fullmatch(line):
            found += _fifo(number, ast.literal_eval(fifo["types"]), ast.literal_eval(fifo["rest"]))
        else:
            found.append(_exchange(number, line, numbered.pop(0)[1], numbered.pop(0)[1]))
    return found


def _exchange(number: int, request: str, answer: str, body: str) -> Recorded:
    asked, answered, content = _REQUEST.fullmatch(request), _ANSWER.fullmatch(answer), _BODY.fullmatch(body)
    if asked is None or answered is None or content is None:
        raise ValueError(f"line {number} is not the beginning of a request and its answer: {request!r}")
    recorded = Recorded(
        line=number,
        label=asked["label"],
        method=asked["method"],
        target=asked["target"],
        sent=_sent(asked["body"]),
        status=int(answered["status"]),
        headers=_headers(_BETWEEN_FIELDS.split(answered["headers"])),
        body=ast.literal_eval(content["body"]),
    )
    return _after_interim(recorded) if recorded.status == 100 else recorded


def _sent(literal: str | None) -> bytes | None:
    if literal is None:
        return None
    value: str | bytes = ast.literal_eval(literal)
    return value.encode() if isinstance(value, str) else value


def _headers(fields: list[str]) -> dict[str, str]:
    return {name.lower(): value for name, _, value in (field.partition(": ") for field in fields if field)}


def _after_interim(recorded: Recorded) -> Recorded:
    """The answer that followed a `100 Continue` was recorded as that one's body, as it came."""
    head, _, body = recorded.body.partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    headers = {name: value for name, value in _headers(fields).items() if name not in ("date", "connection")}
    return recorded._replace(status=int(first.split()[1]), headers=headers, body=body, interim=True)


def _fifo(number: int, types: list[str], rest: bytes) -> list[Recorded]:
    """Of these requests only the outcome was recorded: so many publishes, then as many GETs and one more."""
    headers = {"server": "uvicorn", "content-type": "application/json"}
    empty = headers | {"content-length": str(len(rest))}
    target = "/messages/fifo"
    posts = [
        Recorded(number, "fifo", "POST", target, b'{"type":"%b"}' % kind.encode(), 200, empty, b"null")
        for kind in types
    ]
    gets = [_fifo_get(number, target, kind, headers) for kind in types]
    return [*posts, *gets, Recorded(number, "fifo", "GET", target, None, 200, empty, rest)]


def _fifo_get(number: int, target: str, kind: str, headers: dict[str, str]) -> Recorded:
    body = (
        b'{"id_":"00000000-0000-4000-8000-000000000000","publisher_id":"default","data":{},"action":null,"stats":'
        b'{"publish_time":null,"process_start_time":null,"process_end_time":null},"type":"%b"}' % kind.encode()
    )
    return Recorded(number, "fifo", "GET", target, None, 200, headers | {"content-length": str(len(body))}, body)
