"""Clients that run tasks while processes die, and what must be true of what they saw."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar, Protocol

import httpx

from tests.crash.rounds import Outcome

CLIENTS = 8
EVENTS = 12
PAUSE_S = 0.05
ANSWER = json.dumps("go")
PATIENCE_S = 120.0
KILL_WITHIN_S = 60.0


@dataclass
class Seen:
    """What a client was told of a task."""

    id: str
    session: str
    service: str
    wanted: str
    """Its result, where it succeeds."""
    must_succeed: bool = True
    events: list[dict[str, Any]] = field(default_factory=list)
    ends: list[tuple[str, str]] = field(default_factory=list)
    """Its status and its result, whenever somebody asked."""
    answered: bool = False
    """Whether it has asked, and was answered."""


class Target(Protocol):
    """A deployment that runs, and whose parts can be killed."""

    up: threading.Event
    """Set while what clients ask is there."""
    lives: int
    """Grows whenever that is killed, before it is, and after `up` is cleared."""

    @property
    def parts(self) -> Sequence[str]:
        """What can be killed."""

    @property
    def url(self) -> str:
        """What clients ask."""

    def kill(self, part: str) -> None:
        """Kill it, and have another in its place."""

    def client(self, history: "History") -> "Client":
        """One that asks."""


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
    if result == seen.wanted and numbers != list(range(EVENTS)):
        yield f"{seen.id} has succeeded, and shown {numbers}"
    if seen.must_succeed and (status, result) != ("succeeded", seen.wanted):
        yield f"{seen.id} is {status}: {result}"


class Client:
    """Runs one task after the other, and asks again whatever breaks off."""

    stream: ClassVar[str]
    """What the path of a task's events ends with."""
    send: ClassVar[str]
    """What the path ends with to which an answer is sent."""

    def __init__(self, target: Target, history: History) -> None:
        self._target = target
        self._history = history
        self._http = httpx.Client(base_url=target.url, timeout=PATIENCE_S, verify=False)

    def close(self) -> None:
        self._http.close()

    def begin(self, number: int) -> Seen:
        """Have a task begun."""
        raise NotImplementedError

    def path(self, seen: Seen, action: str = "", **query: Any) -> str:
        """Where a task is."""
        raise NotImplementedError

    def run(self, number: int) -> None:
        """A task from its beginning to its end."""
        seen = self.begin(number)
        self._history.tasks.append(seen)
        self.look(seen)
        self._history.note(f"{seen.service}: {seen.ends[-1][0]}")

    def look(self, seen: Seen) -> None:
        """Its events, from the first on, and its end."""
        while not self._watched(seen):
            self._history.note("watched again")
        task = self.ask("GET", self.path(seen, wait=30))
        seen.ends.append((task["status"], task["result"]["result"]))

    def _watched(self, seen: Seen) -> bool:
        """Whether the stream has come to its end."""
        place, lives = 0, self._wait_for_target()
        try:
            with self._http.stream("GET", self.path(seen, self.stream)) as stream:
                for line in filter(str.strip, stream.iter_lines()):
                    event = json.loads(line)
                    if event:
                        self._saw(seen, place, event)
                        place += 1
        except httpx.TransportError as error:
            self._broke(lives, error)
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
        if "prefix" in event and not seen.answered:
            seen.answered = True
            said = {"service_id": seen.service, "event_obj_str": ANSWER}
            self.ask("POST", self.path(seen, self.send), said, again=httpx.codes.SERVICE_UNAVAILABLE)

    def ask(self, method: str, path: str, body: Any = None, *, again: int | None = None) -> Any:
        """What is answered; ``again`` is the status of what may have been done, and does no harm twice."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            lives = self._wait_for_target()
            try:
                answer = self._http.request(method, path, json=body)
            except httpx.TransportError as error:
                self._broke(lives, error)
                self._history.note("asked again")
                assert time.monotonic() < deadline, f"no answer to {method} {path}"
                continue
            if answer.status_code != again:
                assert answer.status_code == 200, (method, path, answer.status_code, answer.text)
                return answer.json()
            self._history.note("told again")

    def _wait_for_target(self) -> int:
        """Its life, read before it is waited for: whatever is killed from now on has another."""
        lives = self._target.lives
        self._target.up.wait(PATIENCE_S)
        return lives

    def _broke(self, lives: int, error: httpx.TransportError) -> None:
        if lives == self._target.lives:
            self._history.problems.append(f"a connection broke, and who was asked has lived on: {error!r}")


def run_tasks(target: Target, tasks: int, kills: int, seed: int) -> Outcome:
    """Kill parts of a deployment while its clients run tasks."""
    chance, history = Random(seed), History()
    with ThreadPoolExecutor(CLIENTS + 1) as pool:
        killing = pool.submit(_kill, target, history, chance, kills)
        numbers = iter(range(tasks))
        lock = threading.Lock()
        working = [pool.submit(_work, target, history, numbers, lock) for _ in range(CLIENTS)]
        try:
            for one in working:
                one.result()
        finally:
            history.end()
        killing.result()
    client = target.client(history)
    for seen in history.tasks:
        client.look(seen)
    client.close()
    return Outcome(history.violations(), dict(history.counts))


def _work(target: Target, history: History, numbers: Iterator[int], lock: threading.Lock) -> None:
    client = target.client(history)
    try:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            client.run(number)
    finally:
        client.close()


def _kill(target: Target, history: History, chance: Random, kills: int) -> None:
    """Each part in turn, in an order that is drawn, after some of the load."""
    parts: list[str] = []
    for _ in range(kills):
        parts = parts or chance.sample(target.parts, len(target.parts))
        if not history.wait(chance.randint(5, 60), KILL_WITHIN_S):
            return
        part = parts.pop()
        target.kill(part)
        history.note(f"killed {part}")
