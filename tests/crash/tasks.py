"""Clients that run tasks while processes die, and what must be true of what they saw."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx

from tests.crash.deployment import PARTS, SERVICE, WORKER, Deployment
from tests.crash.rounds import Outcome

CLIENTS = 8
EVENTS = 12
PAUSE_S = 0.05
SERVICE_TASK_MAX_S = 30.0
"""What died with an unmodified service comes to its end by its deadline alone."""
PATIENCE_S = 120.0
KILL_WITHIN_S = 60.0


@dataclass
class Seen:
    """What a client was told of a task."""

    id: str
    session: str
    service: str
    events: list[dict[str, Any]] = field(default_factory=list)
    ends: list[tuple[str, str]] = field(default_factory=list)
    """Its status and its result, whenever somebody asked."""


class History:
    """Written by many threads."""

    def __init__(self) -> None:
        self.tasks: list[Seen] = []
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self._moment = 0
        self.over = False
        self._changed = threading.Condition()

    def note(self, what: str) -> None:
        """Something was seen."""
        with self._changed:
            self._moment += 1
            self.counts[what] += 1
            self._changed.notify_all()

    def end(self) -> None:
        """All tasks have ended."""
        with self._changed:
            self.over = True
            self._changed.notify_all()

    def wait(self, moments: int, timeout_s: float) -> bool:
        """Wait until so much more was seen; False where everything is over."""
        with self._changed:
            until = self._moment + moments
            done = self._changed.wait_for(lambda: self.over or self._moment >= until, timeout_s)
            assert done, "nothing happens any more"
            return not self.over

    def violations(self) -> list[str]:
        """Empty: every promise was kept."""
        return [*self.problems, *(problem for seen in self.tasks for problem in _wrong_with(seen))]


def _wrong_with(seen: Seen) -> Iterator[str]:
    if len(set(seen.ends)) != 1:
        yield f"{seen.id} has ended as {seen.ends}"
        return
    status, result = seen.ends[0]
    numbers = [data["number"] for data in (event.get("_data", event) for event in seen.events) if "number" in data]
    if numbers != sorted(set(numbers)):
        yield f"{seen.id} has shown {numbers}"
    complete = f"done: {EVENTS}" if seen.service == WORKER else f"echo: {seen.id}"
    if result == complete and numbers != list(range(EVENTS)):
        yield f"{seen.id} has succeeded, and shown {numbers}"
    if seen.service == WORKER and (status, result) != ("succeeded", complete):
        yield f"{seen.id} is {status}: {result}"


class Client:
    """Runs one task after the other, and asks again whatever breaks off."""

    def __init__(self, deployment: Deployment, history: History) -> None:
        self._deployment = deployment
        self._history = history
        self._http = httpx.Client(base_url=deployment.control.url, timeout=PATIENCE_S, verify=False)

    def close(self) -> None:
        self._http.close()

    def run(self, task_id: str, service: str) -> None:
        """A task from its beginning to its end."""
        session = self._ask("POST", "/sessions/create")
        seen = Seen(task_id, session, service)
        self._history.tasks.append(seen)
        arguments = {"events": EVENTS, "pause": PAUSE_S} | ({"user_msg": task_id} if service == SERVICE else {})
        timeout = {"timeout_s": SERVICE_TASK_MAX_S} if service == SERVICE else {}
        body = {"input": json.dumps(arguments), "task_id": task_id, "service_id": service, **timeout}
        answer = self._ask("POST", f"/sessions/{session}/tasks", body)
        if answer != task_id:
            self._history.problems.append(f"{task_id} was answered {answer}")
        self.look(seen)
        self._history.note(f"{service}: {seen.ends[-1][0]}")

    def look(self, seen: Seen) -> None:
        """Its events, from the first on, and its end."""
        while not self._watched(seen):
            self._history.note("watched again")
        task = self._ask("GET", f"/sessions/{seen.session}/tasks/{seen.id}?wait=30")
        seen.ends.append((task["status"], task["result"]["result"]))

    def _watched(self, seen: Seen) -> bool:
        """Whether the stream has come to its end."""
        place = 0
        self._deployment.up.wait(PATIENCE_S)
        try:
            with self._http.stream("GET", f"/sessions/{seen.session}/tasks/{seen.id}/result_stream") as stream:
                for line in filter(str.strip, stream.iter_lines()):
                    event = json.loads(line)
                    if event:
                        self._saw(seen, place, event)
                        place += 1
        except httpx.TransportError:
            return False
        if place != len(seen.events):
            self._history.problems.append(f"{seen.id} has shown {place} events, and {len(seen.events)} before")
        return True

    def _saw(self, seen: Seen, place: int, event: dict[str, Any]) -> None:
        if place == len(seen.events):
            seen.events.append(event)
            self._history.note("event")
        elif seen.events[place] != event:
            self._history.problems.append(f"event {place} of {seen.id} was {seen.events[place]}, and then {event}")

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            self._deployment.up.wait(PATIENCE_S)
            try:
                answer = self._http.request(method, path, json=body)
            except httpx.TransportError:
                self._history.note("asked again")
                assert time.monotonic() < deadline, f"no answer to {method} {path}"
            else:
                assert answer.status_code == 200, (method, path, answer.status_code, answer.text)
                return answer.json()


def run_tasks(directory: Path, python: Path, tasks: int, kills: int, seed: int) -> Outcome:
    """Kill parts of a deployment while its clients run tasks. ``python`` has llama_deploy."""
    chance, history = Random(seed), History()
    with ExitStack() as stack:
        deployment = Deployment(directory, python, stack)
        with ThreadPoolExecutor(CLIENTS + 1) as pool:
            killing = pool.submit(_kill, deployment, history, chance, kills)
            numbers = iter(range(tasks))
            lock = threading.Lock()
            working = [pool.submit(_work, deployment, history, numbers, lock) for _ in range(CLIENTS)]
            try:
                for one in working:
                    one.result()
            finally:
                history.end()
            killing.result()
        client = Client(deployment, history)
        for seen in history.tasks:
            client.look(seen)
        client.close()
    return Outcome(history.violations(), dict(history.counts))


def _work(deployment: Deployment, history: History, numbers: Iterator[int], lock: threading.Lock) -> None:
    client = Client(deployment, history)
    try:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            client.run(f"T{number}", SERVICE if number % 4 == 3 else WORKER)
    finally:
        client.close()


def _kill(deployment: Deployment, history: History, chance: Random, kills: int) -> None:
    """Each part in turn, in an order that is drawn, after some of the load."""
    parts: list[str] = []
    for _ in range(kills):
        parts = parts or chance.sample(PARTS, len(PARTS))
        if not history.wait(chance.randint(5, 60), KILL_WITHIN_S):
            return
        part = parts.pop()
        deployment.kill(part)
        history.note(f"killed {part}")
