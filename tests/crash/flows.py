"""What the workers of the crash runs work on."""

import anyio

from wakeq_control.service import TaskContext


async def steps(events: int, pause: float, ask: bool = False, *, task: TaskContext) -> str:
    """Emits so many events, with a pause in seconds behind each: there is always something to die with."""
    for number in range(events):
        task.emit({"number": number})
        await anyio.sleep(pause)
    if ask:
        task.emit({"prefix": "go on?"})
        return f"done: {await task.receive()}"
    return f"done: {events}"
