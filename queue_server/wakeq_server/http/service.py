"""The server about itself: the card, health, metrics, the API's description."""

from collections import Counter
from functools import cache
from importlib import resources

import anyio.to_thread
import orjson
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from wakeq_server.engine.base import Engine
from wakeq_server.http import docs
from wakeq_server.http.metrics import CONTENT_TYPE, QueueCollector, process_registry
from wakeq_server.http.polls import PollWatch
from wakeq_server.http.wire import JSON_TYPE, Response, json_response
from wakeq_server.settings import (
    BATCH_MAX_BYTES,
    BATCH_MAX_MESSAGES,
    BODY_MIN_BYTES_PER_S,
    CLAIM_MAX,
    DELAY_MAX_S,
    HEAD_MAX_BYTES,
    HEADERS_MAX_BYTES,
    KEY_MAX,
    LEASE_MAX_S,
    LEASE_MIN_S,
    MESSAGE_MAX_BYTES,
    PEEK_MAX,
    QUEUE_MESSAGE_MAX_BYTES,
    TOPIC_NAME_MAX,
    TTL_MAX_S,
    TTL_MIN_S,
    WAIT_MAX_S,
    Settings,
)

# llama_deploy's, to the letter: clients and health checks compare it.
_CARD = Response(
    200, [JSON_TYPE], b'{"service_name":"message_queue","description":"Message queue for multi-agent system"}'
)
_TOPICS_SHOWN = 100


class Service:
    """The calls that are not about messages."""

    def __init__(
        self, engine: Engine, polls: PollWatch, settings: Settings, version: str, *, auto_create: bool, token: bool
    ) -> None:
        """``auto_create``: topics are made when they are first named. ``token``: requests must show one."""
        self.requests = 0
        self.refused: Counter[str] = Counter()
        """Requests by the code of their refusal."""
        self._engine = engine
        self._polls = polls
        self._settings = settings
        self._version = version
        self._auto_create = auto_create
        self._token = token
        self._process = process_registry()

    async def card(self) -> Response:
        """`GET /`."""
        return _CARD

    async def about(self) -> Response:
        """`GET /v1`."""
        return json_response(
            {
                "name": "wakeq",
                "version": self._version,
                "engine": self._engine.name,
                "durability": self._settings.durability,
                "capabilities": sorted(self._engine.capabilities),
                "auto_create_topics": self._auto_create,
                "token": self._token,
                "limits": {
                    "topics": self._settings.max_topics,
                    "parked": self._settings.max_parked,
                    "head_timeout_s": self._settings.head_timeout,
                    "body_timeout_s": self._settings.body_timeout,
                    "body_bytes_per_s": BODY_MIN_BYTES_PER_S,
                    "head_bytes": HEAD_MAX_BYTES,
                    "memory_budget_bytes": self._settings.memory_budget,
                    "wait_s": WAIT_MAX_S,
                    "lease_s": [LEASE_MIN_S, LEASE_MAX_S],
                    "claim_messages": CLAIM_MAX,
                    "batch_messages": BATCH_MAX_MESSAGES,
                    "batch_bytes": BATCH_MAX_BYTES,
                    "message_bytes": MESSAGE_MAX_BYTES,
                    "queue_message_bytes": QUEUE_MESSAGE_MAX_BYTES,
                    "topic_name_characters": TOPIC_NAME_MAX,
                    "delay_s": DELAY_MAX_S,
                    "ttl_s": [TTL_MIN_S, TTL_MAX_S],
                    "key_characters": KEY_MAX,
                    "headers_bytes": HEADERS_MAX_BYTES,
                    "peek_messages": PEEK_MAX,
                },
            }
        )

    async def health(self) -> Response:
        """`GET /healthz`: the process runs and its loop turns; and whether its storage does.

        200 in any case: to end the process would not mend a disk, and consumers go on.
        """
        trouble = self._engine.trouble
        return json_response({"status": "ok"} if trouble is None else {"status": "degraded", "storage": trouble})

    async def ready(self) -> Response:
        """`GET /readyz`: 503 from the moment it drains, so that a balancer looks elsewhere."""
        if self._engine.draining:
            return json_response({"status": "draining"}, 503)
        return json_response({"status": "ready"})

    async def metrics(self) -> Response:
        """`GET /metrics`."""
        overview = await self._engine.overview(_TOPICS_SHOWN)
        registry = CollectorRegistry(auto_describe=False)
        stats, parked = self._engine.stats, self._engine.parked()
        registry.register(QueueCollector(stats, parked, self._polls, overview, self.requests, self.refused))
        # Much text, and what the operating system says is read from files: nothing to keep messages waiting for.
        body = await anyio.to_thread.run_sync(lambda: generate_latest(registry) + generate_latest(self._process))
        return Response(200, [(b"content-type", CONTENT_TYPE)], body)

    async def openapi(self) -> Response:
        """`GET /openapi.json`."""
        return Response(200, [JSON_TYPE], await anyio.to_thread.run_sync(_openapi_json))

    async def docs(self) -> Response:
        """`GET /docs` and `/redoc`: the same description for people; one page, nothing fetched from elsewhere."""
        page = await anyio.to_thread.run_sync(_docs_html)
        return Response(200, [(b"content-type", b"text/html; charset=utf-8")], page)


def openapi_document() -> dict[str, object]:
    """The OpenAPI document that ships with the package."""
    text = resources.files("wakeq_server").joinpath("openapi.yaml").read_text(encoding="utf-8")
    document: dict[str, object] = yaml.safe_load(text)
    return document


@cache
def _openapi_json() -> bytes:
    return orjson.dumps(openapi_document())


@cache
def _docs_html() -> bytes:
    return docs.page(openapi_document()).encode()
