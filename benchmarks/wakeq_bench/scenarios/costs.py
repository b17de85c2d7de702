"""What one operation costs a server in CPU seconds, over bare sockets, one after the other."""

from collections.abc import Callable

import orjson

from wakeq_bench.measure import cpu_seconds
from wakeq_bench.processes import Server
from wakeq_bench.scenarios.raw import Answer, BrokenAnswer, Connection, made, request
from wakeq_bench.scenarios.servers import QUEUE_MESSAGE


def cost(server: Server, count: int, once: Callable[[Connection], object]) -> float:
    """Server CPU of one of so many. Raises BrokenAnswer, ProcessGone, OSError."""
    with Connection(server.url) as connection:
        before = cpu_seconds(server.child.pid)
        for _ in range(count):
            once(connection)
        return (cpu_seconds(server.child.pid) - before) / count


def claim_cost(server: Server, topic: str, claim: bytes, count: int) -> float:
    """Of a claim of a message that is there."""
    asking = request(server.url, "POST", f"/messages/{topic}/claim", claim)
    return cost(server, count, lambda connection: one_message(connection.exchange(asking)))


def publish_cost(server: Server, topic: str, count: int) -> float:
    """Of a publish."""
    posting = request(server.url, "POST", f"/messages/{topic}", QUEUE_MESSAGE)
    return cost(server, count, lambda connection: made(connection.exchange(posting)))


def cycle_cost(server: Server, topic: str, claim: bytes, count: int) -> float:
    """Of a claim and its ack."""
    return cost(server, count, lambda connection: claim_and_ack(server.url, connection, topic, claim))


def round_trip_cost(server: Server, topics: Callable[[], str], count: int) -> float:
    """Of a publish, a claim and its ack, each time on the next of `topics`: what waits there stays as much."""

    def round_trip(connection: Connection) -> None:
        topic = topics()
        made(connection.exchange(request(server.url, "POST", f"/messages/{topic}", QUEUE_MESSAGE)))
        claim_and_ack(server.url, connection, topic, b"{}")

    return cost(server, count, round_trip)


def claim_and_ack(url: str, connection: Connection, topic: str, claim: bytes) -> None:
    """Both. Raises BrokenAnswer, also where there is nothing to claim."""
    lease = one_message(connection.exchange(request(url, "POST", f"/messages/{topic}/claim", claim)))["lease_id"]
    ack = orjson.dumps({"ack": [lease]})
    made(connection.exchange(request(url, "POST", f"/messages/{topic}/settle", ack)))


def one_message(answer: Answer) -> dict[str, object]:
    """The message of a claim. Raises BrokenAnswer where there is none."""
    made(answer)
    found: list[dict[str, object]] = orjson.loads(answer.body)["messages"]
    if not found:
        raise BrokenAnswer("there was no message left to claim")
    return found[0]
