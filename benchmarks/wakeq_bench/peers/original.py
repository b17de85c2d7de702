"""llama_deploy's SimpleMessageQueue as a contestant, and its client on wakeq's queue in its stead."""

from wakeq_bench.peers import llama_deploy
from wakeq_bench.peers.contestant import Contestant
from wakeq_bench.scenarios.servers import ORIGINAL_VERSION, original_queue, requests_total, wakeq_server

_PARKED_S = 55.0
"""How long wakeq parks a GET of llama_deploy's client, before that asks anew."""
_REMARKS = (
    "It keeps messages in memory alone, and forgets one as it hands it out: there are no acks.",
    "It has one loop a consumer, which takes one message at a time and pauses: no batches, no groups.",
    "Beyond 100 consumers it is not asked for more: the server is at its limit.",
)


def _queue(key: str, title: str, way: str, takes_per_s: float) -> Contestant:
    return Contestant(
        key=key,
        title=f"llama_deploy {ORIGINAL_VERSION}, {title}",
        keeps="memory",
        prepare=lambda progress: llama_deploy.environment(ORIGINAL_VERSION, progress),
        server=lambda _data: original_queue(llama_deploy.environment(ORIGINAL_VERSION)),
        client="llama_deploy",
        versions=lambda: [f"llama-deploy=={ORIGINAL_VERSION}"],
        way=way,
        batches=False,
        groups=False,
        restarts=False,
        consumers_max=100,
        http=True,
        takes_per_s=takes_per_s,
        remarks=_REMARKS,
    )


def _on_wakeq(
    key: str, title: str, way: str, *options: str, consumers_max: int = 1_000, idle_period_s: float = _PARKED_S
) -> Contestant:
    return Contestant(
        key=key,
        title=title,
        keeps="memory",
        prepare=lambda progress: llama_deploy.environment(ORIGINAL_VERSION, progress),
        server=lambda data: wakeq_server(*options, data=data),
        client="llama_deploy",
        versions=lambda: [f"llama-deploy=={ORIGINAL_VERSION}"],
        settings=dict(zip(options[::2], options[1::2], strict=True)),
        way=way,
        batches=False,
        groups=False,
        restarts=False,
        consumers_max=consumers_max,
        http=True,
        idle_period_s=idle_period_s,
        waits_only=True,
        requests=requests_total,
    )


CONTESTANTS = (
    # With the timeout that a server at its limit needs.
    _queue("original-100ms", "its own client, 100 ms", 'client:{"timeout": 30.0}', 10.0),
    _queue("original-50ms", "polled every 50 ms", "loop", 20.0),
)
ON_WAKEQ = (
    _on_wakeq(
        "wakeq-polled", "wakeq, polled every 50 ms, ?wait=0", "loop:?wait=0", consumers_max=100, idle_period_s=0.0
    ),
    _on_wakeq("original-wakeq", "llama_deploy's client, unmodified, on wakeq", "client"),
    _on_wakeq(
        "original-noverify", "llama_deploy's client on wakeq, client_kwargs verify: false", 'client:{"verify": false}'
    ),
    _on_wakeq(
        "original-silent", "llama_deploy's client on wakeq, heartbeats off", "client:{}", "--legacy-heartbeat", "0"
    ),
)
