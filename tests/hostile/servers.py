"""A server that hostile clients may have, and what must be so when they have gone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.raw import JSON, Answer, Client, call, wait_parked
from tests.support.server import ServerProcess, start_server
from wakeq_server.http.wire import STATUS

SHORT = ("--head-timeout", "0.3", "--body-timeout", "0.3")
"""For what ends in a time-out mostly, and is sent in one piece."""
ANSWERS = {200, 201, 204, 307, *STATUS.values()}
"""All that `docs/protocol.md` names."""


@contextmanager
def attacked(data: Path, *arguments: str) -> Iterator[ServerProcess]:
    """A server that must end well, having logged no error and written nothing past its log."""
    with start_server(data, "--legacy-wait", "0", "--drain", "0", *arguments) as server:
        for topic, config in (("json", b"{}"), ("any", b'{"schema": "any"}')):
            assert call(server, "PUT", f"/topics/{topic}", config, JSON).status == 201
        yield server
        with Client(server) as client:
            wait_parked(client, 0)
        assert server.terminate() == 0
        assert not server.events("raw"), "something was written past the log, a traceback perhaps"
        assert not [line for line in server.log if line["level"] not in ("info", "warning")]


def assert_refused(answer: Answer, status: int = 400, code: str = "BAD_REQUEST") -> None:
    """It is a refusal that says what is wrong, and that the connection is closed."""
    assert (answer.status, answer.json()["code"]) == (status, code), answer
    assert answer.head.get("content-type") == "application/problem+json"
    assert answer.head.get("connection") == "close"
    assert answer.json()["detail"]
