"""Virtual time on trio: nothing takes any, and nothing is waited for."""

import trio
from trio.testing import MockClock


def virtual_trio() -> tuple[str, dict[str, object]]:
    """trio on a clock that jumps when everybody waits: 30 virtual seconds take no time."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


def standing_trio() -> tuple[str, dict[str, object]]:
    """trio on a clock that stands still until a test moves it by `jump_clock`."""
    return "trio", {"clock": MockClock()}


def jump_clock(seconds: float) -> None:
    """It is so much later; what is due runs when the test waits."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    clock.jump(seconds)
