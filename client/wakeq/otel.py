"""One trace from publisher to handler, through OpenTelemetry's API (the extra `wakeq[otel]`).

    queue = wakeq.AsyncClient(propagator=wakeq.otel.headers)
    worker = wakeq.Worker(client=queue, middleware=[wakeq.otel.traced])

Which spans are recorded, and where they go, is up to the SDK that the program sets up.
"""

from collections.abc import Awaitable, Callable, Mapping

from opentelemetry import propagate, trace

from wakeq._delivery import Delivery
from wakeq._version import __version__


def headers() -> Mapping[str, str]:
    """The current trace as headers of a message, for ``propagator`` of a client; none outside of a trace."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


async def traced(delivery: Delivery, handle: Callable[[], Awaitable[None]]) -> None:
    """Middleware of a worker: the handler runs in a span of the trace that its message was published in."""
    attributes: dict[str, str | int] = {
        "messaging.system": "wakeq",
        "messaging.operation.type": "process",
        "messaging.destination.name": delivery.topic,
        "messaging.message.id": str(delivery.seq),
    }
    tracer = trace.get_tracer("wakeq", __version__)
    with tracer.start_as_current_span(
        f"process {delivery.topic}",
        context=propagate.extract(delivery.headers),
        kind=trace.SpanKind.CONSUMER,
        attributes=attributes,
    ):
        await handle()
