"""One trace from a publisher to the handler of its message."""

import anyio
import pytest
from opentelemetry import trace

import wakeq
import wakeq.otel
import wakeq.testing

TRACE_ID = 0x4BF92F3577B34DA6A3CE929D0E0E4736


def in_a_trace() -> trace.NonRecordingSpan:
    context = trace.SpanContext(TRACE_ID, 0x00F067AA0BA902B7, is_remote=False, trace_flags=trace.TraceFlags(1))
    return trace.NonRecordingSpan(context)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_handler_runs_in_the_trace_of_its_publisher() -> None:
    async with wakeq.testing.MemoryServer() as server, server.client(propagator=wakeq.otel.headers) as client:
        await client.create_topic("jobs", schema="json")
        worker = wakeq.Worker(client=client, middleware=[wakeq.otel.traced])
        traces: list[int] = []
        done = anyio.Event()

        @worker.handler("jobs")
        async def work(body: object) -> None:
            traces.append(trace.get_current_span().get_span_context().trace_id)
            if len(traces) == 3:
                done.set()

        await client.publish("jobs", "outside of any")
        with trace.use_span(in_a_trace()):
            # The second and third share a request.
            async with anyio.create_task_group() as tasks:
                for number in range(2):
                    tasks.start_soon(client.publish, "jobs", number)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.serve)
            with anyio.fail_after(20):
                await done.wait()
            worker.stop()
    assert traces == [0, TRACE_ID, TRACE_ID]


def test_a_synchronous_publish_has_the_trace_of_its_thread() -> None:
    with wakeq.Client(transport=wakeq.testing.MemoryServer(), propagator=wakeq.otel.headers) as client:
        client.create_topic("jobs", schema="json")
        with trace.use_span(in_a_trace()):
            client.publish("jobs", 1)
        (delivery,) = client.claim("jobs")
    assert delivery.headers["traceparent"].split("-")[1] == f"{TRACE_ID:032x}"
