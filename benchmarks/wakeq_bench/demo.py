"""`wakeq demo`: the unmodified llama_deploy on its own queue and on wakeq, and what each costs while idle.

Without llama_deploy it shows a parked consumer of wakeq alone. Everything it starts ends with it.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import anyio
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

import wakeq
from wakeq_bench.measure import CpuWindow, ProcessGone
from wakeq_bench.peers import PeerUnavailable, llama_deploy
from wakeq_bench.processes import HOST, Child, ProcessFailed, Server, ending_on_signals, free_ports
from wakeq_bench.report import readable
from wakeq_bench.scenarios.raw import BrokenAnswer
from wakeq_bench.scenarios.relay import CountingRelay, counting_relay
from wakeq_bench.scenarios.servers import ORIGINAL_VERSION, original_queue, wakeq_server

SERVICE = "agentic_workflow"
USER_MSG = "What does it cost to wait?"

_TASKS = 5
_TASK_MAX_S = 60.0
# Everybody is parked, and what starting has left to do is done.
_SETTLE_S = 2.0
_ALONE_S = 5.0
_TOPIC = "greetings"

_NEXT = """\
[bold]What to try next[/bold]
  wakeq serve                    [dim]# on port 8001, where llama_deploy expects its queue[/dim]
  curl -X PUT  127.0.0.1:8001/topics/greetings -H 'content-type: application/json' -d '{"schema": "json"}'
  curl '127.0.0.1:8001/messages/greetings?wait=60' &     [dim]# parked, until somebody publishes:[/dim]
  curl -X POST 127.0.0.1:8001/messages/greetings -H 'content-type: application/json' -d '{"hello": "world"}'
  wakeq bench run idle           [dim]# the same comparison, measured at length[/dim]"""


@dataclass(frozen=True)
class System:
    """A queue, and llama_deploy's control plane and workflow service on it."""

    name: str
    queue: Server
    relay: CountingRelay
    services: Child
    control_plane_url: str


@dataclass(frozen=True)
class Task:
    """What became of the tasks that were run through a system."""

    result: str
    seconds: float


@dataclass(frozen=True)
class Idle:
    """What a system has used since its window was opened."""

    seconds: float
    requests: int
    queue_cpu_s: float
    system_cpu_s: float


