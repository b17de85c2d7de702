"""What works on tasks: workers, whose attempts are the real ones, and services as llama_deploy has them."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import anyio

import wakeq
from tests.simulation.loop import TICK
from tests.simulation.plane.network import Lost
from tests.simulation.plane.queue import Delivery, Queue
from wakeq_control.messages import CONTROL_PLANE
from wakeq_control.model import Retry, Service
from wakeq_control.service.context import TaskContext
from wakeq_control.service.link import Link
from wakeq_control.service.registering import Registration
from wakeq_control.service.runnable import Outcome
from wakeq_control.service.worker import Options, Worker

if TYPE_CHECKING:
    from tests.simulation.plane.checker import Checker
    from tests.simulation.plane.server import Server

WORKER, LEGACY = "worker", "legacy"
RETRY = Retry(max_attempts=3, backoff_s=2.0, max_backoff_s=3.0)
PREFETCH = 3
RETRY_TICKS = 64


def question(number: int) -> dict[str, Any]:
    """An event that asks."""
    return {"prefix": f"question {number}"}


class Script:
    """A task's work, as its input says: some events, some questions between them, and what it was answered."""

    schema: dict[str, Any] | None = None

    def __init__(self, checker: "Checker", rng: Random) -> None:
        self._checker = checker
        self._rng = rng

    async def run(self, arguments: dict[str, Any], task: TaskContext, context: dict[str, Any] | None) -> Outcome:
        self._checker.attempt_began(task.task_id, task.attempt, context)
        answers: list[str] = []
        asked = [0]
        something = anyio.Event()

        async def take() -> None:
            nonlocal something
            while True:
                answers.append(await task.receive_text())
                self._checker.input_received(task.task_id, task.attempt, answers[-1], asked[0])
                something.set()
                something = anyio.Event()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take)
            for step in arguments["steps"]:
                await self._pause()
                if step == "event":
                    task.emit({"by": task.attempt})
                    continue
                asked[0] += 1
                task.emit({**question(asked[0]), "by": task.attempt})
                while len(answers) < asked[0]:
                    await something.wait()
            tasks.cancel_scope.cancel()
        said = json.dumps({"by": task.attempt, "answers": answers[: asked[0]]})
        if arguments["fails"] == "for good":
            return Outcome(said, f"Failed: {said}")
        if arguments["fails"] == "at times" and self._rng.random() < 0.6:
            return Outcome(said, f"Failed: {said}", retryable=True)
        return Outcome(said, None, {"task": task.task_id, "attempt": task.attempt})

    async def _pause(self) -> None:
        if self._rng.random() < 0.5:
            await anyio.sleep(self._rng.randint(1, 256) * TICK)


class SimControl:
    """The control plane as workers' links know it: whichever process it is just now."""

    def __init__(self, server: Callable[[], "Server | None"]) -> None:
        self._server = server

    def _there(self) -> "Server":
        server = self._server()
        if server is None or server.dead:
            raise Lost("nobody is there")
        return server

    async def register(self, service: str, about: dict[str, Any]) -> str:
        retry = Retry(**about["retry"])
        told = Service(service, about["description"], [], None, None, about["schema"], is_worker=True, retry=retry)
        await self._there().ask(("register", service), lambda engine: engine.register(told))
        return "sim"

    @asynccontextmanager
    async def link(self, worker: str, number: int) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        async with self._there().link(worker, number) as lines:
            yield lines

    async def say(self, worker: str, number: int, content: bytes) -> list[dict[str, Any]]:
        return await self._there().hear(worker, number, json.loads(content)["words"])


class SimWorker:
    """A worker's process."""

    def __init__(self, name: str, queue: Queue, control: SimControl, script: Script, rng: Random) -> None:
        options = Options(WORKER, "", "", None, None, None, PREFETCH, 30.0, 0.0, RETRY)
        self._worker = Worker(script, options, lambda: None)
        self._queue = queue
        registration = Registration(control, WORKER, self._worker._about())  # type: ignore[arg-type]
        self._link = Link(control, name, registration, rng.random)  # type: ignore[arg-type]
        self.scope = anyio.CancelScope()

    async def run(self) -> None:
        """Until it is killed."""
        with self.scope:
            consuming: AbstractAsyncContextManager[Any] = self._queue.consume(WORKER, prefetch=PREFETCH)
            async with consuming as stream, anyio.create_task_group() as running:
                running.start_soon(self._link.run)
                async for delivery in stream:
                    running.start_soon(self._worker._handle, delivery, self._link, running)


class LegacyService:
    """llama_deploy's: takes a message when it is handed it, and knows no keys."""

    def __init__(self, queue: Queue, rng: Random, number: Callable[[], int]) -> None:
        self._queue = queue
        self._rng = rng
        self._number = number
        self._answers: dict[str, list[str]] = {}
        self._told = anyio.Event()

    async def run(self) -> None:
        async with self._queue.consume(LEGACY, prefetch=8, grace_s=0.0) as stream, anyio.create_task_group() as running:
            async for delivery in stream:
                await self._take(delivery, running)

    async def _take(self, delivery: Delivery, running: Any) -> None:
        said = delivery.body["data"]
        # Acked whatever comes of it.
        delivery._stream.end(delivery)
        if delivery.body["action"] == "new_task":
            running.start_soon(self._work, said)
        else:
            self._answers.setdefault(said["task_id"], []).append(said["input"])
            self._told.set()
            self._told = anyio.Event()

    async def _work(self, task: dict[str, Any]) -> None:
        arguments = json.loads(task["input"])
        about = {"task_id": task["task_id"], "session_id": task["session_id"]}
        asked = 0
        # Several are on their way at a time, and may overtake each other.
        async with anyio.create_task_group() as saying:
            for index, step in enumerate(arguments["steps"]):
                if self._rng.random() < 0.5:
                    await anyio.sleep(self._rng.randint(1, 128) * TICK)
                data: dict[str, Any] = {"by": 0}
                if step == "question":
                    asked += 1
                    data |= question(asked)
                saying.start_soon(self._say, "task_stream", {**about, "index": index, "data": data})
                while len(self._answers.get(task["task_id"], ())) < asked:
                    await self._told.wait()
        result = json.dumps({"by": 0, "answers": self._answers.get(task["task_id"], [])[:asked]})
        end = {"task_id": task["task_id"], "history": [], "result": result, "data": {}}
        await self._say("completed_task", end)

    async def _say(self, action: str, data: dict[str, Any]) -> None:
        """Until it is answered: what was lost may be there, and comes twice then."""
        while True:
            body = {"type": CONTROL_PLANE, "action": action, "data": data}
            try:
                await self._queue.publish(CONTROL_PLANE, body, f"legacy:{self._number()}")
            except wakeq.ServerUnavailable:
                await anyio.sleep(self._rng.randint(1, RETRY_TICKS) * TICK)
            else:
                return
