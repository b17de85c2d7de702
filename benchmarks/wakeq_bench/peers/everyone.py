"""Everybody who can take part, in the order in which results name them."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console

from wakeq_bench.peers import PeerUnavailable, beanstalkd, nats, nchan, original, rabbitmq, redis, wakeq
from wakeq_bench.peers.contestant import Contestant
from wakeq_bench.report import Missing, Report

CONTESTANTS = (
    *wakeq.STREAMS,
    *wakeq.CLAIMS,
    *redis.CONTESTANTS,
    *nats.CONTESTANTS,
    *rabbitmq.CONTESTANTS,
    *beanstalkd.CONTESTANTS,
    *nchan.CONTESTANTS,
    *original.CONTESTANTS,
    *original.ON_WAKEQ,
)
NOT_HAD = (
    Missing(
        "ElasticMQ, the semantics of SQS",
        "There is no contestant for it: its server is a Java archive or a container, which nothing here installs.",
    ),
)
"""Whom one would expect to find."""
BY_KEY = {contestant.key: contestant for contestant in CONTESTANTS}


def keys_of(able: Callable[[Contestant], bool] = lambda _: True, *, ways: bool = False) -> list[str]:
    """Who can do something; wakeq's other ways are left out where they would measure the same as its streams."""
    left_out = () if ways else wakeq.CLAIMS
    return [one.key for one in CONTESTANTS if able(one) and not one.waits_only and one not in left_out]


def prepared(keys: Sequence[str], report: Report, console: Console) -> dict[Contestant, Path]:
    """Those that can be had, each with the python of its client; the others are named in the report."""
    pythons = {}
    report.missing += NOT_HAD
    for contestant in (BY_KEY[key] for key in keys):
        try:
            pythons[contestant] = contestant.prepare(lambda line: console.print(line, soft_wrap=True))
        except PeerUnavailable as error:
            report.missing.append(Missing(contestant.title, str(error)))
    described = {contestant.key: contestant.described() for contestant in pythons}
    report.settings = {**report.settings, "contestants": described}
    return pythons


def remarks(contestants: Iterable[Contestant]) -> list[str]:
    """What a reader has to know of them."""
    return [f"{one.title}: {remark}" for one in contestants for remark in one.remarks]
