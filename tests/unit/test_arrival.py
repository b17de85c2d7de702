"""How long a request may take to come, at moments of the test's choice."""

import pytest

from wakeq_server.arrival import Arrival
from wakeq_server.settings import BODY_MIN_BYTES_PER_S

ENOUGH = 30 * BODY_MIN_BYTES_PER_S


def an_arrival(*, has_head: bool) -> Arrival:
    return Arrival({}, 30.0, 100.0, has_head=has_head)


def test_a_head_has_its_time_from_its_first_byte_whatever_comes() -> None:
    head = an_arrival(has_head=False)
    head.note(1_000_000, 129.0)
    assert head.due == 130.0
    assert head.over(130.0)


def test_a_body_that_is_silent_is_over() -> None:
    body = an_arrival(has_head=True)
    assert body.due == 130.0
    assert body.over(130.0)


def test_a_body_has_to_come_fast_enough_in_each_span() -> None:
    body = an_arrival(has_head=True)
    for span in range(10):
        body.note(ENOUGH, 120.0 + 30 * span)
        assert not body.over(130.0 + 30 * span)
    body.note(ENOUGH - 1, 425.0)
    assert body.over(430.0)


def test_a_body_that_falls_silent_has_its_time_from_then_on() -> None:
    body = an_arrival(has_head=True)
    body.note(ENOUGH, 110.0)
    assert not body.over(130.0)
    assert body.due == 140.0
    assert not body.over(139.0)
    assert body.over(140.0)


@pytest.mark.parametrize("late_s", [0.0, 5.0])
def test_what_this_server_did_not_read_is_not_held_against_the_client(late_s: float) -> None:
    body = an_arrival(has_head=True)
    body.begin_anew(125.0)
    assert not body.over(130.0 + late_s)
    assert body.due == 155.0
    assert body.over(155.0)
