"""What tests across restarts ask of a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.server import ServerProcess, start_server

Json = dict[str, Any]


class Api:
    """What these tests ask of a server."""

    def __init__(self, server: ServerProcess, http: httpx.Client) -> None:
        self.server = server
        self.http = http

    def put(self, topic: str, **config: Any) -> None:
        assert self.http.put(f"/topics/{topic}", json=config).status_code in (200, 201)

    def post(self, topic: str, content: bytes, content_type: str = "application/json") -> int:
        answer = self.http.post(f"/messages/{topic}", content=content, headers={"content-type": content_type})
        assert answer.status_code == 200, answer.text
        return int(answer.headers["wakeq-seq"])

    def post_lines(self, topic: str, content: bytes) -> int:
        headers = {"content-type": "application/x-ndjson"}
        answer = self.http.post(f"/messages/{topic}", content=content, headers=headers)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["count"])

    def claim(self, topic: str, **ask: Any) -> list[Json]:
        answer = self.http.post(f"/messages/{topic}/claim", json={"max": 1_000, **ask})
        assert answer.status_code == 200, answer.text
        messages: list[Json] = answer.json()["messages"]
        return messages

    def settle(self, topic: str, **lines: Any) -> list[str]:
        answer = self.http.post(f"/messages/{topic}/settle", json=lines)
        assert answer.status_code == 200, answer.text
        return [result["status"] for result in answer.json()["results"]]

    def standing(self, topic: str) -> tuple[int, int, int]:
        group = self.http.get(f"/topics/{topic}").json()["groups"]["default"]
        return group["ready"], group["delayed"], group["leased"]


@contextmanager
def serving(data: Path, durability: str = "fsync", *arguments: str) -> Iterator[Api]:
    """A server on that directory, killed on the way out: what it had in memory is lost."""
    with start_server(data, *arguments, durability=durability) as server:
        with httpx.Client(base_url=server.url, timeout=30.0, verify=False) as http:
            yield Api(server, http)
        server.kill()


def leases(deliveries: list[Json]) -> list[str]:
    """The lease ids."""
    return [delivery["lease_id"] for delivery in deliveries]
