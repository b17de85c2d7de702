"""What is counted on the way. Plain integers: the price of a count is an addition, whether anybody looks or not."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

# Close together where a disk's syncs and a wake lie: a median is read out of them.
LATENCY_BUCKETS_S = (
    *(0.0001, 0.00015, 0.0002, 0.0003, 0.0004, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)


class Histogram:
    """Durations by bucket, in Prometheus' sense: a bucket counts what is at most its bound."""

    def __init__(self, bounds: Sequence[float] = LATENCY_BUCKETS_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class Stats:
    """Totals since the start of the process."""

    def __init__(self) -> None:
        self.published = 0
        self.delivered = 0
        self.redelivered = 0
        self.expired = 0
        self.undone = 0
        self.duplicates = 0
        """Publishes that enqueued nothing, since their idempotency key was known."""
        self.dead = 0
        self.dropped_by_ttl = 0
        self.keys_forgotten = 0
        """Idempotency keys that were forgotten before their time."""
        self.settled: Counter[str] = Counter()
        self.refused_publishes: Counter[tuple[str, str]] = Counter()
        """By topic and code; only publishers that don't look at the answer are counted."""
        self.pushes_delivered = 0
        self.pushes_failed = 0
        """Answers that were no success, and those that didn't come in time."""
        self.pushes_suspended = 0
        """How many are, now."""
        self.commits = 0
        self.memory_bytes = 0
        """What messages in memory cost now, and what they may."""
        self.memory_budget_bytes = 0
        self.commit_s = Histogram()
        """From a batch being handed to the store to its being durable."""
        self.publish_s = Histogram()
        """From a publish's arrival to its messages being durable and dealt."""
        self.wake_s = Histogram()
        """From a message being handed to a parked consumer to that consumer running."""
