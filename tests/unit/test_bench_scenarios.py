import socket
import threading

import pytest

from wakeq_bench.scenarios.raw import Connection, request
from wakeq_bench.scenarios.relay import counting_relay
from wakeq_bench.scenarios.servers import metric_in
from wakeq_bench.scenarios.wrk import Load, WrkFailed, load_in

WRK = """Running 1s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  41234 requests in 1.00s, 5.00MB read
{extra}Requests/sec:  41190.52
Transfer/sec:      5.00MB
"""


def test_wrk_result() -> None:
    assert load_in(WRK.format(extra="")) == Load(41234, 41190.52)


@pytest.mark.parametrize(
    "output",
    [
        WRK.format(extra="  Non-2xx or 3xx responses: 12\n"),
        WRK.format(extra="  Socket errors: connect 0, read 3, write 0, timeout 0\n"),
        "unable to connect",
    ],
)
def test_wrk_without_a_result_that_counts(output: str) -> None:
    with pytest.raises(WrkFailed):
        load_in(output)


def test_metrics_are_summed_over_labels() -> None:
    text = '# TYPE wakeq_x counter\nwakeq_x{topic="a b"} 1.0\nwakeq_x{topic="c"} 2.0\nwakeq_xy 7.0\n'
    assert metric_in(text, "wakeq_x") == 3
    assert metric_in(text, "wakeq_xy") == 7
    assert metric_in(text, "none") == 0


def test_relay_counts_requests_and_passes_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        thread = threading.Thread(target=_answer_twice, args=(upstream,))
        thread.start()
        with counting_relay(f"http://127.0.0.1:{upstream.getsockname()[1]}") as relay:
            with Connection(relay.url) as connection:
                answers = [connection.exchange(request(relay.url, "GET", "/")).body for _ in range(2)]
            thread.join()
            assert relay.requests == 2
    assert answers == [b"null", b"null"]


def test_relay_ends_with_connections_open(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        with counting_relay(f"http://127.0.0.1:{upstream.getsockname()[1]}") as relay:
            connection = Connection(relay.url)
            connection.send(request(relay.url, "GET", "/"))
            accepted, _ = upstream.accept()
        connection.close()
        accepted.close()
    assert not caplog.records


def _answer_twice(upstream: socket.socket) -> None:
    accepted, _ = upstream.accept()
    with accepted:
        for _ in range(2):
            accepted.recv(1_000)
            accepted.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnull")
        # The client's end, passed on.
        accepted.recv(1)
