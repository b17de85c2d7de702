"""llama_deploy's SimpleMessageQueue as a contestant: asked by its own client, and by a loop twice as eager."""

from wakeq_bench.peers import llama_deploy
from wakeq_bench.peers.contestant import Contestant
from wakeq_bench.scenarios.servers import ORIGINAL_VERSION, original_queue

_REMARKS = (
    "It keeps messages in memory alone, and forgets one as it hands it out: there are no acks.",
    "It has one consumer loop a consumer, which takes one message at a time: no batches, no groups.",
    "Beyond 100 consumers it is not asked for more: the server is at its limit.",
)


def _contestant(key: str, title: str, way: str) -> Contestant:
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
        remarks=_REMARKS,
    )


CONTESTANTS = (
    _contestant("original-100ms", "its own client, 100 ms", "client"),
    _contestant("original-50ms", "polled every 50 ms", "loop"),
)
