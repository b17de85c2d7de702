"""A control plane in the test's own process, without a queue: what services say, the test says for them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any, TypeVar

import anyio
import httpx
from anyio.abc import TaskGroup

import wakeq
from wakeq.testing._server import _Exchange
from wakeq_control.app import build_app
from wakeq_control.engine.engine import Engine
from wakeq_control.http.routes import App
from wakeq_control.http.services import About
from wakeq_control.messages import CompletedTask, TaskEvent
from wakeq_control.model import Service
from wakeq_control.plane import End, Plane
from wakeq_control.settings import Settings
from wakeq_control.state.memory import MemoryStore
from wakeq_control.streams import Event

T = TypeVar("T")
SERVICE = Service("wf", "d", [], None, None, {"type": "object", "properties": {"n": {"type": "integer"}}})


class Wire(httpx.AsyncBaseTransport):
    """Carries requests to an application, and fails where it is told to."""

    def __init__(self, app: App, tasks: TaskGroup) -> None:
        self.requests: list[httpx.Request] = []
        self.is_down = False
        """Nobody is reached."""
        self.lose_answers = 0
        """So many of the next requests are heard, and their answers lost."""
        self._app = app
        self._tasks = tasks
        self._open: list[_Breakable] = []

    def asked(self, method: str = "", end: str = "") -> list[httpx.Request]:
        """The requests so far, of a method and with paths that end so."""
        return [one for one in self.requests if one.method.startswith(method) and one.url.path.endswith(end)]

    def cut(self) -> None:
        """End every answer that is on its way."""
        for one in self._open:
            one.scope.cancel()
        self._open = []

    @property
    def open(self) -> int:
        """Answers that are on their way."""
        return sum(not one.closed for one in self._open)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.is_down:
            raise httpx.ConnectError("nobody is there")
        exchange = _Exchange(request)
        self._tasks.start_soon(exchange.run, self._app)
        lost = self.lose_answers > 0
        self.lose_answers -= lost
        response = await exchange.response()
        if lost:
            # It is whole by now: answers to what is asked again are short.
            await exchange._next()
            await exchange.aclose()
            raise httpx.ReadError("the answer was lost")
        body = _Breakable(exchange)
        self._open.append(body)
        return httpx.Response(response.status_code, headers=response.headers, stream=body)


class _Breakable(httpx.AsyncByteStream):
    """The body of an answer, no generator: a loop that leaves one behind is warned of."""

    def __init__(self, exchange: _Exchange) -> None:
        self.scope = anyio.CancelScope()
        self.closed = False
        self._exchange = exchange
        self._more = True

    def __aiter__(self) -> "_Breakable":
        return self

    async def __anext__(self) -> bytes:
        while self._more:
            event: Any = None
            if not self.scope.cancel_called:
                # A scope is entered once.
                self.scope = anyio.CancelScope()
                with self.scope:
                    event = await self._exchange._next()
            if event is None:
                raise httpx.ReadError("the connection was cut")
            self._more = event.get("more_body", False)
            if event.get("body"):
                return bytes(event["body"])
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True
        await self._exchange.aclose()


class ControlWorld:
    """An engine, its application, and a wire to it."""

    def __init__(self, engine: Engine, app: App, wire: Wire, stack: AsyncExitStack) -> None:
        self.engine = engine
        self.app = app
        self.wire = wire
        self._stack = stack

    async def client(self, **options: Any) -> wakeq.AsyncControlPlane:
        client = wakeq.AsyncControlPlane("http://127.0.0.1", transport=self.wire, **options)
        return await self._stack.enter_async_context(client)

    async def emit(self, session_id: str, task_id: str, *indices: int) -> None:
        for index in indices:
            await self.engine.hear(TaskEvent(session_id, task_id, Event.make(index, {"n": index})))

    async def end(self, task_id: str, result: str = "done", error: str | None = None) -> None:
        said = {"task_id": task_id, "history": [], "result": result, "data": {}}
        await self.engine.hear(CompletedTask(End(said, error)))


async def _at_once(call: Callable[[], T]) -> T:
    return call()


@asynccontextmanager
async def control_world(*, token: str | None = None, **options: Any) -> AsyncIterator[ControlWorld]:
    """One with the service `wf`; ``options`` are settings."""
    ids = count(1)
    settings = Settings(durability="memory", **options)
    plane = Plane(lambda: f"id{next(ids)}", keep=100, keep_s=100_000.0, limits=settings.limits)
    engine = Engine(plane, MemoryStore(), anyio.current_time, wait_for_service_s=100.0, offload=_at_once)
    app = build_app(engine, settings, About("127.0.0.1", 1, "http://127.0.0.1:1", "llama_deploy", "0"), token)
    async with anyio.create_task_group() as tasks, AsyncExitStack() as stack:
        tasks.start_soon(engine.run)
        await engine.register(SERVICE)
        yield ControlWorld(engine, app, Wire(app, tasks), stack)
        tasks.cancel_scope.cancel()
