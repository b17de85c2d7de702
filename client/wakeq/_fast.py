"""The transport of the extra `wakeq[fast]` (docs/decisions/client-transports.md)."""

import httpx
from httpx_aiohttp import AiohttpTransport

from wakeq._pool import IDLE_S


def transport(*, verify: bool, most: int) -> httpx.AsyncBaseTransport:
    """aiohttp's connections behind httpx's interface, ``most`` of them; on asyncio alone."""
    limits = httpx.Limits(max_connections=most, max_keepalive_connections=None, keepalive_expiry=IDLE_S)
    return AiohttpTransport(verify=verify, limits=limits)
