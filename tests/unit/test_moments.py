"""Heartbeats and ends of waits of many consumers fall together, and none comes too late for its client."""

from wakeq._serving.moments import SHARED_MAX, Beats, Moments


def test_who_can_shares_a_moment() -> None:
    moments = Moments()
    assert len({moments.within(number / 100, 50.0, 55.0) for number in range(100)}) == 1


def test_who_can_not_has_another() -> None:
    moments = Moments()
    first = moments.within(0.0, 50.0, 55.0)
    assert moments.within(0.0, 60.0, 65.0) != first
    assert moments.within(0.0, 30.0, 35.0) != first


def test_new_moments_lie_anywhere_in_their_time() -> None:
    found = [Moments().within(0.0, 50.0, 55.0) for _ in range(200)]
    assert all(50.0 <= moment <= 55.0 for moment in found)
    assert len(set(found)) > 190


def test_together_once_heartbeats_stay_together() -> None:
    beats = Beats(3.0)
    moment = beats.next(10.0)
    for _ in range(20):
        following = {beats.next(moment) for _ in range(3)}
        assert len(following) == 1
        moment = following.pop()


def test_no_heartbeat_is_later_than_a_third() -> None:
    beats = Beats(3.0)
    for number in range(5000):
        now = number * 0.017
        assert 2.0 <= beats.next(now) - now <= 4.0


def test_ten_thousand_are_not_answered_at_once() -> None:
    moments = Moments()
    found = [moments.within(0.0, 50.0, 55.0) for _ in range(10_000)]
    assert max(found.count(moment) for moment in set(found)) == SHARED_MAX


def test_what_has_passed_is_forgotten() -> None:
    moments = Moments()
    for number in range(10_000):
        moments.within(number * 10.0, number * 10.0 + 1, number * 10.0 + 2)
    assert len(moments._shared) < 10
