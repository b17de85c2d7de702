"""The composition root: settings, store, engine, link to the queue, ASGI application. Nothing else wires these."""

import asyncio
import math
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing

import anyio

from wakeq._serving.offload import own_thread
from wakeq._serving.settings import given_token
from wakeq_control.engine.engine import Engine
from wakeq_control.errors import StartupError, StorageFailed
from wakeq_control.http.attempts import Attempts
from wakeq_control.http.guard import Guard
from wakeq_control.http.held import Lot
from wakeq_control.http.routes import App
from wakeq_control.http.services import About, Services
from wakeq_control.http.sessions import Sessions
from wakeq_control.http.streams import Streams
from wakeq_control.http.tasks import Tasks
from wakeq_control.link.broker import open_broker
from wakeq_control.link.inbox import Inbox
from wakeq_control.link.outbox import Outbox
from wakeq_control.link.presence import Presence
from wakeq_control.plane import Plane
from wakeq_control.settings import Settings
from wakeq_control.state.base import StateStore
from wakeq_control.state.memory import MemoryStore
from wakeq_control.state.sqlite import SqliteStore


def make_store(settings: Settings) -> StateStore:
    """The store that the durability asks for. Raises StartupError."""
    return MemoryStore() if settings.durability == "memory" else SqliteStore(settings.data)


def wall_that_never_goes_back() -> Callable[[], float]:
    """Seconds since 1970 as they were at the start, and since then as they pass."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


def build_app(engine: Engine, settings: Settings, about: About, token: str | None = None) -> App:
    """The ASGI application on an engine; ``token`` is what its requests must show."""
    lot = Lot()
    guard = Guard(bound_to=settings.host, allowed_hosts=settings.allowed_hosts, token=token)
    return App(
        Services(engine, about),
        Sessions(engine),
        Tasks(engine, lot),
        Streams(engine, lot),
        Attempts(engine, lot),
        guard,
        lot,
        body_max_bytes=settings.max_body_bytes,
    )


@asynccontextmanager
async def open_app(settings: Settings, port: int, version: str, queue: str) -> AsyncIterator[App]:
    """A running control plane; ``queue`` is where the queue is reached from here.

    Raises StartupError; StorageFailed, in a group, when its state can't be kept.
    """
    token = given_token(settings.token, settings.token_file, StartupError)
    with closing(make_store(settings)) as store:
        plane = Plane(
            lambda: str(uuid.uuid4()),
            keep=settings.keep_tasks,
            keep_s=settings.keep_for,
            keep_sessions_s=settings.keep_sessions_for or math.inf,
            limits=settings.limits,
            jitter=random.random,
        )
        try:
            plane.restore(store.load())
            # What it publishes has its name, so that has to be kept first.
            store.commit(plane.name_itself().changes)
        except StorageFailed as error:
            raise StartupError(str(error), "restore a copy of it, or name another directory with --data") from error
        about = About(settings.host, port, settings.queue, settings.namespace, version)
        # uvicorn runs on asyncio.
        soon = asyncio.get_running_loop().call_soon_threadsafe
        async with own_thread("writer", soon) as writing, anyio.create_task_group() as tasks:
            engine = Engine(
                plane, store, wall_that_never_goes_back(), wait_for_service_s=settings.wait_for_service, offload=writing
            )
            tasks.start_soon(engine.run)
            tasks.start_soon(_link, engine, settings, queue)
            yield build_app(engine, settings, about, token)
            await engine.finished()
            tasks.cancel_scope.cancel()


async def _link(engine: Engine, settings: Settings, queue: str) -> None:
    """Speak with the queue, for ever."""
    token = None if settings.queue_token is None else settings.queue_token.get_secret_value()
    name = f"control plane {settings.namespace}"
    async with (
        open_broker(queue, token, settings.namespace, consumer=name) as broker,
        anyio.create_task_group() as tasks,
    ):
        outbox, presence, inbox = Outbox(engine, broker), Presence(engine, broker), Inbox(engine, broker)
        for message in engine.unsent():
            outbox.put(message)
        engine.to_send, engine.came, engine.went = outbox.put, presence.came, presence.went
        for part in (outbox, presence, inbox):
            tasks.start_soon(part.run)
