"""`wakeq demo`: a whole deployment of the unmodified llama_deploy beside the same one of wakeq, and what each costs.

Without llama_deploy it shows a parked consumer of wakeq alone. Everything it starts ends with it.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import anyio
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

import wakeq
from wakeq_bench.measure import CpuWindow, ProcessGone
from wakeq_bench.peers import PeerUnavailable, llama_deploy
from wakeq_bench.processes import HOST, Child, ProcessFailed, Server, ending_on_signals, free_ports
from wakeq_bench.report import readable
from wakeq_bench.scenarios.deployments import SERVICE, deployed, file_of
from wakeq_bench.scenarios.raw import BrokenAnswer
from wakeq_bench.scenarios.relay import counting_relay
from wakeq_bench.scenarios.servers import ORIGINAL_VERSION, metric, original_queue, wakeq_server

USER_MSG = "hello"

_TASKS = 5
_EVENTS = 20
_TASK_MAX_S = 60.0
# Everybody is parked, and what starting has left to do is done.
_SETTLE_S = 2.0
_ALONE_S = 5.0
_TOPIC = "greetings"
_REQUESTS_TOTAL = "wakeq_requests_total"

_NEXT = """\
[bold]What to try next[/bold]
  wakeq deploy examples/agentic_workflow/deployment.yml     [dim]# a deployment of your own begins like this one[/dim]
  wakeq run --deployment AgenticWorkflow --arg user_msg "Hello from my shell!"
  wakeq serve                    [dim]# the queue alone, on port 8001, where llama_deploy expects its own[/dim]
  curl -X PUT  127.0.0.1:8001/topics/greetings -H 'content-type: application/json' -d '{"schema": "json"}'
  curl '127.0.0.1:8001/messages/greetings?wait=60' &     [dim]# parked, until somebody publishes:[/dim]
  curl -X POST 127.0.0.1:8001/messages/greetings -H 'content-type: application/json' -d '{"hello": "world"}'
  wakeq bench run deployment     [dim]# the same comparison, measured at length[/dim]"""


@dataclass(frozen=True)
class System:
    """A whole deployment that is up."""

    name: str
    parts: str
    """What it consists of, for a person."""
    control_plane_url: str
    children: tuple[Child, ...]
    """All its processes, or their parents."""
    requests: Callable[[], int]
    """How many its queue has had so far; to be asked seldom, where that is a request."""
    started_s: float
    """How long it took to be up."""


@dataclass(frozen=True)
class Tasks:
    """What became of the tasks that were run through a system."""

    result: str
    result_s: float
    """Median of the time to a task's result."""
    events_s: float
    """How long a task with many events took, until the last was seen."""


@dataclass(frozen=True)
class Idle:
    """What a system has used while nothing happened."""

    seconds: float
    cpu_s: float
    requests: int


def demo(
    seconds: Annotated[float, typer.Option(min=2, help="How long both are watched while idle.")] = 20.0,
) -> None:
    """Run a deployment of llama_deploy and the same one of wakeq, and compare what they cost and how fast they are."""
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
        f"One workflow, [bold]{SERVICE}[/bold], deployed twice: by llama_deploy {ORIGINAL_VERSION}, unmodified, and by "
        "[bold]wakeq deploy[/bold] with this file. Clients are llama_deploy's own, unmodified, in both cases.\n"
    )
    console.print(Syntax(file_of(), "yaml", background_color="default"))
    with ExitStack() as stack:
        with console.status("Starting both (about 10 s)"):
            systems = [stack.enter_context(_original(python)), stack.enter_context(_ours())]
        for system in systems:
            console.print(f"[green]✓[/green] {system.name}: up after {system.started_s:.1f} s: {system.parts}")
        console.print()
        tasks = [_run_tasks(python, system, console) for system in systems]
        idle = _watch(systems, seconds, console)
    console.print(_results(systems, idle, tasks))
    console.print(
        "CPU is in percent of one core, and that of all processes: queue, control plane and service. Those of "
        "llama_deploy ask again and again whether there is something, and so do its clients; with wakeq whoever waits "
        "is parked until there is. "
        f"A task: median of {_TASKS}, from its creation to its result.\n",
        style="dim",
    )


@contextmanager
def _original(python: Path) -> Iterator[System]:
    began = time.perf_counter()
    control_plane_port, service_port = free_ports(2)
    with original_queue(python) as queue, counting_relay(queue.url) as relay:
        command = [str(python), str(llama_deploy.script("system")), "--service-name", SERVICE]
        command += ["--queue-port", relay.url.rpartition(":")[2], "--service-port", str(service_port)]
        command += ["--control-plane-port", str(control_plane_port)]
        with Child("llama_deploy", command) as services:
            services.wait_for_ready()
            yield System(
                "llama_deploy",
                "its queue, its control plane, a workflow service",
                f"http://{HOST}:{control_plane_port}",
                (queue.child, services),
                lambda: relay.requests,
                time.perf_counter() - began,
            )


