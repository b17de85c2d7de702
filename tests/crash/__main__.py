"""`python -m tests.crash`: kills servers under load, and checks what clients saw.

With `--plane` a queue, a control plane, workers and a service of llama_deploy; with `--deploy` a `wakeq deploy` and all
of its parts, through its API server.
"""

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.compat.under_test import python_of
from tests.crash.deployment import Deployment
from tests.crash.rounds import Outcome, run
from tests.crash.supervised import Supervised
from tests.crash.tasks import Target, run_tasks


def main() -> int:
    """Exit code 1 where something that was promised did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None, help="what everything is drawn from; default: the time")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--plane", action="store_true", help="a control plane instead: --rounds kills while tasks run")
    what.add_argument("--deploy", action="store_true", help="a supervised deployment instead, the same")
    parser.add_argument("--tasks", type=int, default=200, help="how many, with --plane and --deploy")
    given = parser.parse_args()
    seed = time.time_ns() % 1_000_000 if given.seed is None else given.seed
    sys.stdout.write(f"seed {seed}\n")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as data:
        outcome = _outcome(given, Path(data), seed)
    counts = ", ".join(f"{count} {what}" for what, count in outcome.counts.items())
    sys.stdout.write(f"{given.rounds} rounds, {counts}, {time.perf_counter() - started:.1f} s\n")
    sys.stdout.write("\n".join([*outcome.violations, ""]))
    return bool(outcome.violations)


def _outcome(given: argparse.Namespace, data: Path, seed: int) -> Outcome:
    if not (given.plane or given.deploy):
        return run(data, given.rounds, seed)
    with ExitStack() as stack:
        target: Target = Supervised(data, stack) if given.deploy else Deployment(data, python_of("0.8.1"), stack)
        return run_tasks(target, given.tasks, given.rounds, seed)


sys.exit(main())
