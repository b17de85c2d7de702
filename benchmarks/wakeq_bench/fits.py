"""How a cost grows with a size: a power law through all samples, and how sure its exponent is.

The exponent is the median of the slopes between all pairs of samples on logarithmic scales (Theil and Sen), which a few
rounds that were disturbed don't move. Its interval lies between two of these slopes; how often such a one holds the
true exponent follows from Kendall's statistic by counting, as in `intervals`, without assuming how samples are spread.
"""

import math
import statistics
from collections.abc import Mapping, Sequence

from pydantic.dataclasses import dataclass

from wakeq_bench.intervals import CONFIDENCE, Interval, rank_sum_counts


@dataclass(frozen=True)
class PowerLaw:
    """A cost is `factor` times size to the power of `exponent`: 0 is flat, 1 is in proportion."""

    factor: float
    exponent: float
    interval: Interval
    """Of the exponent."""

    def at(self, size: float) -> float:
        """The cost that it gives for a size above 0."""
        return float(self.factor * size**self.exponent)


def power_law(samples: Mapping[float, Sequence[float]]) -> PowerLaw:
    """Of the samples of each size. Raises ValueError if there are fewer than two sizes, or a value isn't above 0."""
    groups = [(size, list(samples[size])) for size in sorted(samples) if samples[size]]
    if len(groups) < 2:
        raise ValueError("a growth needs two sizes")
    if min(size for size, _ in groups) <= 0 or min(min(values) for _, values in groups) <= 0:
        raise ValueError("a power law needs values above 0")
    points = [(number, math.log(size), math.log(value)) for number, (size, of) in enumerate(groups) for value in of]
    slopes = sorted(
        (y - other_y) / (x - other_x) for group, x, y in points for other, other_x, other_y in points if other < group
    )
    exponent = statistics.median(slopes)
    factor = math.exp(statistics.median(y - exponent * x for _, x, y in points))
    return PowerLaw(factor, exponent, _interval(slopes, [len(values) for _, values in groups]))


def _interval(slopes: Sequence[float], counts: Sequence[int]) -> Interval:
    below = _kendall_counts(counts)
    total, outside, chosen = sum(below), 0, 0
    for cut in range((len(slopes) - 1) // 2):
        outside += below[cut]
        if 1 - 2 * (outside + below[cut + 1]) / total < CONFIDENCE:
            break
        chosen = cut + 1
    confidence = max(0.0, 1 - 2 * sum(below[: chosen + 1]) / total)
    return Interval(slopes[chosen], slopes[len(slopes) - 1 - chosen], confidence)


def _kendall_counts(counts: Sequence[int]) -> list[int]:
    """In how many orders exactly so many pairs of different sizes fall, for 0, 1, 2, ... pairs.

    Each size is ranked among all smaller ones together, independently of how those are ordered among themselves.
    """
    found, seen = [1], 0
    for count in counts:
        ranks = rank_sum_counts(count, seen)
        longer = [0] * (len(found) + len(ranks) - 1)
        for at, ways in enumerate(found):
            for pairs, more in enumerate(ranks):
                longer[at + pairs] += ways * more
        found, seen = longer, seen + count
    return found
