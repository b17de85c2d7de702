"""The life of a task.

    queued ◄─► running ◄─► waiting_input
       │          │              │
       └──────────┴──────┬───────┘
                        ▼
      succeeded, failed, cancelled, timed_out

A task is queued from its creation until something is heard of it, and again when an attempt has failed and another
follows. The first end wins: whatever comes for a task that
has ended (a message delivered again, a result that was overtaken by a deadline) changes nothing, but that events which
their result has overtaken are kept.
"""

from wakeq_control.model import TaskStatus

OPEN = frozenset({TaskStatus.QUEUED, TaskStatus.RUNNING, TaskStatus.WAITING_INPUT})
ENDED = frozenset(TaskStatus) - OPEN

_NEXT: dict[TaskStatus, frozenset[TaskStatus]] = {
    TaskStatus.QUEUED: frozenset({TaskStatus.RUNNING, TaskStatus.WAITING_INPUT}) | ENDED,
    TaskStatus.RUNNING: frozenset({TaskStatus.QUEUED, TaskStatus.WAITING_INPUT}) | ENDED,
    TaskStatus.WAITING_INPUT: frozenset({TaskStatus.QUEUED, TaskStatus.RUNNING}) | ENDED,
    **{status: frozenset() for status in ENDED},
}


def may_become(now: TaskStatus, then: TaskStatus) -> bool:
    """Whether the table has that step."""
    return then in _NEXT[now]