class IdleWindow:
    """Watches one system while nothing happens."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._requests_before = system.relay.requests
        self._cpu = CpuWindow({"queue": system.queue.child.pid, "services": system.services.pid})

    def so_far(self) -> Idle:
        """What has been used up to now. Raises ProcessGone."""
        cpu = self._cpu.spent()
        requests = self._system.relay.requests - self._requests_before
        return Idle(self._cpu.seconds, requests, cpu["queue"], cpu["queue"] + cpu["services"])


def demo(
    seconds: Annotated[float, typer.Option(min=2, help="How long both are watched while idle.")] = 20.0,
) -> None:
    """Run llama_deploy on its own queue and on wakeq, and compare what they cost while idle."""
    console = Console()
    try:
        with ending_on_signals():
            _demonstrate(seconds, console)
    except KeyboardInterrupt as interrupt:
        console.print("\nStopped. Nothing is left running.")
        raise typer.Exit(130) from interrupt
    except (ProcessFailed, ProcessGone, BrokenAnswer, wakeq.WakeqError, OSError) as error:
        console.print(f"[red]{escape(str(error))}[/red]", soft_wrap=True)
        raise typer.Exit(1) from error


def _demonstrate(seconds: float, console: Console) -> None:
    try:
        with console.status("Looking for llama_deploy") as status:
            python = llama_deploy.environment(ORIGINAL_VERSION, lambda line: status.update(_sentence(line)))
    except PeerUnavailable as error:
        console.print(f"This demo goes without the comparison with llama_deploy: {escape(str(error))}", soft_wrap=True)
        anyio.run(_show_alone, console)
    else:
        _compare(python, seconds, console)
    console.print(_NEXT, highlight=False, soft_wrap=True)


def _compare(python: Path, seconds: float, console: Console) -> None:
    console.print(
        f"Two systems of the same, unmodified llama_deploy {ORIGINAL_VERSION}: a control plane and a workflow service, "
        f"[bold]{SERVICE}[/bold]. One has the queue it came with, the other has wakeq.\n"
    )
    with ExitStack() as stack:
        with console.status("Starting queues, control planes and services (about 10 s)"):
            systems = _start_both(python, stack)
        for system in systems:
            console.print(f"[green]✓[/green] {system.name}: up")
        tasks = [_run_tasks(python, system, console) for system in systems]
        found = _watch(systems, seconds, console)
    console.print(_results(systems, found, tasks))
    console.print(
        "CPU is in percent of one core; the system is queue, control plane and service. A relay in front of each queue "
        "counts the requests. A consumer parked on wakeq asks again about once a minute; what CPU its system still "
        f"uses goes to llama_deploy's own timers. Task: median of {_TASKS}.\n",
        style="dim",
    )


def _start_both(python: Path, stack: ExitStack) -> list[System]:
    original = stack.enter_context(original_queue(python))
    ours = stack.enter_context(wakeq_server())
    systems = [
        stack.enter_context(_system("llama_deploy's queue", original, python)),
        stack.enter_context(_system("wakeq", ours, python)),
    ]
    for system in systems:
        system.services.wait_for_ready()
    return systems


@contextmanager
def _system(name: str, queue: Server, python: Path) -> Iterator[System]:
    control_plane_port, service_port = free_ports(2)
    with counting_relay(queue.url) as relay:
        command = [str(python), str(llama_deploy.script("system")), "--service-name", SERVICE]
        command += ["--queue-port", relay.url.rpartition(":")[2], "--service-port", str(service_port)]
        command += ["--control-plane-port", str(control_plane_port)]
        with Child(f"llama_deploy on {name}", command) as services:
            yield System(name, queue, relay, services, f"http://{HOST}:{control_plane_port}")


def _run_tasks(python: Path, system: System, console: Console) -> Task:
    command = [str(python), str(llama_deploy.script("client")), "--control-plane-url", system.control_plane_url]
    command += ["--service", SERVICE, "--arg", f"user_msg={USER_MSG}", "--runs", str(_TASKS)]
    with (
        console.status(f"Running a task through {system.name}"),
        Child(f"llama_deploy's client on {system.name}", command) as client,
    ):
        records = [client.wait_for_record("result", _TASK_MAX_S) for _ in range(_TASKS)]
    task = Task(str(records[0]["result"]), statistics.median(float(record["seconds"]) for record in records))
    console.print(
        f'[green]✓[/green] {system.name}: task user_msg="{USER_MSG}" → "{escape(task.result)}" in {task.seconds:.2f} s'
    )
    return task


def _watch(systems: list[System], seconds: float, console: Console) -> list[Idle]:
    console.print(f"\nNow nobody asks for anything, for {seconds:g} seconds:")
    time.sleep(_SETTLE_S)
    windows = [IdleWindow(system) for system in systems]
    found = [window.so_far() for window in windows]
    with Live(_counting(systems, found, seconds), console=console, auto_refresh=False, transient=True) as live:
        while (left := seconds - found[0].seconds) > 0:
            time.sleep(min(left, 1.0))
            found = [window.so_far() for window in windows]
            live.update(_counting(systems, found, seconds), refresh=True)
    return found


def _counting(systems: list[System], found: list[Idle], seconds: float) -> Group:
    table = _side_by_side(systems)
    table.add_row("requests to the queue so far", *(f"{one.requests}" for one in found))
    table.add_row("CPU of the whole system so far", *(f"{one.system_cpu_s:.2f} s" for one in found))
    left = max(0.0, seconds - found[0].seconds)
    return Group(table, Text(f"{left:.0f} s left", style="dim"))


def _results(systems: list[System], found: list[Idle], tasks: list[Task]) -> Table:
    table = _side_by_side(systems)
    table.add_column("times less", justify="right")
    requests = [one.requests / one.seconds for one in found]
    queue = [100 * one.queue_cpu_s / one.seconds for one in found]
    system = [100 * one.system_cpu_s / one.seconds for one in found]
    table.add_row("idle: requests to queue", *(f"{rate:.2f} /s" for rate in requests), times_less(requests))
    table.add_row("idle: CPU of queue", *(f"{share:.2f} %" for share in queue), times_less(queue))
    table.add_row("idle: CPU of system", *(f"{share:.2f} %" for share in system), times_less(system))
    durations = [task.seconds for task in tasks]
    table.add_row("task until its result", *(f"{duration:.2f} s" for duration in durations), times_less(durations))
    return table


def times_less(pair: list[float]) -> str:
    """How much less the second is than the first, for a table."""
    first, second = pair
    if not second:
        return "none left" if first else ""
    return readable(round(first / second, 2 if first < 10 * second else 0))


def _side_by_side(systems: list[System]) -> Table:
    table = Table()
    table.add_column("")
    for system in systems:
        table.add_column(f"on {system.name}", justify="right")
    return table


async def _show_alone(console: Console) -> None:
    with wakeq_server() as server:
        console.print(f"\n[green]✓[/green] wakeq serve: listening on {server.url}")
        async with wakeq.AsyncClient(server.url) as client:
            await client.create_topic(_TOPIC, schema="json")
            console.print(f"[green]✓[/green] a consumer parks on the topic {_TOPIC}, and nobody publishes")
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_consume_one, client, console)
                    await _publish_later(client, server, console)
            except ExceptionGroup as group:
                raise group.exceptions[0] from group


async def _publish_later(client: wakeq.AsyncClient, server: Server, console: Console) -> None:
    await anyio.sleep(_SETTLE_S)
    window = CpuWindow({"server": server.child.pid})
    await anyio.sleep(_ALONE_S)
    share = readable(100 * window.cores()["server"])
    console.print(f"[green]✓[/green] the server has used {share} % of a core in {_ALONE_S:g} s of that")
    await client.publish(_TOPIC, {"hello": "world", "published_at": time.perf_counter()})


async def _consume_one(client: wakeq.AsyncClient, console: Console) -> None:
    async with client.consume(_TOPIC) as deliveries:
        delivery = await anext(deliveries)
        waited_ms = 1000 * (time.perf_counter() - delivery.body["published_at"])
        await delivery.ack()
    console.print(f"[green]✓[/green] published, and {waited_ms:.1f} ms later the consumer has it: hello, world\n")


def _sentence(line: str) -> str:
    return f"First run: {escape(line)}" if line else ""
