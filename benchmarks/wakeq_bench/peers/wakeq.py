"""wakeq itself: by streams of server-sent events, or by claims that wait."""

import sys
from pathlib import Path

from wakeq_bench.peers.contestant import Contestant, Keeps
from wakeq_bench.scenarios.servers import requests_total, wakeq_server

_KEYS = {"stream": "wakeq", "claim": "wakeq-claim"}
_PERIODS_S = {"stream": 15.0, "claim": 60.0}
"""Of a stream's heartbeats, and of claims that are made anew."""
_TITLES = {"stream": "", "claim": ", long poll"}


def _contestant(keeps: Keeps, way: str) -> Contestant:
    return Contestant(
        key=f"{_KEYS[way]}-{keeps}",
        title=f"wakeq, {keeps}{_TITLES[way]}",
        keeps=keeps,
        prepare=lambda _progress: Path(sys.executable),
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
