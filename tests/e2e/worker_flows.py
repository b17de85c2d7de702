"""What the workers of these tests run."""

import anyio
from workflows import Context, Workflow, step
from workflows.events import Event, HumanResponseEvent, InputRequiredEvent, StartEvent, StopEvent

from wakeq_control.service import NotRetryable, TaskContext


async def echo(user_msg: str, events: int = 0, *, task: TaskContext) -> str:
    """Says some numbers, then what it was told."""
    for number in range(events):
        task.emit({"n": number})
    return f"echo: {user_msg}"


async def fail(why: str) -> None:
    raise ValueError(why)


async def stuck_at_first(task: TaskContext) -> str:
    """Of two attempts only the second comes to its end."""
    for number in range(5):
        task.emit({"n": number})
    if task.attempt == 1:
        await anyio.sleep_forever()
    for number in range(5, 10):
        task.emit({"n": number})
    return f"attempt {task.attempt}"


async def flaky(good: int, final: bool = False, *, task: TaskContext) -> str:
    """Fails until the attempt that is good, each having shown one event more than the one before."""
    for number in range(task.attempt):
        task.emit({"n": number})
    if task.attempt < good:
        raise NotRetryable("never") if final else ValueError(f"attempt {task.attempt}")
    return f"attempt {task.attempt}"


async def asking(task: TaskContext) -> str:
    """Asks two questions; its first attempt never gets beyond the first answer."""
    answers = []
    for number in range(2):
        task.emit({"prefix": f"question {number}"})
        answers.append(await task.receive())
        if task.attempt == 1 and answers == ["stop"]:
            task.emit({"n": 1})
            await anyio.sleep_forever()
        if answers != ["stop"]:
            continue
        task.emit({"n": 1})
    return f"answers: {answers}"


async def first_fails(path: str) -> str:
    """Fails once, of all that are called with that path."""
    try:
        await anyio.Path(path).touch(exist_ok=False)
    except FileExistsError:
        return "done"
    raise ValueError("the first of all")


async def waiting(task: TaskContext) -> str:
    """Ends when it is told something."""
    task.emit({"n": 0})
    return f"told: {await task.receive()}"


class Asked(StartEvent):
    user_msg: str
    events: int = 0
    ask: bool = False


class Progress(Event):
    number: int


class Flow(Workflow):
    """Streams events, may ask a human, and counts in its context."""

    @step
    async def begin(self, ctx: Context, ev: Asked) -> InputRequiredEvent | StopEvent:
        runs = await ctx.store.get("runs", default=0) + 1
        await ctx.store.set("runs", runs)
        if ev.user_msg == "fail":
            raise RuntimeError("it failed")
        for number in range(ev.events):
            ctx.write_event_to_stream(Progress(number=number))
        if ev.ask:
            return InputRequiredEvent(prefix="who?")
        return StopEvent(result=f"echo: {ev.user_msg}, run {runs}")

    @step
    async def answered(self, ctx: Context, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent(result=f"answer: {ev.response}")


class Chatty(Workflow):
    """Takes anything, as text; what clients of llama_deploy are tried with."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> InputRequiredEvent | StopEvent:
        for number in range(int(ev.get("events", 0))):
            ctx.write_event_to_stream(Progress(number=number))
        if ev.get("ask"):
            return InputRequiredEvent(prefix=ev.ask)
        return StopEvent(result=f"echo: {ev.user_msg}")

    @step
    async def answered(self, ev: HumanResponseEvent) -> StopEvent:
        return StopEvent(result=f"answer: {ev.response}")


flow = Flow(timeout=None)
chatty = Chatty(timeout=None)
