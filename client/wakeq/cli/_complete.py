"""What a shell is offered when somebody presses tab: names that the server knows.

Whatever goes wrong here is silent, and nothing takes long: the shell waits, and shows what it is told as it comes.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import anyio
import typer

import wakeq

_Client = TypeVar("_Client")
_PATIENCE_S = 1.0
_MOST = 200


def topics(ctx: typer.Context, incomplete: str) -> list[str]:
    """Topics whose names begin so."""

    async def found(client: wakeq.AsyncClient) -> list[str]:
        return [name async for name in _names(client, incomplete)]

    return _asked(ctx, found, wakeq.AsyncClient)


def groups(ctx: typer.Context, incomplete: str) -> list[str]:
    """Groups whose names begin so, of the topic that was named before."""

    async def found(client: wakeq.AsyncClient) -> list[str]:
        # What is before an option without its value is not a parameter yet.
        info = await client.topic(ctx.params.get("topic") or ctx.args[0])
        return [name for name in info.groups if name.startswith(incomplete)]

    return _asked(ctx, found, wakeq.AsyncClient)


def services(ctx: typer.Context, incomplete: str) -> list[str]:
    """Services whose names begin so."""

    async def found(control: wakeq.AsyncControlPlane) -> list[str]:
        return [one.name for one in await control.services() if one.name.startswith(incomplete)]

    return _asked(ctx, found, wakeq.AsyncControlPlane)


async def _names(client: "wakeq.AsyncClient", beginning: str) -> AsyncIterator[str]:
    left = _MOST
    async for info in client.topics():
        if info.name.startswith(beginning):
            yield info.name
            left -= 1
        if not left or info.name[: len(beginning)] > beginning:
            return


def _asked(
    ctx: typer.Context,
    ask: Callable[[_Client], Awaitable[list[str]]],
    kind: Callable[[str], AbstractAsyncContextManager[_Client]],
) -> list[str]:
    async def with_client() -> list[str]:
        async with kind(ctx.params["url"]) as client:
            with anyio.move_on_after(_PATIENCE_S):
                return await ask(client)
        return []

    # None is what no URL could be made of.
    if ctx.params.get("url") is None:
        return []
    try:
        return anyio.run(with_client)
    except Exception:
        return []
