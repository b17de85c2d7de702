"""Histograms as `/metrics` shows them: how many took at most so long, since the server's start."""

import math
import re
from dataclasses import dataclass, field
from itertools import pairwise

from wakeq_bench.scenarios.raw import call

COMMIT = "wakeq_commit_seconds"
"""From a batch being handed to the store to its being durable."""

_BUCKET = re.compile(r'^(\w+)_bucket\{(?:[^}]*,)?le="([^"]+)"[^}]*\} (\S+)')


@dataclass(frozen=True)
class Histogram:
    """Cumulative counts by upper bound; two of them add up and subtract, an empty one is like zero."""

    counts: dict[float, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """How many there are."""
        return self.counts.get(math.inf, 0.0)

    def quantile(self, share: float) -> float:
        """The value that `share` of them do not exceed, on a straight line within its bucket; NaN if there are none."""
        wanted = share * self.total
        for (low, below), (high, up_to) in pairwise([(0.0, 0.0), *sorted(self.counts.items())]):
            if up_to >= wanted and up_to > below:
                return low if math.isinf(high) else low + (high - low) * (wanted - below) / (up_to - below)
        return math.nan

    def as_json(self) -> dict[str, float]:
        """For the JSON file."""
        return {str(bound): count for bound, count in self.counts.items()}

    def __add__(self, other: "Histogram") -> "Histogram":
        bounds = {**self.counts, **other.counts}
        return Histogram({bound: self.counts.get(bound, 0.0) + other.counts.get(bound, 0.0) for bound in bounds})

    def __sub__(self, other: "Histogram") -> "Histogram":
        return Histogram({bound: count - other.counts.get(bound, 0.0) for bound, count in self.counts.items()})


def histogram_in(text: str, name: str) -> Histogram:
    """One histogram of the text of `/metrics`, summed over its labels; empty where there is none of that name."""
    found = Histogram()
    for match in map(_BUCKET.match, text.splitlines()):
        if match and match[1] == name:
            found += Histogram({float(match[2]): float(match[3])})
    return found


def commits_of(url: str) -> Histogram:
    """What the server's commits took since its start. Raises BrokenAnswer, OSError."""
    return histogram_in(call(url, "GET", "/metrics").body.decode(), COMMIT)
