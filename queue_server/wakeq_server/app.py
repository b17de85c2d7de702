"""The composition root: settings, store, engine, ASGI application. Nothing else wires these together."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import anyio
import structlog

from wakeq._serving.offload import own_thread
from wakeq._serving.settings import given_token
from wakeq_server.engine.base import Engine
from wakeq_server.engine.clocks import Clocks
from wakeq_server.engine.embedded import open_engine
from wakeq_server.errors import StartupError, StorageError
from wakeq_server.http.guard import Guard
from wakeq_server.http.intake import Intake
from wakeq_server.http.messages import Messages
from wakeq_server.http.pushes import Pushes
from wakeq_server.http.routes import App
from wakeq_server.http.service import Service
from wakeq_server.http.topics import Topics
from wakeq_server.push.posting import open_poster
from wakeq_server.push.pusher import open_pusher
from wakeq_server.push.targets import Allowed
from wakeq_server.settings import BODIES_MAX_BYTES, Settings
from wakeq_server.store.base import Store
from wakeq_server.store.memory import MemoryStore
from wakeq_server.store.sqlite import SqliteStore

_log = structlog.get_logger("wakeq.server")


def make_store(settings: Settings) -> Store:
    """The store that the durability asks for."""
    if settings.durability == "memory":
        return MemoryStore(epoch=time.time_ns())
    return SqliteStore(settings.data, settings.durability)


def build_app(
    engine: Engine,
    settings: Settings,
    version: str,
    token: str | None = None,
    now: Callable[[], float] = anyio.current_time,
) -> App:
    """The ASGI application on an engine; ``token`` is what its requests must show, ``now`` as in `Clocks`."""
    # A restart without a store forgets topics that clients make only once, when they start.
    auto_create = settings.auto_create_topics or settings.durability == "memory"
    messages = Messages(engine, settings, now, auto_create=auto_create)
    service = Service(engine, messages.polls, settings, version, auto_create=auto_create, token=token is not None)
    guard = Guard(
        bound_to=settings.host, allowed_hosts=settings.allowed_hosts, origins=settings.cors_origin, token=token
    )
    access_log = structlog.get_logger("wakeq.access") if settings.access_log else None
    pushes = Pushes(engine, Allowed(settings.push_allow).check)
    return App(messages, Topics(engine), pushes, service, guard, Intake(BODIES_MAX_BYTES), access_log)


def _log_storage(failure: StorageError | None) -> None:
    if failure is None:
        _log.info("storage works again")
    else:
        _log.error("storage refuses", reason=failure.detail, code=failure.code)


@asynccontextmanager
async def open_app(settings: Settings, version: str) -> AsyncIterator[tuple[Engine, App]]:
    """A running engine and its application. Raises StartupError."""
    # uvicorn runs on asyncio, whose loop keeps the clock of anyio's deadlines.
    loop = asyncio.get_running_loop()
    clocks = Clocks(wall=time.time, timer=time.perf_counter, now=loop.time, turn=partial(asyncio.sleep, 0))
    token = given_token(settings.token, settings.token_file, StartupError)
    async with (
        own_thread("writer", loop.call_soon_threadsafe) as writing,
        open_engine(
            make_store(settings),
            clocks,
            memory_budget=settings.memory_budget,
            max_topics=settings.max_topics,
            writing=writing,
            tell=_log_storage,
        ) as engine,
        open_poster(Allowed(settings.push_allow), f"wakeq/{version}") as poster,
        open_pusher(engine, poster, clocks.wall),
    ):
        yield engine, build_app(engine, settings, version, token, clocks.now)
