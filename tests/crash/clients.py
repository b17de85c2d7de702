"""Publishers and consumers that work until their server dies."""

import http.client
import json
import time
from random import Random
from typing import Any

from tests.crash.history import EXTENDED_S, Delivery, History, Publish, Settle
from tests.support.raw import FAIL_S
from tests.support.server import ServerProcess

TOPIC = "work"
LEASE_S = 1.0
GONE = (OSError, http.client.HTTPException)
"""What a client meets when the server dies."""


class Draining(Exception):
    """The server is told to end, and takes no more of this."""


class Connection:
    """Calls on one connection."""

    def __init__(self, server: ServerProcess) -> None:
        self._http = http.client.HTTPConnection(server.host, server.port, timeout=FAIL_S)

    def post(self, path: str, body: bytes, content_type: str = "application/json", **headers: str) -> Any:
        """The answer's headers and what its body says. Raises GONE, Draining."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._http.request("POST", path, body, {"Content-Type": content_type, **named})
        answer = self._http.getresponse()
        content = answer.read()
        if answer.status == 503:
            raise Draining
        assert answer.status == 200, (answer.status, content)
        return answer.headers, json.loads(content)

    def close(self) -> None:
        self._http.close()


class Publisher:
    """Publishes one by one and in batches, with and without ordering keys, and repeats itself."""

    def __init__(self, history: History, name: str, chance: Random) -> None:
        self._history = history
        self._name = name
        self._chance = chance
        self._mine: list[Publish] = []

    def work(self, server: ServerProcess) -> None:
        """Until the server is gone."""
        connection = Connection(server)
        try:
            while True:
                again = bool(self._mine) and self._chance.random() < 0.2
                # What had no answer is asked again first, as a client would.
                publish = self._repeated() if again else self._new()
                self._send(connection, publish)
        except (*GONE, Draining):
            return
        finally:
            connection.close()

    def _new(self) -> Publish:
        number = len(self._mine)
        bodies = [f"{self._name}-{number}-{line}" for line in range(self._chance.choice([1, 1, 1, 2, 5]))]
        ordering_key = f"k{self._chance.randrange(3)}" if len(bodies) == 1 and self._chance.random() < 0.5 else None
        publish = Publish(f"{self._name}-{number}", bodies, ordering_key)
        self._mine.append(publish)
        self._history.publishes.append(publish)
        return publish

    def _repeated(self) -> Publish:
        unanswered = [publish for publish in self._mine if publish.seqs is None]
        return unanswered[-1] if unanswered else self._chance.choice(self._mine)

    def _send(self, connection: Connection, publish: Publish) -> None:
        headers = {"Idempotency_Key": publish.key}
        if publish.ordering_key is not None:
            headers["Wakeq_Ordering_Key"] = publish.ordering_key
        lines = [json.dumps(body).encode() for body in publish.bodies]
        kind = "application/json" if len(lines) == 1 else "application/x-ndjson"
        given, said = connection.post(f"/messages/{TOPIC}", b"\n".join(lines), kind, **headers)
        if said is None:
            self._history.note_published(publish, [int(given["Wakeq-Seq"])], duplicate=None)
        else:
            seqs = list(range(said["first_seq"], said["last_seq"] + 1))
            self._history.note_published(publish, seqs, duplicate=said["duplicates"] == said["count"])


# In the order in which a settle has them.
_OUTCOMES = ["ack", "nack", "extend", "release", "forget"]


class Consumer:
    """Claims, and then acks, nacks, releases, extends, or forgets what it has."""

    def __init__(self, history: History, group: str, chance: Random) -> None:
        self._history = history
        self._group = group
        self._chance = chance
        self._held: list[Delivery] = []

    def work(self, server: ServerProcess) -> None:
        """Until the server is gone. What was held when another died is settled with this one."""
        connection = Connection(server)
        try:
            while True:
                self._settle(connection, self._held + self._claim(connection))
        except (*GONE, Draining):
            return
        finally:
            connection.close()

    def drain(self, server: ServerProcess) -> None:
        """Ack what there is, until no lease can be out any more."""
        connection = Connection(server)
        try:
            self._end(connection, self._held)
            while deliveries := self._claim(connection, most=1_000, wait_s=EXTENDED_S + LEASE_S):
                self._end(connection, deliveries)
        finally:
            connection.close()

    def _claim(self, connection: Connection, most: int = 5, wait_s: float = 0.5) -> list[Delivery]:
        began = self._history.moment("claim")
        asked = {"max": self._chance.randint(1, most), "wait_s": wait_s, "lease_s": LEASE_S, "group": self._group}
        _, said = connection.post(f"/messages/{TOPIC}/claim", json.dumps(asked).encode())
        return self._history.note_delivered(self._group, said["messages"], began)

    def _settle(self, connection: Connection, deliveries: list[Delivery]) -> None:
        outcomes = self._chance.choices(_OUTCOMES, [12, 2, 2, 1, 1], k=len(deliveries))
        lines = list(zip(deliveries, outcomes, strict=True))
        self._held = [delivery for delivery, outcome in lines if outcome == "extend"]
        self._send(connection, [(delivery, outcome) for delivery, outcome in lines if outcome != "forget"])

    def _end(self, connection: Connection, deliveries: list[Delivery]) -> None:
        self._send(connection, [(delivery, "ack") for delivery in deliveries])

    def _send(self, connection: Connection, lines: list[tuple[Delivery, str]]) -> None:
        """In the order in which the answer has its lines."""
        ordered = sorted(lines, key=lambda line: _OUTCOMES.index(line[1]))
        asked = self._history.moment("settle")
        settles = [Settle(outcome, asked, time.time()) for _, outcome in ordered]
        for (delivery, _), settle in zip(ordered, settles, strict=True):
            delivery.settles.append(settle)
        _, said = connection.post(f"/messages/{TOPIC}/settle", json.dumps(_body(ordered)).encode())
        answered = self._history.moment("settled")
        for settle, result in zip(settles, said["results"], strict=True):
            settle.answered, settle.status = answered, result["status"]
            self._history.counts[f"{settle.outcome} {settle.status}"] += 1


def _body(lines: list[tuple[Delivery, str]]) -> dict[str, list[Any]]:
    def leases(outcome: str) -> list[str]:
        return [delivery.lease for delivery, wanted in lines if wanted == outcome]

    return {
        "ack": leases("ack"),
        "nack": [{"lease_id": lease, "delay_s": 0} for lease in leases("nack")],
        "extend": [{"lease_id": lease, "lease_s": EXTENDED_S} for lease in leases("extend")],
        "release": leases("release"),
    }
