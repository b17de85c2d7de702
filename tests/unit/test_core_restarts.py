"""What a restart makes of what time has brought while nobody was there to see it."""

import pytest

from tests.support.core import Bench, X, claim
from wakeq_server.core.model import NewMessage, TopicConfig
from wakeq_server.core.topic import Group
from wakeq_server.errors import StorageFailed


@pytest.fixture
def bench() -> Bench:
    return Bench()


def the_group(bench: Bench) -> Group:
    return bench.topic().groups["default"]


def test_a_last_attempt_that_ran_out_unattended_is_dead(bench: Bench) -> None:
    topic = bench.topic(config=TopicConfig(lease_s=10.0, max_deliveries=2))
    bench.publish(topic)
    bench.settle(topic, "nack", bench.claim(the_group(bench)), 0.0)
    assert bench.claim(the_group(bench)).attempt == 2
    bench.write()
    bench.now += 20.0
    bench.restart()
    group = the_group(bench)
    assert claim(bench.core, group, bench.now) is None
    assert [(seq, group.dead[seq].attempt) for seq in group.dead] == [(1, 2)]


def test_an_earlier_attempt_that_ran_out_unattended_is_ready(bench: Bench) -> None:
    topic = bench.topic(config=TopicConfig(lease_s=10.0, max_deliveries=2))
    bench.publish(topic)
    bench.claim(the_group(bench))
    bench.write()
    bench.now += 20.0
    bench.restart()
    assert bench.claim(the_group(bench)).attempt == 2


def test_a_dead_letter_whose_time_was_over_before_anything_of_it_was_stored_does_not_come_back(bench: Bench) -> None:
    topic = bench.topic(config=TopicConfig(lease_s=10.0, max_deliveries=1, dead_ttl_s=20.0))
    bench.group(topic, "g")
    bench.publish(topic)
    bench.claim(the_group(bench))
    bench.tick(11.0)
    bench.tick(21.0)
    bench.write()
    bench.restart()
    assert (the_group(bench).ready, bench.topic().groups["g"].ready) == (0, 1)


@pytest.mark.parametrize("groups", [(), ("g",)], ids=["alone", "with another group"])
@pytest.mark.parametrize("nacked", [0, 1])
def test_a_release_is_kept_with_the_attempts_before_it(bench: Bench, groups: tuple[str, ...], nacked: int) -> None:
    topic = bench.topic(config=TopicConfig(max_deliveries=2))
    for name in groups:
        bench.group(topic, name)
    bench.publish(topic, X, X)
    for _ in range(nacked):
        bench.settle(topic, "nack", bench.claim(the_group(bench)), 0.0)
    lease = bench.claim(the_group(bench))
    bench.write()
    bench.settle(topic, "release", lease)
    bench.restart()
    group = the_group(bench)
    assert (group.ready, group.leased, group.attempts) == (2, 0, {1: nacked} if nacked else {})
    again = bench.claim(group)
    assert (again.key.seq, again.attempt) == (1, nacked + 1)


def test_a_release_that_could_not_be_stored_leaves_the_lease_as_it_was(bench: Bench) -> None:
    topic = bench.topic()
    bench.publish(topic)
    group = the_group(bench)
    lease = bench.claim(group)
    release = bench.settling(topic, "release", lease)
    bench.write(release, fails=[release])
    assert (group.ready, group.leased, lease.attempt) == (0, 1, 1)
    bench.settle(topic, "release", lease)
    assert (group.ready, group.leased, group.attempts) == (1, 0, {})


@pytest.mark.parametrize(("said", "left"), [({"ttl_s": 30.0}, (0, 0)), ({"delay_s": 30.0}, (1, 0))])
def test_a_clock_that_was_set_back_makes_no_time_longer_than_it_was(
    bench: Bench, said: dict[str, float], left: tuple[int, int]
) -> None:
    bench.publish(bench.topic(), NewMessage(b"x", **said))  # type: ignore[arg-type]
    bench.ahead -= 4_096.0
    bench.restart()
    bench.tick(30.0)
    group = the_group(bench)
    assert (group.ready, group.delayed) == left


def test_a_clock_that_was_set_forward_ends_a_time_to_live(bench: Bench) -> None:
    bench.publish(bench.topic(), NewMessage(b"x", ttl_s=30.0), X)
    bench.ahead += 4_096.0
    bench.restart()
    assert the_group(bench).ready == 1
    assert bench.claim(the_group(bench)).key.seq == 2


@pytest.mark.parametrize("ends", ["purged", "dead and over"])
def test_what_ends_while_its_history_fails_to_be_written_does_not_come_back(bench: Bench, ends: str) -> None:
    topic = bench.topic(config=TopicConfig(dead_ttl_s=20.0))
    group, _ = topic.groups["default"], bench.group(topic, "g")
    bench.publish(topic, NewMessage(b"x", key="a"))
    lease = bench.claim(group)
    if ends == "purged":
        bench.core.undo(group, lease.key)
    else:
        bench.settle(topic, "dead", lease)
        bench.core.note_change(group, 1)
    history = bench.core.write_history(bench.now, bench.wall)
    assert history is not None
    batch = [bench.core.purge(group)] if ends == "purged" else []
    bench.tick(35.0)
    history.abort(StorageFailed("disk"), bench.now)
    bench.write(*batch)
    bench.restart()
    assert (the_group(bench).ready, len(the_group(bench).dead)) == (0, 0)
