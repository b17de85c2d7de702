"""wakeq itself: by streams of server-sent events, or by claims that wait."""

import sys
from pathlib import Path

from wakeq_bench.peers.contestant import Contestant, Keeps
from wakeq_bench.scenarios.servers import requests_total, wakeq_server


def _contestant(keeps: Keeps, way: str) -> Contestant:
    name = "wakeq" if way == "stream" else "wakeq-claim"
    return Contestant(
        key=f"{name}-{keeps}",
        title=f"wakeq, {keeps}" + (", long poll" if way == "claim" else ""),
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
        requests=requests_total,
    )


STREAMS = tuple(_contestant(keeps, "stream") for keeps in ("fsync", "os", "memory"))
CLAIMS = tuple(_contestant(keeps, "claim") for keeps in ("fsync", "os", "memory"))
"""Their batches are those of the others: what differs is how single messages are waited for."""
