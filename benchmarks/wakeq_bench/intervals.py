"""How sure a median is, without assuming anything about how samples are distributed.

Benchmarks have few rounds, and their times have long tails, so nothing here supposes a normal distribution. The
interval of a median is bounded by two of the samples themselves, and that of a ratio by two ratios of pairs; how often
such bounds hold the true value follows from counting alone. Few samples can't make 95 %: then the interval is the
widest there is, and says what it makes.
"""

import math
import statistics
from collections.abc import Sequence
from functools import cache

from pydantic.dataclasses import dataclass

CONFIDENCE = 0.95
"""What intervals aim at."""


@dataclass(frozen=True)
class Interval:
    """Where the true value lies, and how often such an interval holds it."""

    low: float
    high: float
    confidence: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def median_interval(samples: Sequence[float]) -> Interval:
    """Of the median, between two of the samples (order statistics). Raises ValueError if there are none."""
    if not samples:
        raise ValueError("no values")
    ordered, count = sorted(samples), len(samples)
    # How many of them lie below the true median is as the heads of so many coins.
    outside, chosen = 0.0, 0
    for cut in range((count - 1) // 2):
        outside += math.comb(count, cut) / 2**count
        more = outside + math.comb(count, cut + 1) / 2**count
        if 1 - 2 * more < CONFIDENCE:
            break
        chosen = cut + 1
    left_out = sum(math.comb(count, below) for below in range(chosen + 1)) / 2**count
    return Interval(ordered[chosen], ordered[count - 1 - chosen], max(0.0, 1 - 2 * left_out))


def ratio_interval(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Of how many times larger one is than the other, by the exact test of Mann and Whitney turned round.

    Raises ValueError where there are none, or one of them isn't above 0.
    """
    if not ours or not theirs:
        raise ValueError("no values")
    if min(*ours, *theirs) <= 0:
        raise ValueError("a ratio needs values above 0")
    ratios = sorted(our / their for our in ours for their in theirs)
    total = math.comb(len(ours) + len(theirs), len(ours))
    below, chosen = _rank_sum_counts(len(ours), len(theirs)), 0
    outside = 0
    for cut in range((len(ratios) - 1) // 2):
        outside += below[cut]
        if 1 - 2 * (outside + below[cut + 1]) / total < CONFIDENCE:
            break
        chosen = cut + 1
    left_out = sum(below[: chosen + 1])
    return Interval(ratios[chosen], ratios[len(ratios) - 1 - chosen], max(0.0, 1 - 2 * left_out / total))


def spread(samples: Sequence[float]) -> float:
    """How far apart the middle half of the samples lies, of their median; 0 where one alone can't tell."""
    middle = statistics.median(samples)
    if len(samples) < 3 or not middle:
        return 0.0
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return abs((high - low) / middle)


@cache
def _rank_sum_counts(ours: int, theirs: int) -> tuple[int, ...]:
    """In how many orders of all values exactly so many pairs have ours below theirs, for 0, 1, 2, ... pairs."""
    if not ours or not theirs:
        return (1,)
    # Whoever is the largest: if it is one of theirs, all of ours are below it.
    theirs_last, ours_last = _rank_sum_counts(ours, theirs - 1), _rank_sum_counts(ours - 1, theirs)
    return tuple(
        (theirs_last[pairs - ours] if 0 <= pairs - ours < len(theirs_last) else 0)
        + (ours_last[pairs] if pairs < len(ours_last) else 0)
        for pairs in range(ours * theirs + 1)
    )
