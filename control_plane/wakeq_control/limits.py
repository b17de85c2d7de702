"""How much there may be of everything that grows. What goes beyond is refused, or ended, and nothing else is."""

from typing import NamedTuple

_MIB = 1024 * 1024


class Limits(NamedTuple):
    """What an operator may set, and what it is where he doesn't."""

    sessions: int = 100_000
    tasks: int = 100_000
    """Those that have not ended, of all sessions; how many that have are kept is another matter."""
    events: int = 100_000
    """Of one task, and as many inputs for it."""
    events_bytes: int = 64 * _MIB
    """Of one task, as lines of JSON, and as many of its inputs."""
    state_bytes: int = 64 * _MIB
    """Of one session's state, without what its tasks show in it."""
    body_bytes: int = 64 * _MIB
    """Of one request: a session's state may come in one."""


DEFAULTS = Limits()
