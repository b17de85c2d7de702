"""Histograms of a high dynamic range: from a microsecond to minutes in a thousand buckets, each value within 1 %.

Buckets are as wide as a hundredth of what they hold, so a percentile can be read as exactly at the far end, where few
are, as in the middle. Counts of rounds add up, which percentiles of rounds would not.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

_STEPS = 64
"""Buckets from a value to its double."""
UNIT_S = 1e-6


@dataclass(config=ConfigDict(extra="forbid"))
class Latencies:
    """Durations in seconds, as counts by bucket; those under a microsecond count as one."""

    counts: dict[int, int] = Field(default_factory=dict)

    @classmethod
    def of(cls, durations_s: Iterable[float]) -> "Latencies":
        """A histogram of these."""
        return cls(dict(sorted(Counter(map(_bucket, durations_s)).items())))

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.counts.values())

    def percentile(self, percent: float) -> float:
        """Seconds that `percent` of them do not exceed, by the middle of a bucket. Raises ValueError if empty."""
        wanted, seen = max(1, math.ceil(self.total * percent / 100)), 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return _middle_s(bucket)
        raise ValueError("no values")

    def curve(self) -> Iterator[tuple[float, float]]:
        """Share that is slower, and seconds: bucket by bucket, from the fastest on."""
        total, seen = self.total, 0
        for bucket in sorted(self.counts):
            yield 1 - seen / total, _middle_s(bucket)
            seen += self.counts[bucket]

    def __add__(self, other: "Latencies") -> "Latencies":
        return Latencies(dict(sorted((Counter(self.counts) + Counter(other.counts)).items())))


def _bucket(seconds: float) -> int:
    return math.floor(_STEPS * math.log2(max(1.0, seconds / UNIT_S)))


def _middle_s(bucket: int) -> float:
    return float(UNIT_S * 2 ** ((bucket + 0.5) / _STEPS))
