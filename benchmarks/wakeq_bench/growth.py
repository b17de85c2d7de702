"""How a cost grows with the size of something: the exponent of a power, fitted to a curve of one round after the other.

A cost that doesn't depend on the size has the exponent 0, one in proportion to it 1; a logarithm looks like a small
exponent. Each round is a whole curve and is fitted by itself, so that the interval is that of a median of rounds,
which supposes nothing about how they are distributed.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations

from pydantic.dataclasses import dataclass

from wakeq_bench.intervals import Interval, median_interval


@dataclass(frozen=True)
class Growth:
    """What was fitted, and what it makes from the smallest size to the largest."""

    exponent: float
    interval: Interval
    """Of the exponent."""
    smallest: float
    largest: float

    @property
    def over_all(self) -> float:
        """How many times the fitted cost at the smallest size that at the largest is."""
        return float((self.largest / self.smallest) ** self.exponent)

    @property
    def over_all_interval(self) -> Interval:
        """The same, of the interval."""
        low, high = ((self.largest / self.smallest) ** one for one in (self.interval.low, self.interval.high))
        return Interval(low, high, self.interval.confidence)


def exponent(curve: Mapping[float, float]) -> float:
    """Of the power that one curve of costs by size follows: the median of the slopes between any two of its points.

    A single point that something has disturbed doesn't move it. Raises ValueError with less than two points, or where
    a size or a cost isn't above 0.
    """
    if len(curve) < 2:
        raise ValueError("a curve needs two points")
    if min(*curve, *curve.values()) <= 0:
        raise ValueError("sizes and costs must be above 0")
    points = sorted((math.log(size), math.log(cost)) for size, cost in curve.items())
    return statistics.median(
        (higher - lower) / (right - left) for (left, lower), (right, higher) in combinations(points, 2)
    )


def growth(costs: Mapping[float, Sequence[float]]) -> Growth:
    """Of costs by size, each with one cost a round. Raises ValueError as `exponent` does."""
    rounds = [dict(zip(costs, found, strict=True)) for found in zip(*costs.values(), strict=True)]
    exponents = [exponent(one) for one in rounds]
    if not exponents:
        raise ValueError("there are no rounds")
    return Growth(statistics.median(exponents), median_interval(exponents), min(costs), max(costs))


def dearest(costs: Mapping[float, Sequence[float]]) -> float:
    """How many times the cost at the smallest size the highest of all sizes is, by their medians."""
    medians = {size: statistics.median(found) for size, found in costs.items()}
    return max(medians.values()) / medians[min(medians)]
