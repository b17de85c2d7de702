"""`python -m tests.crash`: kills servers under load, and checks what their clients saw."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.rounds import run


def main() -> int:
    """Exit code 1 where something that was promised did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None, help="what everything is drawn from; default: the time")
    given = parser.parse_args()
    seed = time.time_ns() % 1_000_000 if given.seed is None else given.seed
    sys.stdout.write(f"seed {seed}\n")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as data:
        outcome = run(Path(data), given.rounds, seed)
    counts = ", ".join(f"{count} {what}" for what, count in outcome.counts.items())
    sys.stdout.write(f"{given.rounds} rounds, {counts}, {time.perf_counter() - started:.1f} s\n")
    sys.stdout.write("\n".join([*outcome.violations, ""]))
    return bool(outcome.violations)


sys.exit(main())
