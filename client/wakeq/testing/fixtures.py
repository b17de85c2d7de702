"""Fixtures of pytest: say `pytest_plugins = ["wakeq.testing.fixtures"]` in a conftest.py.

Each test has a server of its own. An asynchronous fixture needs a plugin that runs it: anyio's, or pytest-asyncio in
its automatic mode.
"""

from collections.abc import AsyncIterator, Iterator

import pytest

from wakeq._async_client import AsyncClient
from wakeq._client import Client
from wakeq.testing._server import MemoryServer


@pytest.fixture
def wakeq_client() -> Iterator[Client]:
    """A client of a server in memory."""
    with Client(transport=MemoryServer()) as client:
        yield client


@pytest.fixture
async def wakeq_async_client() -> AsyncIterator[AsyncClient]:
    """An asynchronous client of a server in memory."""
    async with MemoryServer() as server, server.client() as client:
        yield client
