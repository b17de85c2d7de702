"""A small ASGI driver. `httpx.ASGITransport` returns only when an application has finished, and so can neither park
nor stream."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import anyio

App = Callable[[Any, Any, Any], Awaitable[None]]


class Answer(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes


async def ask(app: App, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
    """One request, answered whole; the client stays connected."""
    path, _, query = path.partition("?")
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "http_version": "1.1",
        "scheme": "http",
        "client": ("127.0.0.1", 1),
    }
    asked = False
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if asked:
            await anyio.sleep_forever()
        asked = True
        return {"type": "http.request", "body": body}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    await app(scope, receive, send)
    parts = b"".join(event.get("body", b"") for event in sent[1:])
    return Answer(sent[0]["status"], dict(sent[0]["headers"]), parts)
