"""What a server, or a worker, sets for its whole process."""

import contextlib
import gc
import resource
import sys

_AS_IT_COMES = {(700, 10, 10), (2_000, 10, 0), (2_000, 10, 10)}
"""Thresholds of CPython's releases."""

_YOUNG, _MIDDLE = 1_000, 5
"""Objects after which those that are new are looked through, and how often that is done before those that were left
are, too. A collection stops the loop for a third of a microsecond an object and more: these are often, and short."""
_FULL = 100


def tune_process(full: int = _FULL) -> int:
    """Raise the limit of open files, and set the garbage collector and the switch interval. Returns the limit.

    A full collection, which walks all there is, comes after ``full`` of the second kind at the earliest.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, full)
    # The writer's thread needs the GIL a few times a commit, and waits so long for it each time while the event loop is
    # busy: with the default of 5 ms a commit takes a hundred times what it takes otherwise, with this twice.
    sys.setswitchinterval(0.0002)
    return soft


def tune_collector() -> None:
    """Set the garbage collector of a process that runs other people's code, unless that has set it.

    A run of a workflow leaves hundreds of objects that refer to each other. With CPython's thresholds a tenth of a
    worker's time goes into looking at all that was loaded, again and again.
    """
    gc.collect()
    gc.freeze()
    if gc.get_threshold() in _AS_IT_COMES:
        # Not as seldom as a server's: what is collected here may be large.
        gc.set_threshold(10_000, 10, 10)
