"""What all tests share."""

from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx
from trio.testing import MockClock


def virtual_trio() -> tuple[str, dict[str, object]]:
    """trio on a clock that jumps when everybody waits: 30 virtual seconds take no time."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


@pytest.fixture(autouse=True)
def no_blocking_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """In asynchronous tests a call that blocks the loop is an error."""
    if request.node.get_closest_marker("anyio") is None:
        yield
        return
    with blockbuster_ctx():
        yield
