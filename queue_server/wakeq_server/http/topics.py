"""`/topics`: making, configuring, looking at and deleting topics and their groups, and what operators do to them."""

from collections.abc import Mapping

from wakeq_server.engine.base import Engine
from wakeq_server.http import params
from wakeq_server.http.messages import LEGACY_CONFIG
from wakeq_server.http.wire import (
    JSON_TYPE,
    Receive,
    Response,
    consumer_json,
    group_json,
    json_response,
    messages_json,
    peeked_json,
    read_body,
    topic_json,
)
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
        body = params.parse_body(params.TopicBody, await read_body(receive, REQUEST_MAX_BYTES, headers))
        config = body.config(topic)
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

    # Groups

    async def put_group(self, topic: str, group: str) -> Response:
        """`PUT /topics/{topic}/groups/{group}`: make it, unless there is one; it has nothing to configure."""
        created = await self._engine.put_group(topic, params.group_name(group))
        return json_response(group_json(await self._engine.describe_group(topic, group)), 201 if created else 200)

    async def show_group(self, topic: str, group: str) -> Response:
        """`GET /topics/{topic}/groups/{group}`."""
        return json_response(group_json(await self._engine.describe_group(topic, group)))

    async def delete_group(self, topic: str, group: str) -> Response:
        """`DELETE /topics/{topic}/groups/{group}`."""
        await self._engine.delete_group(topic, group)
        return Response(204, [], b"")

    async def consumers(self, topic: str, query: bytes) -> Response:
        """`GET /topics/{topic}/consumers?group=`."""
        ask = params.parse_query(params.ConsumersQuery, query)
        consumers = await self._engine.consumers(topic, ask.group)
        return json_response({"consumers": [consumer_json(consumer) for consumer in consumers]})

    # What operators do

    async def peek(self, topic: str, query: bytes) -> Response:
        """`GET /topics/{topic}/messages?state=&group=&after=&limit=`: shows, takes nothing."""
        ask = params.parse_query(params.PeekQuery, query)
        messages = await self._engine.peek(topic, ask.group, ask.state, ask.after, ask.limit)
        return Response(200, [JSON_TYPE], messages_json(map(peeked_json, messages)))

    async def purge(self, topic: str, query: bytes) -> Response:
        """`POST /topics/{topic}/purge?group=`."""
        ask = params.parse_query(params.GroupQuery, query)
        return json_response({"purged": await self._engine.purge(topic, ask.group)})

    async def redrive(self, topic: str, query: bytes, headers: Mapping[bytes, bytes], receive: Receive) -> Response:
        """`POST /topics/{topic}/redrive?group=`."""
        ask = params.parse_query(params.GroupQuery, query)
        body = params.parse_body(params.RedriveBody, await read_body(receive, REQUEST_MAX_BYTES, headers))
        moved = await self._engine.redrive(topic, ask.group, body.max)
        return json_response({"moved": moved.moved, "remaining": moved.remaining})

    async def pause(self, topic: str, paused: bool) -> Response:
        """`POST /topics/{topic}/pause` and `/resume`."""
        await self._engine.pause_topic(topic, paused)
        return await self.show(topic)
