"""`python -m tests.simulation`: runs one simulation, or a replay of one."""

import argparse
import sys
import time

from tests.simulation.plane.run import simulate as simulate_plane
from tests.simulation.run import STORES, simulate


def main() -> int:
    """Exit code 1 where something that was promised did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="what everything is drawn from; default: the time")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--store", choices=STORES, default="memory")
    parser.add_argument("--plane", action="store_true", help="the control plane instead of the queue")
    parser.add_argument("--history", action="store_true", help="print the whole history")
    given = parser.parse_args()
    seed = time.time_ns() % 1_000_000 if given.seed is None else given.seed
    started = time.perf_counter()
    outcome = (simulate_plane if given.plane else simulate)(seed, given.steps, given.store)
    if given.history:
        sys.stdout.write("\n".join(outcome.lines) + "\n")
    elif outcome.violation:
        sys.stdout.write("\n".join(outcome.lines[-50:]) + "\n")
    counts = ", ".join(f"{count} {what}" for what, count in outcome.counts.items())
    sys.stdout.write(f"seed {seed}, {outcome.step} steps, {counts}, {time.perf_counter() - started:.1f} s\n")
    if outcome.violation:
        sys.stdout.write(f"violated at step {outcome.step}: {outcome.violation}\n")
    return bool(outcome.violation)


sys.exit(main())
