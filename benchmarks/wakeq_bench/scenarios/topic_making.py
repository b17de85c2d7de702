"""Topics made by the thousand."""

from wakeq_bench.processes import Server
from wakeq_bench.scenarios.raw import Connection, made, request
from wakeq_bench.scenarios.servers import QUEUE_MESSAGE


def make_topics(server: Server, first: int, count: int) -> None:
    """Make the topics `t{first}` to `t{count}`, one after the other. Raises BrokenAnswer, OSError."""
    with Connection(server.url) as connection:
        for number in range(first, count + 1):
            made(connection.exchange(request(server.url, "PUT", f"/topics/t{number}", b"{}")))


def publish_to_each(server: Server, first: int, count: int) -> None:
    """One message to each of them. Raises BrokenAnswer, OSError."""
    with Connection(server.url) as connection:
        for number in range(first, count + 1):
            made(connection.exchange(request(server.url, "POST", f"/messages/t{number}", QUEUE_MESSAGE)))
