"""wakeq itself: by streams of server-sent events, or by claims that wait; by its usual transport, or by aiohttp."""

import importlib.util
import sys
from pathlib import Path

from wakeq_bench.peers import PeerUnavailable
from wakeq_bench.peers.contestant import Contestant, Keeps
from wakeq_bench.scenarios.servers import requests_total, wakeq_server

_KEYS = {"stream": "wakeq", "claim": "wakeq-claim", "stream-fast": "wakeq-fast"}
_PERIODS_S = {"stream": 15.0, "claim": 60.0, "stream-fast": 15.0}
"""Of a stream's heartbeats, and of claims that are made anew."""
_TITLES = {"stream": "", "claim": ", long poll", "stream-fast": ", by aiohttp"}


def _prepare(way: str) -> Path:
    if way == "stream-fast" and importlib.util.find_spec("httpx_aiohttp") is None:
        raise PeerUnavailable("httpx-aiohttp is not installed: try `pip install 'wakeq[fast]'`.")
    return Path(sys.executable)


def _contestant(keeps: Keeps, way: str) -> Contestant:
    return Contestant(
        key=f"{_KEYS[way]}-{keeps}",
        title=f"wakeq, {keeps}{_TITLES[way]}",
        keeps=keeps,
        prepare=lambda _progress: _prepare(way),
        server=lambda data: wakeq_server(durability=keeps, data=data),
        client="wakeq",
        # Those of wakeq and what it stands on are in the environment of every file of results.
        versions=list,
        settings={"durability": keeps},
        way=way,
        restarts=keeps != "memory",
        http=True,
        idle_period_s=_PERIODS_S[way],
        requests=requests_total,
        remarks=("More than 500 consumers of one process share several of its clients, by turns.",),
    )


STREAMS = tuple(_contestant(keeps, "stream") for keeps in ("fsync", "os", "memory"))
CLAIMS = tuple(_contestant(keeps, "claim") for keeps in ("fsync", "os", "memory"))
"""Their batches are those of the others: what differs is how single messages are waited for."""
FAST = (_contestant("memory", "stream-fast"),)
"""By the transport of `wakeq[fast]`, beside others that aiohttp is the client of: servers are compared, not clients."""
