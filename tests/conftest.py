"""What all tests share."""

from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx


@pytest.fixture(autouse=True)
def no_blocking_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """In asynchronous tests a call that blocks the loop is an error."""
    if request.node.get_closest_marker("anyio") is None:
        yield
        return
    with blockbuster_ctx():
        yield
