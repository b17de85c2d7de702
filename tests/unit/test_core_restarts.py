"""What a restart makes of what time has brought while nobody was there to see it."""

import pytest

from tests.support.core import Bench, X
from wakeq_server.core.model import NewMessage, TopicConfig
from wakeq_server.core.topic import Group


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
    assert bench.core.claim(group, None, bench.now) is None
    assert [(seq, group.dead[seq].attempt) for seq in group.dead] == [(1, 2)]


def test_an_earlier_attempt_that_ran_out_unattended_is_ready(bench: Bench) -> None:
    topic = bench.topic(config=TopicConfig(lease_s=10.0, max_deliveries=2))
    bench.publish(topic)
    bench.claim(the_group(bench))
    bench.write()
    bench.now += 20.0
    bench.restart()
    assert bench.claim(the_group(bench)).attempt == 2


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