@contextmanager
def _ours() -> Iterator[System]:
    with deployed() as deployment:
        yield System(
            "wakeq",
            "a queue, a control plane, an API server, a worker",
            deployment.control_plane_url,
            (deployment.child,),
            _Requests(deployment.queue_url),
            deployment.started_s,
        )


class _Requests:
    """Those that a queue server of ours has had, without the questions for it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._asked = 0

    def __call__(self) -> int:
        found = metric(self._url, _REQUESTS_TOTAL) - self._asked
        self._asked += 1
        return found


def _run_tasks(python: Path, system: System, console: Console) -> Tasks:
    with console.status(f"Running tasks through {system.name}"):
        echoes = _client(python, system, _TASKS)
        streams = _client(python, system, 1, "--stream", "--arg", f"events={_EVENTS}")
    tasks = Tasks(
        str(echoes[0]["result"]),
        statistics.median(float(record["seconds"]) for record in echoes),
        float(streams[0]["last_event_seconds"]),
    )
    told = f'user_msg="{USER_MSG}" → "{escape(tasks.result)}"'
    console.print(f"[green]✓[/green] {system.name}: task {told} in {tasks.result_s:.2f} s")
    return tasks


def _client(python: Path, system: System, runs: int, *options: str) -> list[dict[str, Any]]:
    """What llama_deploy's own client says of so many tasks. Raises ProcessFailed."""
    command = [str(python), str(llama_deploy.script("client")), "--control-plane-url", system.control_plane_url]
    # One more, which finds everything loaded for those that count.
    command += ["--service", SERVICE, "--arg", f"user_msg={USER_MSG}", "--runs", str(runs + 1), *options]
    with Child(f"llama_deploy's client on {system.name}", command) as client:
        return [client.wait_for_record("result", _TASK_MAX_S) for _ in range(runs + 1)][1:]


def _watch(systems: list[System], seconds: float, console: Console) -> list[Idle]:
    console.print(f"\nNow nobody asks for anything, for {seconds:g} seconds:")
    time.sleep(_SETTLE_S)
    before = [system.requests() for system in systems]
    windows = [CpuWindow({child.name: child.pid for child in system.children}) for system in systems]
    with Live(_so_far(systems, windows, seconds), console=console, auto_refresh=False, transient=True) as live:
        while (left := seconds - windows[0].seconds) > 0:
            time.sleep(min(left, 1.0))
            live.update(_so_far(systems, windows, seconds), refresh=True)
    spent = [(window.seconds, sum(window.spent().values())) for window in windows]
    made = [system.requests() - count for system, count in zip(systems, before, strict=True)]
    return [Idle(*used, requests) for used, requests in zip(spent, made, strict=True)]


def _so_far(systems: list[System], windows: list[CpuWindow], seconds: float) -> Group:
    table = _side_by_side(systems)
    table.add_row("CPU so far", *(f"{sum(window.spent().values()):.3f} s" for window in windows))
    left = max(0.0, seconds - windows[0].seconds)
    return Group(table, Text(f"{left:.0f} s left", style="dim"))


def _results(systems: list[System], idle: list[Idle], tasks: list[Tasks]) -> Table:
    table = _side_by_side(systems)
    table.add_column("times less", justify="right", style="bold green")
    cpu = [100 * one.cpu_s / one.seconds for one in idle]
    requests = [one.requests / one.seconds for one in idle]
    results = [one.result_s for one in tasks]
    events = [one.events_s for one in tasks]
    table.add_row("idle: CPU", *(f"{share:.2f} %" for share in cpu), times_less(cpu))
    table.add_row("idle: requests to the queue", *(f"{rate:.2f} /s" for rate in requests), times_less(requests))
    table.add_row("a task, until its result", *(f"{one:.3f} s" for one in results), times_less(results))
    table.add_row(f"{_EVENTS} events, until the last is seen", *(f"{one:.3f} s" for one in events), times_less(events))
    return table


def times_less(pair: list[float]) -> str:
    """How much less the second is than the first, for a table."""
    first, second = pair
    if not second:
        return "none left" if first else ""
    return readable(round(first / second, 2 if first < 10 * second else 0))


def _side_by_side(systems: list[System]) -> Table:
    table = Table(title="The same deployment, twice", title_justify="left")
    table.add_column("")
    for system in systems:
        table.add_column(system.name, justify="right")
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
