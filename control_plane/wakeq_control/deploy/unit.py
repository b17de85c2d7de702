"""One part of a deployment that is kept running: when its process ends, another is started, after a growing delay."""

import random
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.abc
import structlog

from wakeq._backoff import Backoff
from wakeq_control.deploy.base import ServiceState, ServiceStatus
from wakeq_control.deploy.errors import DeploymentFailed
from wakeq_control.deploy.process import Job, Problem, Process

DELAY_MAX_S = 30.0
"""Longest time between an end and the next start."""
STEADY_S = 60.0
"""One that has run for so long has not died of its start: the delays begin anew."""
_log: Any = structlog.get_logger("wakeq.deploy")


class Unit:
    """A queue, a control plane or a service."""

    def __init__(
        self,
        job: Job,
        word: Callable[[], Mapping[str, Any]],
        tasks: anyio.abc.TaskGroup,
        loading: Process | None = None,
    ) -> None:
        """``word`` makes what a process is told when it is to begin. ``loading``: the first one, if it is started."""
        self._job = job
        self._loading = loading
        self._word = word
        self._tasks = tasks
        self._process: Process | None = None
        self._backoff = Backoff(random.random, max_s=DELAY_MAX_S)
        self._keeping = anyio.CancelScope()
        self._kept = anyio.Event()
        self._kept.set()
        self._url = ""
        self._state: ServiceState = "starting"
        self._restarts = 0

    @property
    def url(self) -> str:
        """Where it listens, from its first start on; empty for a service."""
        return self._url

    def status(self) -> ServiceStatus:
        """How it is doing."""
        pid = self._process.pid if self._process is not None and self._state != "restarting" else None
        return ServiceStatus(self._job.name, self._state, pid, self._restarts)

    async def load(self) -> Problem | None:
        """Start a process and have it load; returns why it can't. Raises DeploymentFailed."""
        with anyio.CancelScope(shield=True):
            # A process that is started is known, whatever happens meanwhile.
            process = self._process = self._loading or await Process.start(self._job, self._tasks)
            self._loading = None
        return await process.load()

    async def run(self) -> Problem | None:
        """Have the loaded process begin, and keep it running; returns when it is ready, or why it never will be."""
        began = anyio.current_time()
        problem = await self._go()
        if problem is None:
            assert self._process is not None
            self._kept = anyio.Event()
            self._tasks.start_soon(self._keep, self._process, began)
        return problem

    async def _go(self) -> Problem | None:
        assert self._process is not None
        problem = await self._process.go(self._word())
        if problem is None:
            self._url = self._process.url
            self._state = "running"
        return problem

    async def stop(self, grace_s: float) -> None:
        """End it; returns when nothing of it is left."""
        self._keeping.cancel()
        # It may be about to start the next process.
        await self._kept.wait()
        if self._process is not None:
            await self._process.stop(grace_s)

    async def _keep(self, process: Process, began: float) -> None:
        try:
            with self._keeping:
                while True:
                    how = await process.ended()
                    if anyio.current_time() - began >= STEADY_S:
                        self._backoff.succeeded()
                    process, began = await self._restart(how)
        finally:
            self._kept.set()

    async def _restart(self, how: str) -> tuple[Process, float]:
        while True:
            self._state = "restarting"
            delay_s = self._backoff.next_delay_s()
            _log.warning("it ended, and is started again", service=self._job.name, how=how, delay_s=round(delay_s, 3))
            await anyio.sleep(delay_s)
            self._restarts += 1
            began = anyio.current_time()
            problem = await self._again()
            if problem is None:
                assert self._process is not None
                return self._process, began
            how = problem.detail

    async def _again(self) -> Problem | None:
        try:
            problem = await self.load()
        except DeploymentFailed as error:
            return Problem(error.detail, error.hint, is_broken=False)
        problem = problem or await self._go()
        if problem is not None and self._process is not None:
            await self._process.stop(0.0)
        return problem
