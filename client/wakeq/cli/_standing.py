"""How a topic stands in a line: what its groups hold, together."""

from dataclasses import dataclass
from typing import Self

import wakeq

COUNTS = ("ready", "delayed", "leased", "dead", "parked")


@dataclass(frozen=True, slots=True)
class Standing:
    """A topic's counts and rates over all its groups, named as in the protocol."""

    topic: str
    paused: bool
    messages: int
    bytes: int
    ready: int
    delayed: int
    leased: int
    dead: int
    parked: int
    published_per_s: float
    delivered_per_s: float
    settled_per_s: float
    oldest_age_s: float | None

    @classmethod
    def of(cls, info: wakeq.TopicInfo) -> Self:
        """That of a topic."""
        groups = info.groups.values()
        raw = info.raw["groups"].values()
        return cls(
            topic=info.name,
            paused=info.paused,
            messages=info.messages,
            bytes=info.bytes,
            **{name: sum(getattr(group, name) for group in groups) for name in COUNTS},
            published_per_s=info.raw["published_per_s"],
            delivered_per_s=round(sum(group["delivered_per_s"] for group in raw), 3),
            settled_per_s=round(sum(group["settled_per_s"] for group in raw), 3),
            oldest_age_s=max((g.oldest_age_s for g in groups if g.oldest_age_s is not None), default=None),
        )

    @property
    def counts(self) -> list[int]:
        """Those of `COUNTS`, in their order."""
        return [getattr(self, name) for name in COUNTS]

    @property
    def traffic(self) -> tuple[float, int]:
        """What makes it busier than another topic: messages that come and go, then those that are there."""
        return self.published_per_s + self.delivered_per_s, self.messages
