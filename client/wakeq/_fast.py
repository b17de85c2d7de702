"""The transport of the extra `wakeq[fast]` (docs/decisions/client-transports.md)."""

import httpx
from httpx_aiohttp import AiohttpTransport


def transport(*, verify: bool, limits: httpx.Limits) -> httpx.AsyncBaseTransport:
    """aiohttp's connections behind httpx's interface; on asyncio alone."""
    return AiohttpTransport(verify=verify, limits=limits)
