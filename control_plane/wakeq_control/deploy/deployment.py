"""One deployment: its queue, its control plane and its services, each a process of its own.

Everything loads before anything begins: what can't be loaded is told of while nothing has been started, or while what
ran before still runs. Then the queue begins, the control plane, and the services. A reload starts the new services
beside the old ones, and ends those when the new ones take tasks.
"""

import fcntl
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

import anyio
import anyio.abc
import structlog

import wakeq
from wakeq._connection import control_token
from wakeq_control.deploy.base import ServiceStatus
from wakeq_control.deploy.config import DeploymentConfig, ServiceConfig
from wakeq_control.deploy.environments import environment
from wakeq_control.deploy.errors import DeploymentError, DeploymentFailed
from wakeq_control.deploy.options import Options
from wakeq_control.deploy.process import Job, Problem
from wakeq_control.deploy.servers import Place, Server
from wakeq_control.deploy.sources import Code, Sources
from wakeq_control.deploy.unit import Unit
from wakeq_control.service.control import open_control_plane

MAX_CONCURRENT_TASKS = 8
_STOP_S = 10.0
"""How long the queue and the control plane have to end; they don't need a second."""
_log: Any = structlog.get_logger("wakeq.deploy")


Found = Callable[[list[Path]], None]
"""Is told what services are made from, folders and files of variables, before any of it is loaded."""


class _Services(NamedTuple):
    """The services as of one file."""

    config: DeploymentConfig
    units: Mapping[str, Unit]
    clones: Path


