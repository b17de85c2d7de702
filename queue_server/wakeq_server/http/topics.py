"""`/topics`: making, configuring, looking at and deleting topics."""

from collections.abc import Mapping

from wakeq_server.engine.base import Engine
from wakeq_server.http import params
from wakeq_server.http.messages import LEGACY_CONFIG
from wakeq_server.http.wire import JSON_TYPE, Receive, Response, json_response, read_body, topic_json
from wakeq_server.settings import REQUEST_MAX_BYTES


class Topics:
    """The calls on topics."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def create(self, topic: str) -> Response:
        """`POST /topics/{topic}`: llama_deploy's call; its body is ignored, and it never alters a topic."""
        await self._engine.create_topic(params.topic_name(topic), LEGACY_CONFIG)
        return Response(200, [JSON_TYPE], b"null")

    async def put(self, topic: str, headers: Mapping[bytes, bytes], receive: Receive) -> Response:
        """`PUT /topics/{topic}`: make, or replace the configuration."""
        config = params.parse_body(params.TopicBody, await read_body(receive, REQUEST_MAX_BYTES, headers)).config()
        created = await self._engine.put_topic(params.topic_name(topic), config)
        return json_response(topic_json(await self._engine.describe_topic(topic)), 201 if created else 200)

    async def show(self, topic: str) -> Response:
        """`GET /topics/{topic}`."""
        return json_response(topic_json(await self._engine.describe_topic(topic)))

    async def list(self, query: bytes) -> Response:
        """`GET /topics?after=&limit=`, by name."""
        ask = params.parse_query(params.ListQuery, query)
        infos = await self._engine.list_topics(ask.after, ask.limit)
        return json_response({"topics": [topic_json(info) for info in infos]})

    async def delete(self, topic: str) -> Response:
        """`DELETE /topics/{topic}`."""
        await self._engine.delete_topic(topic)
        return Response(204, [], b"")
