"""`python -m tests.crash`: kills servers under load, and checks what clients saw; with `--plane`, a deployment."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.compat.under_test import python_of
from tests.crash.rounds import run
from tests.crash.tasks import run_tasks


def main() -> int:
    """Exit code 1 where something that was promised did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None, help="what everything is drawn from; default: the time")
    parser.add_argument("--plane", action="store_true", help="a deployment instead: --rounds kills while tasks run")
    parser.add_argument("--tasks", type=int, default=200, help="how many, with --plane")
    given = parser.parse_args()
    seed = time.time_ns() % 1_000_000 if given.seed is None else given.seed
    sys.stdout.write(f"seed {seed}\n")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as data:
        if given.plane:
            outcome = run_tasks(Path(data), python_of("0.8.1"), given.tasks, given.rounds, seed)
        else:
            outcome = run(Path(data), given.rounds, seed)
    counts = ", ".join(f"{count} {what}" for what, count in outcome.counts.items())
    sys.stdout.write(f"{given.rounds} rounds, {counts}, {time.perf_counter() - started:.1f} s\n")
    sys.stdout.write("\n".join([*outcome.violations, ""]))
    return bool(outcome.violations)


sys.exit(main())
