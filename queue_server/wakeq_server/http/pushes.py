"""`/topics/{topic}/push`: what is posted to a URL instead of asked for."""

from collections.abc import Awaitable, Callable, Mapping

from wakeq_server.engine.base import Engine
from wakeq_server.http import params
from wakeq_server.http.wire import Receive, Response, json_response, push_json, read_body
from wakeq_server.settings import REQUEST_MAX_BYTES


class Pushes:
    """The calls on pushes."""

    def __init__(self, engine: Engine, check: Callable[[str], Awaitable[None]]) -> None:
        """``check`` raises Forbidden for a URL that nothing may be pushed to."""
        self._engine = engine
        self._check = check

    async def put(self, topic: str, name: str, headers: Mapping[bytes, bytes], receive: Receive) -> Response:
        """`PUT /topics/{topic}/push/{name}`: make it, or put it in place of the one of that name."""
        body = params.parse_body(params.PushBody, await read_body(receive, REQUEST_MAX_BYTES, headers))
        params.push_name(name)
        # An unknown topic or group is told before a name is looked up for it.
        await self._engine.describe_group(topic, body.group)
        await self._check(body.url)
        created = await self._engine.put_push(topic, name, body.config())
        return json_response(push_json(*await self._engine.describe_push(topic, name)), 201 if created else 200)

    async def show(self, topic: str, name: str) -> Response:
        """`GET /topics/{topic}/push/{name}`."""
        return json_response(push_json(*await self._engine.describe_push(topic, name)))

    async def list(self, topic: str) -> Response:
        """`GET /topics/{topic}/push`, by name."""
        pushes = await self._engine.describe_pushes(topic)
        return json_response({"pushes": [push_json(*push) for push in pushes]})

    async def delete(self, topic: str, name: str) -> Response:
        """`DELETE /topics/{topic}/push/{name}`."""
        await self._engine.delete_push(topic, name)
        return Response(204, [], b"")
