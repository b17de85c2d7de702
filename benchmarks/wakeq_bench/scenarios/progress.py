"""A progress bar in seconds of work, which only draws when told to: nothing of it runs while something is timed."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

_DRAW_EVERY_S = 1.0


class Work:
    """The bar of one scenario; `planned_s` is what its steps will take together."""

    def __init__(self, console: Console, planned_s: float) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, auto_refresh=False, transient=True)
        self._task = self._progress.add_task("starting", total=planned_s)

    def step(self, description: str) -> None:
        """Say what happens now."""
        self._progress.update(self._task, description=description, refresh=True)

    def done(self, seconds: float) -> None:
        """So many of the planned seconds are over."""
        self._progress.update(self._task, advance=seconds, refresh=True)

    def wait(self, seconds: float) -> None:
        """Let a window of measurement go by."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            pause = min(left, _DRAW_EVERY_S)
            time.sleep(pause)
            self.done(pause)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
