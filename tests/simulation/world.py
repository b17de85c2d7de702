"""The simulation: draws what happens next from a seed, lets it happen, and asks the checker."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

from tests.simulation import quiet
from tests.simulation.checker import Checker
from tests.simulation.clients import Client, Clients, Held
from tests.simulation.disk import Disk
from tests.simulation.loop import VirtualLoop
from tests.simulation.model import Violated, check
from tests.simulation.server import Server
from wakeq_server.core.model import DEFAULT_GROUP, KeysForgotten, NewMessage, Record, Settle, TopicConfig
from wakeq_server.errors import StorageError, StorageFailed, StorageFull

WALL = float(1 << 30)
CLIENTS_MAX = 24
CROWDED = 24
"""Messages in a topic from which on nobody publishes: consumers shall find it empty now and then."""
ROOMY = 1 << 40
"""A memory budget that is never used up."""
GROUPS = (DEFAULT_GROUP, "second", "third")

CONFIGS = {
    "jobs": TopicConfig(
        lease_s=8.0,
        max_deliveries=3,
        retry_min_s=1.0,
        retry_max_s=4.0,
        dead_ttl_s=200.0,
        max_messages=16,
        dedup_window_s=32.0,
    ),
    "plain": TopicConfig(
        lease_s=4.0, max_deliveries=0, retry_min_s=0.5, retry_max_s=8.0, dead_ttl_s=100.0, dedup_window_s=16.0
    ),
    "graves": TopicConfig(lease_s=16.0, max_deliveries=2, retry_min_s=0.0, dead_ttl_s=400.0, max_messages=6),
    "brief": TopicConfig(lease_s=8.0, max_deliveries=4, retry_min_s=1.0, retry_max_s=2.0, ttl_s=24.0),
}

Action = Callable[[], Awaitable[None] | None]


class World:
    """One simulation."""

    def __init__(self, loop: VirtualLoop, disk: Disk, seed: int) -> None:
        self.rng = Random(seed)
        self.loop = loop
        self.disk = disk
        self.checker = Checker(loop.time)
        self.step = 0
        self.lines: list[str] = []
        self.violation: Violated | None = None
        self.server: Server | None = None
        self.clients: dict[int, Client] = {}
        self.held: list[Held] = []
        self.ahead = WALL
        self._number = 0
        self._messages = 0
        self._calls: Clients | None = None
        self._configs = self._draw_configs()
        self._memory_budget = self.rng.choice([ROOMY, ROOMY, 4_000])
        self._jumps = self.rng.random() < 0.4
        self._failing = self.rng.choice([0.0, 0.05, 0.15, 0.3])
        self._actions, self._weights = self._draw_weights()

    def log(self, line: str) -> None:
        self.lines.append(f"{self.step:6d} {self.loop.time():11.3f}  {line}")

    def _draw_configs(self) -> dict[str, TopicConfig]:
        configs = dict(CONFIGS)
        if self.rng.random() < 0.6:
            configs["jobs"] = replace(configs["jobs"], dead_letter_topic="graves")
        if self.rng.random() < 0.4:
            configs["plain"] = replace(configs["plain"], ttl_s=self.rng.choice([6.0, 20.0]))
        if self.rng.random() < 0.5:
            configs["plain"] = replace(configs["plain"], max_bytes=self.rng.choice([120, 240]))
        if self.rng.random() < 0.3:
            configs["jobs"] = replace(configs["jobs"], max_bytes=300)
        return configs

    def _draw_weights(self) -> tuple[list[Action], list[float]]:
        """Every seed has another mix: some do mostly this, some never that."""
        weights: list[tuple[Action, float]] = [
            (self.publish, 10),
            (self.publish_each, 2),
            (self.claim, 6),
            (self.claim_lowest, 5),
            (self.get, 5),
            (self.stream, 2),
            (self.settle, 14),
            (self.disturb, 6),
            (self.finish, 22),
            (self.pass_time, 10),
            (self.look, 1),
            (self.purge, 0.5),
            (self.redrive, 1.2),
            (self.pause, 0.7),
            (self.group, 0.7),
            (self.brief_topic, 0.5),
            (self.crash, 0.5),
            (self.restart, 0.3),
        ]
        rare = [self.rng.choice([0.0, 0.3, 1.0, 1.0, 1.0, 3.0]) for _ in weights]
        needed = {self.publish, self.finish, self.pass_time, self.settle}
        scaled = [
            weight * (max(factor, 0.3) if action in needed else factor)
            for (action, weight), factor in zip(weights, rare, strict=True)
        ]
        return [action for action, _ in weights], scaled

    # Running

    async def run(self, steps: int) -> None:
        """Raises Violated."""
        await self.start(0.0)
        for name, config in self._configs.items():
            self.spawn("make topic", partial(self.calls.put_topic, topic=name, config=config))
            await self.settle_down()
        while self.step < steps:
            self.step += 1
            (action,) = self.rng.choices(self._actions, self._weights)
            done = action()
            if done is not None:
                await done
            await self.after_a_step()
        await self.end()

    async def after_a_step(self) -> None:
        turns = self.rng.choice([0, 1, 2, 4, -1, -1, -1])
        if turns < 0:
            await self.come_to_rest()
        for _ in range(turns):
            await asyncio.sleep(0)
        self.raise_violation()

    def raise_violation(self) -> None:
        if self.violation is not None:
            raise self.violation

    async def come_to_rest(self) -> None:
        """Let everybody run who can, and look."""
        await self.up.rest()
        self.raise_violation()
        quiet.compare(self.checker, self.up.engine, self.consumers(), full=self.up.full)
        if self.up.full and not self.up.failing:
            held = [client.publishing for client in self.clients.values() if client.publishing is not None]
            quiet.check_held(self.up.engine, held)
        self.up.calls.read.clear()

    @property
    def up(self) -> Server:
        assert self.server is not None
        return self.server

    @property
    def calls(self) -> Clients:
        assert self._calls is not None
        return self._calls

    def consumers(self) -> list[quiet.Consumer]:
        found = []
        for client in self.clients.values():
            subscription = client.subscription
            if client.taking and subscription is not None:
                parked, prefetch = subscription.parked is not None, subscription.prefetch
                found.append(quiet.Consumer(subscription.group, parked, client, prefetch, client.ends))
        return found

    def spawn(self, kind: str, does: Callable[[Client], Awaitable[None]], said: str = "") -> Client:
        """A client appears."""
        self._number += 1
        client = self.clients[self._number] = Client(self._number, kind)
        self.log(f"{kind} {client.number}: {said or 'begins'}")
        self.loop.create_task(self._run(client, does)).add_done_callback(lambda task: task.result())
        return client

    async def _run(self, client: Client, does: Callable[[Client], Awaitable[None]]) -> None:
        try:
            with client.scope:
                await does(client)
        except Violated as violation:
            self.violation = self.violation or violation
        except Exception as error:
            if not client.dead:
                self.violation = self.violation or Violated(f"{client.kind} {client.number} raised {error!r}")
        finally:
            self.clients.pop(client.number, None)

    # Starts and ends

    async def start(self, jump: float) -> None:
        self.ahead += jump
        self.checker.ahead = self.ahead
        self.server = Server(
            self.loop,
            self.disk,
            self.rng,
            self._committed,
            ahead=self.ahead,
            memory_budget=self._memory_budget,
        )
        await self.server.start()
        store = self.server.store
        self.checker.blurred = self.server.calls.blurred
        self.checker.failures = lambda: store.failures
        self._calls = Clients(self.server.engine, self.checker, self.log, self.held, self.clients)
        self.checker.averaged = self._memory_budget < ROOMY or self.checker.counts["restarts"] > 0
        self.checker.jumped = self.checker.jumped or jump != 0.0
        quiet.restarted(self.checker, self.server.engine)

    def _committed(self, transactions: list[list[Record]]) -> None:
        try:
            self.checker.committed(transactions)
        except Violated as violation:
            # Raised from here it would be the store's failure.
            self.violation = self.violation or violation

    def _downtime(self) -> float:
        self.loop.move(self.loop.time() + self.rng.choice([0.0, 0.25, 2.0, 16.0]))
        return self.rng.choice([0.0, 3.0, 64.0, -3.0, -64.0, -4096.0]) if self._jumps else 0.0

    async def crash(self) -> None:
        left = self.rng.choice([0, 0, 1, 2])
        self.log(f"crash, {left} commits still reach the disk")
        for client in list(self.clients.values()):
            client.dead = True
        await self.up.crash(left)
        await self._end_clients()
        jump = self._downtime()
        self.log(f"start, the wall clock is {jump} s ahead of where it was")
        await self.start(jump)

    async def restart(self) -> None:
        self.log("drain")
        self.up.engine.drain()
        await self.come_to_rest()
        if self.rng.random() < 0.5:
            await self.settle_down()
        await self._stop()
        jump = self._downtime()
        self.log(f"start, the wall clock is {jump} s ahead of where it was")
        await self.start(jump)

    async def _stop(self) -> None:
        await self._end_clients()
        self.raise_violation()
        await self.up.stop()
        quiet.compare(self.checker, self.up.engine, [], full=True, ticking=False)

    async def _end_clients(self) -> None:
        for client in list(self.clients.values()):
            client.scope.cancel()
        while self.clients:
            await self.up.rest()
            if self.clients:
                self.up.calls.finish()

    async def settle_down(self) -> None:
        """Let the disk finish, and everything be written that rides along."""
        for _ in range(200):
            await self.come_to_rest()
            if self.up.calls.running:
                self.up.calls.finish()
            elif self.up.full and not self._unwritten():
                return
            else:
                self.loop.move(self.loop.time() + 0.0625)
        raise Violated("the disk never has everything")

    def _unwritten(self) -> bool:
        core = self.up.engine.core
        # That a key is over is written with the next commit, whenever that is.
        return bool(core.changed) or not all(isinstance(record, KeysForgotten) for record in core.loose)

    async def end(self) -> None:
        """With a healthy disk, and consumers that settle, nothing is left."""
        self.log("end")
        self.up.store.plan.clear()
        await self._end_clients()
        await self.settle_down()
        for name in self._configs:
            self.spawn("resume", partial(self.calls.pause, topic=name, paused=False))
        await self.settle_down()
        for round_ in range(400):
            left = [place for topic in self.checker.topics.values() for place in quiet.places(topic.groups.values())]
            if not left:
                break
            if all(place.certainly("dead") and place.expires <= self.loop.time() for place in left):
                # They would be dropped, so they can't be redriven.
                self.loop.move(self.loop.time() + max(config.dead_ttl_s for config in self._configs.values()))
            await self._consume_all(redrive=round_ % 4 == 3)
            self.loop.move(self.loop.time() + 2.0)
        quiet.nothing_left(self.checker, self.up.engine)
        await self._stop()
        await self.start(0.0)
        quiet.nothing_left(self.checker, self.up.engine)
        await self._stop()

    async def _consume_all(self, *, redrive: bool) -> None:
        for topic in list(self.checker.topics.values()):
            for group in list(topic.groups.values()):
                if redrive:
                    self.spawn(
                        "redrive",
                        partial(self.calls.redrive, topic=topic.name, group=group.name, limit=None, calm=False),
                    )
                self.spawn("claim", partial(self.calls.claim, topic=topic.name, group=group.name, limit=50))
            await self.settle_down()
            mine = [one.delivery.lease.encode() for one in self.held if one.topic == topic.name]
            lines = [Settle("ack", lease_id) for lease_id in mine]
            self.spawn("settle", partial(self.calls.settle, topic=topic.name, lines=lines))
            await self.settle_down()
        self.held.clear()

    # What happens

    def _pick(self, *names: str) -> str:
        return self.rng.choice(names or ("jobs", "jobs", "plain", "plain", "graves", "brief"))

    def _crowd(self) -> bool:
        return len(self.clients) >= CLIENTS_MAX

    def _new(self, size: int, name: str | None = None, **attributes: Any) -> list[NewMessage]:
        self._messages += 1
        name = name or f"p{self._messages}"
        # Bodies of several sizes, but one message's is always the same.
        blanks = " " * (8 * (sum(name.encode()) % 3))
        return [NewMessage(f'"{name}.{number}/{size}"{blanks}'.encode(), **attributes) for number in range(size)]

    def publish(self) -> None:
        topic, rng = self._pick("jobs", "jobs", "jobs", "plain", "plain", "plain", "brief", "graves"), self.rng
        queue = self.up.engine.core.topics.get(topic)
        if self._crowd() or (queue is not None and queue.held_messages >= CROWDED):
            return
        attributes: dict[str, Any] = {}
        if rng.random() < 0.35:
            attributes["key"] = rng.choice("xy")
        elif rng.random() < 0.25:
            attributes["delay_s"] = rng.choice([0.5, 3.0, 10.0])
        if rng.random() < 0.2:
            attributes["ttl_s"] = rng.choice([11.0, 30.0])
        size, key, name = rng.choice([1, 1, 1, 2, 3]), None, None
        if rng.random() < 0.25:
            key, size = f"k{rng.randrange(6)}", 1
            name = f"{topic}-{key}-{rng.choice('aab')}"
            attributes = {"headers": {"of": key}, "id": key}
        messages = self._new(size, name, **attributes)
        hold_s = rng.choice([0.0, 0.0, 4.0])
        said = f"{topic} {messages[0].body.decode()} {attributes or ''} hold {hold_s}"
        self.spawn("publish", partial(self.calls.publish, topic=topic, messages=messages, key=key, hold_s=hold_s), said)

    def publish_each(self) -> None:
        topic = self._pick("jobs", "plain")
        if self._crowd() or self.up.engine.core.topics[topic].held_messages >= CROWDED:
            return
        messages = []
        for _ in range(self.rng.choice([1, 2, 3])):
            key = f"k{self.rng.randrange(6)}"
            name = f"{topic}-{key}-{self.rng.choice('aab')}"
            messages += self._new(1, name, headers={"of": key}, id=key)
        said = f"{topic} {', '.join(message.body.decode() for message in messages)}"
        self.spawn("publish each", partial(self.calls.publish_each, topic=topic, messages=messages), said)

    def claim(self) -> None:
        if self._crowd():
            return
        topic, group = self._pick(), self.rng.choice(GROUPS[:2] * 2 + GROUPS[2:])
        options: dict[str, Any] = {
            "limit": self.rng.choice([1, 1, 2, 5]),
            "wait_s": self.rng.choice([0.0, 1.0, 8.0, 20.0]),
            "lease_s": self.rng.choice([None, None, 1.0, 2.5, 20.0]),
            "turns": self.rng.choice([0, 0, 1, 3]),
        }
        self.spawn(
            "claim", partial(self.calls.claim, topic=topic, group=group, **options), f"{topic}/{group} {options}"
        )

    async def claim_lowest(self) -> None:
        """In a quiet moment it is known what a claim must get."""
        await self.come_to_rest()
        queue = self.rng.choice(list(self.checker.topics.values()))
        group = self.rng.choice(list(queue.groups.values()))
        held = any(place.pending for place in group.places.values())
        if (
            held
            or queue.pausing
            or any(c.group.id == group.id and c.group.topic.id == queue.id for c in self.consumers())
        ):
            return
        core = self.up.engine.core.topics.get(queue.name)
        if core is None or core.dropping or core.groups[group.name].dropping:
            return
        expected = [] if queue.paused else group.claimable()
        limit = self.rng.choice([1, 2, 4])
        self.spawn(
            "claim",
            partial(self.calls.claim, topic=queue.name, group=group.name, limit=limit, expected=expected),
            f"{queue.name}/{group.name} {limit} of {expected}",
        )
        await self.up.rest()

    def get(self) -> None:
        if self._crowd():
            return
        topic = self._pick("jobs", "plain", "brief")
        options: dict[str, Any] = {
            "wait_s": self.rng.choice([0.0, 2.0, 55.0]),
            "turns": self.rng.choice([0, 1, 3]),
            "arrives": self.rng.random() < 0.8,
        }
        self.spawn("get", partial(self.calls.get, topic=topic, **options), f"{topic} {options}")

    def stream(self) -> None:
        if self._crowd():
            return
        topic, group = self._pick(), self.rng.choice(GROUPS)
        options: dict[str, Any] = {
            "prefetch": self.rng.choice([1, 2, 4]),
            "lease_s": self.rng.choice([3.0, 12.0, 40.0]),
            "grace_s": self.rng.choice([0.5, 5.0]),
            "turns": self.rng.choice([0, 1, 3]),
        }
        self.spawn(
            "stream", partial(self.calls.stream, topic=topic, group=group, **options), f"{topic}/{group} {options}"
        )

    def settle(self) -> None:
        if self._crowd() or not self.held:
            return
        del self.held[:-60]
        rng = self.rng
        first = rng.choice(self.held[-12:] if rng.random() < 0.8 else self.held)
        chosen = [first, *(rng.choice(self.held) for _ in range(rng.choice([0, 0, 1, 3])))]
        lines = [self._line(one) for one in chosen if one.topic == first.topic]
        if rng.random() < 0.02:
            lines.append(Settle("ack", "not-a-lease"))
        said = f"{first.topic} {', '.join(f'{line.outcome} {line.lease_id}' for line in lines)}"
        self.spawn("settle", partial(self.calls.settle, topic=first.topic, lines=lines), said)

    def _line(self, held: Held) -> Settle:
        rng, lease_id = self.rng, held.delivery.lease.encode()
        outcome = rng.choice(["ack", "ack", "ack", "nack", "nack", "release", "extend", "dead"])
        if outcome != "dead" and rng.random() < 0.9 and held in self.held and outcome != "extend":
            self.held.remove(held)
        if outcome == "nack":
            return Settle("nack", lease_id, delay_s=rng.choice([None, 0.0, 0.0, 2.0, 6.0]), reason="why")
        if outcome == "extend":
            return Settle("extend", lease_id, lease_s=rng.choice([None, 0.5, 3.0, 25.0]))
        return Settle(outcome, lease_id)

    def disturb(self) -> None:
        """A client is cancelled, or hangs up, wherever it is."""
        if not self.clients:
            return
        client = self.clients[self.rng.choice(list(self.clients))]
        if self.rng.random() < 0.5:
            self.log(f"{client.kind} {client.number}: cancelled")
            client.scope.cancel()
        else:
            self.log(f"{client.kind} {client.number}: hangs up")
            client.hung_up = True
            client.line_is_cut.set()

    def finish(self) -> None:
        """What the disk was asked for ends, well or not."""
        if not self.up.calls.running:
            return
        plan = self.up.store.plan
        plan.clear()
        if self.rng.random() < self._failing:
            errors: list[StorageError | None] = [StorageFull("full"), StorageFailed("failed")]
            first = self.rng.choice(errors)
            some = [self.rng.choice([None, first]) for _ in range(12)]
            plan.extend(self.rng.choice([[first], [first] * 30, [first, *some]]))
        self.log(f"the disk ends a call{f', failing {sum(map(bool, plan))} times' if plan else ''}")
        self.up.calls.finish()

    def pass_time(self) -> None:
        timer = self.loop.next_timer()
        if timer is not None and timer < self.loop.time() + 1_000.0 and self.rng.random() < 0.4:
            self.loop.move(timer)
        else:
            seconds = self.rng.choice([0.015625, 0.0625, 0.0625, 0.25, 1.0, 3.0, 9.0, 40.0])
            self.loop.move(self.loop.time() + seconds)
        self.log("time passes")

    def look(self) -> None:
        topic, group = self._pick(), self.rng.choice(GROUPS)
        state = self.rng.choice(["ready", "delayed", "leased", "dead"])
        self.spawn("look", partial(self.calls.look, topic=topic, group=group, state=state), f"{topic}/{group} {state}")

    async def purge(self) -> None:
        topic, group = self._pick(), self.rng.choice(GROUPS)
        calm = await self._calm()
        self.spawn("purge", partial(self.calls.purge, topic=topic, group=group, calm=calm), f"{topic}/{group}")

    async def redrive(self) -> None:
        topic, group, limit = self._pick(), self.rng.choice(GROUPS), self.rng.choice([None, None, 1, 3])
        calm = await self._calm()
        does = partial(self.calls.redrive, topic=topic, group=group, limit=limit, calm=calm)
        self.spawn("redrive", does, f"{topic}/{group} {limit or 'all'}")

    async def _calm(self) -> bool:
        """Whether what is done next is done in a quiet moment, so that it is known what it does."""
        calm = self.rng.random() < 0.6
        if calm:
            await self.come_to_rest()
        return calm

    def pause(self) -> None:
        topic = self._pick()
        known = self.checker.topic(topic)
        if known is None or known.pausing:
            return
        paused = not known.paused and self.rng.random() < 0.7
        self.spawn("pause", partial(self.calls.pause, topic=topic, paused=paused), f"{topic} {paused}")

    def group(self) -> None:
        topic, group = self._pick("jobs", "plain", "brief"), self.rng.choice(GROUPS[1:])
        if self.rng.random() < 0.6:
            self.spawn("make group", partial(self.calls.put_group, topic=topic, group=group), f"{topic}/{group}")
        else:
            self.spawn("drop group", partial(self.calls.delete_group, topic=topic, group=group), f"{topic}/{group}")

    def brief_topic(self) -> None:
        config = self._configs["brief"]
        if self.rng.random() < 0.5:
            self.spawn("drop topic", partial(self.calls.delete_topic, topic="brief"))
        else:
            self.spawn("make topic", partial(self.calls.put_topic, topic="brief", config=config))


def assert_progress(world: World) -> None:
    """A simulation in which nothing happens proves nothing."""
    for what, least in (("published", 1), ("delivered", 1), ("settled", 1)):
        check(world.checker.counts[what] >= least, f"nothing was {what} in all that time")
