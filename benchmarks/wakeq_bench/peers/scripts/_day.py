"""What happens in a deployment of agents on one day: which tasks come when, and what each has services do.

All of it follows from a seed, so that everybody has the same day, and it can be had again.

Run by the python of a peer's environment: the standard library only.
"""

import math
import random
from dataclasses import dataclass

HOURS = 24
MORNING = 7
"""The hour at which people come; before it a few stragglers, and what is started by the clock."""
SERVICES = 5

# How busy each hour is: a quiet night, a peak before noon and one after it.
_BUSY = (1, 1, 1, 1, 1, 2, 3, 8, 16, 24, 28, 26, 14, 18, 26, 28, 24, 16, 10, 6, 5, 4, 2, 1)
# Jobs that the clock starts all at once, as a share of the day's tasks.
_CLOCK_HOUR, _CLOCK_SHARE = 3, 0.05
_STEPS = (1, 2, 3, 4)
_STEP_WEIGHTS = (40, 30, 20, 10)
_EVENTS_MAX = 4
# What a service takes for a step, as a language model does: mostly short, at times much longer.
_THINK_MEDIAN_S, _THINK_SPREAD, _THINK_MAX_S = 0.05, 0.8, 1.0
_SIZE_MEDIAN, _SIZE_SPREAD, _SIZE_MIN, _SIZE_MAX = 700, 1.3, 100, 100_000


@dataclass(frozen=True)
class Step:
    """What one service does for a task."""

    service: int
    think_s: float
    events: int
    size: int
    """Bytes of what it is sent, and of what it answers."""


@dataclass(frozen=True)
class Task:
    """A task: when it comes, in seconds since midnight, and its steps, one after the other."""

    due_s: float
    steps: tuple[Step, ...]

    @property
    def think_s(self) -> float:
        """What services take for it, which no queue can save."""
        return sum(step.think_s for step in self.steps)

    @property
    def messages(self) -> int:
        """How many it takes: the task, then each step with its events and its result, and the answer."""
        return 2 + sum(2 + step.events for step in self.steps)


def day(seed: int, tasks: int, seconds: float) -> list[Task]:
    """The tasks of a day that is over in `seconds`, in order."""
    chance = random.Random(seed)
    hour_s, by_clock = seconds / HOURS, round(tasks * _CLOCK_SHARE)
    due = [_CLOCK_HOUR * hour_s] * by_clock
    hours = chance.choices(range(HOURS), weights=_BUSY, k=tasks - by_clock)
    due += [hour * hour_s + chance.uniform(0, hour_s) for hour in hours]
    return [Task(at, _steps(chance)) for at in sorted(due)]


def morning_s(seconds: float) -> float:
    """When the night is over, in seconds since midnight, on a day of so many."""
    return MORNING * seconds / HOURS


def _steps(chance: random.Random) -> tuple[Step, ...]:
    count = chance.choices(_STEPS, weights=_STEP_WEIGHTS)[0]
    return tuple(
        Step(
            chance.randrange(SERVICES),
            min(_THINK_MAX_S, _skewed(chance, _THINK_MEDIAN_S, _THINK_SPREAD)),
            chance.randint(0, _EVENTS_MAX),
            max(_SIZE_MIN, min(_SIZE_MAX, round(_skewed(chance, _SIZE_MEDIAN, _SIZE_SPREAD)))),
        )
        for _ in range(count)
    )


def _skewed(chance: random.Random, median: float, spread: float) -> float:
    return chance.lognormvariate(math.log(median), spread)
