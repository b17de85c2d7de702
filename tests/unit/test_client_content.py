"""The body of a request, which a broken connection may leave unread."""

import gc

import pytest

from wakeq._over_httpx import Content

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


async def test_it_is_read_whole_and_as_often_as_it_is_sent() -> None:
    content = Content(b"body")
    for _ in range(2):
        assert [part async for part in content] == [b"body"]


async def test_one_that_is_left_in_the_middle_is_nothing_to_warn_of() -> None:
    reading = aiter(Content(b"body"))
    assert await anext(reading) == b"body"
    del reading
    # A generator would warn here, and a warning fails the test.
    gc.collect()
