"""What replaying a recording takes: ids that a server makes up, names of requests, and how answers are compared."""

import re
from collections.abc import Iterator
from typing import Any

from tests.support.recordings import Recorded

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Ids:
    """Those that were recorded, and those that took their place."""

    def __init__(self) -> None:
        self.ours: dict[str, str] = {}

    def learn(self, recorded: Any, ours: Any) -> None:
        """Ids where ours has others in the same places."""
        if isinstance(recorded, str) and isinstance(ours, str):
            for then, now in zip(_UUID.findall(recorded), _UUID.findall(ours), strict=False):
                self.ours.setdefault(then, now)
        elif isinstance(recorded, dict) and isinstance(ours, dict):
            for then, now in zip(recorded.items(), ours.items(), strict=False):
                self.learn(list(then), list(now))
        elif isinstance(recorded, list) and isinstance(ours, list):
            for then, now in zip(recorded, ours, strict=False):
                self.learn(then, now)

    def translate(self, value: Any) -> Any:
        """Recorded JSON with our ids; what is left open stays so."""
        if isinstance(value, str):
            return self.translated(value)
        if isinstance(value, dict):
            return {self.translated(key): self.translate(one) for key, one in value.items()}
        return [self.translate(one) for one in value] if isinstance(value, list) else value

    def translated(self, text: str) -> str:
        """The same for a text."""
        return _UUID.sub(lambda found: self.ours.get(found[0], found[0]), text)


def named(requests: list[Recorded]) -> Iterator[tuple[str, Recorded]]:
    """Labels that come again have a number."""
    seen: dict[str, int] = {}
    for recorded in requests:
        label = recorded.label.strip()
        seen[label] = seen.get(label, 0) + 1
        yield label if seen[label] == 1 else f"{label} ({seen[label]})", recorded


def matches(expected: Any, ours: Any) -> bool:
    """Equal, where nothing is left open."""
    if expected is ...:
        return True
    if isinstance(expected, dict) and isinstance(ours, dict):
        return list(expected) == list(ours) and all(matches(value, ours[key]) for key, value in expected.items())
    if isinstance(expected, list) and isinstance(ours, list):
        return len(expected) == len(ours) and all(map(matches, expected, ours))
    return bool(expected == ours and type(expected) is type(ours))