class RunningDeployment:
    """A `wakeq_control.deploy.base.Deployment`."""

    def __init__(self, name: str, options: Options, tasks: anyio.abc.TaskGroup) -> None:
        self.name = name
        self._options = options
        self._tasks = tasks
        self._home = options.data / name
        self._held = ExitStack()
        self._generation = 0
        self._running: _Services | None = None
        self._queue: Server | None = None
        self._control: Server | None = None
        self._leaving: set[Unit] = set()

    # What it says of itself

    @property
    def default_service(self) -> str | None:
        """Where tasks go that name no service."""
        return self._running.config.default_service if self._running is not None else None

    @property
    def control_plane_url(self) -> str:
        """Where its sessions and tasks are."""
        return "" if self._control is None else self._control.url

    @property
    def queue_url(self) -> str:
        """Where its messages are."""
        return "" if self._queue is None else self._queue.url

    def services(self) -> Sequence[ServiceStatus]:
        """Its services, as the file orders them."""
        return [unit.status() for unit in self._running.units.values()] if self._running is not None else []

    # What is done with it

    async def start(self, config: DeploymentConfig, base_path: Path, found: Found) -> None:
        """Start all of it. Raises DeploymentError, with nothing left of it."""
        self._lock()
        services: _Services | None = None
        try:
            services = await self._prepare(config, base_path, found)
            self._queue, self._control = self._servers(config)
            await self._load([self._queue.unit, self._control.unit], services)
            await self._queue.run()
            await self._control.run()
            await self._begin(services)
        except BaseException:
            with anyio.CancelScope(shield=True):
                if services is not None:
                    await self._end(services, grace_s=0.0)
                await self.stop(grace_s=0.0)
            raise
        self._running = services
        await self._forget_others(services)

    async def reload(self, config: DeploymentConfig, base_path: Path, found: Found) -> None:
        """Replace its services by those of another file. Raises DeploymentError; then what ran runs on."""
        assert self._running is not None
        old = self._running
        if (config.control_plane, config.message_queue) != (old.config.control_plane, old.config.message_queue):
            _log.warning("queue and control plane stay as they are until the next start", deployment=self.name)
        new = await self._prepare(config, base_path, found)
        try:
            await self._load([], new)
            await self._begin(new)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._end(new, grace_s=0.0)
            raise
        self._running = new
        self._leaving.update(old.units.values())
        self._tasks.start_soon(self._retire, old)

    async def stop(self, grace_s: float) -> None:
        """Stop all of it, those that work first; returns when none of its processes is left."""
        async with anyio.create_task_group() as tasks:
            if self._running is not None:
                tasks.start_soon(self._end, self._running, grace_s)
            for unit in self._leaving:
                tasks.start_soon(unit.stop, grace_s)
        for server in (self._control, self._queue):
            if server is not None:
                await server.unit.stop(_STOP_S if grace_s else 0.0)
        self._held.close()

    # How

    def _lock(self) -> None:
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            lock: IO[str] = self._held.enter_context((self._home / "lock").open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._held.close()
            hint = "stop that one, or name another directory with --data"
            raise DeploymentFailed(f"a deployment {self.name} runs already, on {self._home}", hint) from None
        except OSError as error:
            self._held.close()
            hint = "name another directory with --data"
            raise DeploymentFailed(f"{self._home} can't be used: {error.strerror}", hint) from error
        # Clones that a process that was killed has left.
        shutil.rmtree(self._home / "sources", ignore_errors=True)

    async def _prepare(self, config: DeploymentConfig, base_path: Path, found: Found) -> _Services:
        """Find or fetch what the services are made from."""
        self._generation += 1
        clones = self._home / "sources" / str(self._generation)
        sources = Sources(config, base_path, clones)
        codes = {name: await sources.find(name, service) for name, service in config.services.items()}
        found([path for code in codes.values() for path in (code.source, *code.env_files)])
        units = {}
        for name, service in config.services.items():
            python = Path(sys.executable)
            if service.python_dependencies:
                field = f"{config.file}: services.{name}.python-dependencies"
                python = await environment(field, service.python_dependencies, codes[name].folder)
            units[name] = self._service(name, service, codes[name], python)
        return _Services(config, units, clones)

    def _service(self, name: str, service: ServiceConfig, code: Code, python: Path) -> Unit:
        first = {
            "service": name,
            "description": service.name,
            "folder": str(code.folder),
            "imports": str(code.imports),
            "module": code.module,
            "attribute": code.attribute,
            "file": str(code.file),
            "source": str(code.source),
            "max_concurrent_tasks": MAX_CONCURRENT_TASKS,
            "lease_s": self._options.lease_s,
            "grace_s": self._options.grace_s,
        }
        job = Job(name, ("service", name), python, code.env, first)
        return Unit(job, lambda: {"control_plane": self.control_plane_url}, self._tasks)

    def _servers(self, config: DeploymentConfig) -> tuple[Server, Server]:
        control, queue = config.control_plane, config.message_queue
        host = control.internal_host or control.host
        port = control.port if control.internal_port is None else control.internal_port
        at_queue = Place("127.0.0.1", None, 8001)
        if queue is not None:
            at_queue = Place(queue.host, queue.port, 8001, f"{config.file}: message-queue")

        def keeping(kind: str) -> list[str]:
            return ["--log-format", "json", "--data", str(self._home / kind), "--durability", self._options.durability]

        def about_queue() -> list[str]:
            return ["--queue", self.queue_url, "--namespace", control.topic_namespace]

        return (
            Server(("queue", "serve"), at_queue, lambda: keeping("queue"), self._options.ahead, self._tasks),
            Server(
                ("control-plane", "control-plane"),
                Place(host, port, 8000, f"{config.file}: control-plane"),
                lambda: [*about_queue(), *keeping("control-plane")],
                self._options.ahead,
                self._tasks,
            ),
        )

    async def _load(self, servers: Sequence[Unit], services: _Services) -> None:
        """Have all processes load at the same time."""
        problems: dict[Unit, Problem | DeploymentError] = {}

        async def load(unit: Unit) -> None:
            try:
                problem = await unit.load()
            except DeploymentFailed as error:
                problems[unit] = error
                return
            if problem is not None:
                problems[unit] = problem

        async with anyio.create_task_group() as tasks:
            for unit in (*servers, *services.units.values()):
                tasks.start_soon(load, unit)
        for name, unit in services.units.items():
            problem = problems.get(unit)
            if isinstance(problem, Problem):
                raise services.config.broken(f"services.{name}.path", problem.detail, problem.hint)
        for problem in problems.values():
            raise problem if isinstance(problem, DeploymentError) else DeploymentFailed(*problem[:2])

    async def _begin(self, services: _Services) -> None:
        """Have the services take tasks."""
        problems: dict[str, Problem] = {}

        async def run(name: str, unit: Unit) -> None:
            problem = await unit.run()
            if problem is not None:
                problems[name] = problem

        async with anyio.create_task_group() as tasks:
            for name, unit in services.units.items():
                tasks.start_soon(run, name, unit)
        for name, problem in problems.items():
            _check(problem, f"service {name} can't be started")

    async def _end(self, services: _Services, grace_s: float) -> None:
        async with anyio.create_task_group() as tasks:
            for unit in services.units.values():
                tasks.start_soon(unit.stop, grace_s)
        shutil.rmtree(services.clones, ignore_errors=True)

    async def _retire(self, old: _Services) -> None:
        """End the services that were replaced; what they work on may end."""
        await self._end(old, self._options.grace_s)
        self._leaving.difference_update(old.units.values())
        if self._running is not None:
            await self._forget_others(self._running)

    async def _forget_others(self, services: _Services) -> None:
        """Deregister what this deployment had started in another form, so that nobody's tasks wait for it."""
        record = self._home / "services.json"
        before = json.loads(record.read_text()) if record.exists() else []
        record.write_text(json.dumps(list(services.units)))
        gone = [name for name in before if name not in services.units]
        try:
            async with open_control_plane(self.control_plane_url, control_token()) as control:
                for name in gone:
                    await control.deregister(name)
        except wakeq.WakeqError as error:
            _log.warning("services that are gone are still registered", services=gone, reason=error.detail)


def _check(problem: Problem | None, what: str) -> None:
    if problem is not None:
        raise DeploymentFailed(f"{what}: {problem.detail}", problem.hint)
