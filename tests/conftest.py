"""What all tests share."""

import os
from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx


def pytest_xdist_auto_num_workers() -> int:
    """Twice as many as there are cores: most tests wait for a process that they have started, or for a disk."""
    return (os.cpu_count() or 1) * 2


@pytest.fixture(autouse=True)
def no_blocking_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    """In asynchronous tests a call that blocks the loop is an error."""
    if request.node.get_closest_marker("anyio") is None:
        yield
        return
    with blockbuster_ctx():
        yield
