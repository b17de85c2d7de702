"""What a server, or a worker, sets for its whole process."""

import contextlib
import gc
import resource
import sys

_FOUND = gc.get_threshold()


def tune_process() -> int:
    """Raise the limit of open files, and set the garbage collector and the switch interval. Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    # A full collection walks every parked request; with CPython's thresholds, parking 10,000 is mostly that.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
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
    if gc.get_threshold() == _FOUND:
        # Not as seldom as a server's: what is collected here may be large.
        gc.set_threshold(10_000, 10, 10)
