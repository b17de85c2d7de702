"""Heartbeats of many consumers fall together, and none comes too late for its client."""

from wakeq_server.http.beats import SHARED_MAX, Beats


def test_consumers_that_came_within_a_third_share_their_moment() -> None:
    beats = Beats(3.0)
    assert {beats.next(10.0 + number / 100) for number in range(100)} == {13.0}


def test_together_once_they_stay_together() -> None:
    beats = Beats(3.0)
    moment = beats.next(10.0)
    for _ in range(20):
        following = {beats.next(moment + late) for late in (0.0, 0.001, 0.002)}
        assert len(following) == 1
        moment = following.pop()


def test_none_waits_longer_than_a_third_more() -> None:
    beats = Beats(3.0)
    for number in range(5000):
        now = number * 0.017
        assert 2.0 <= beats.next(now) - now <= 4.0


def test_ten_thousand_do_not_beat_at_once() -> None:
    beats = Beats(3.0)
    moments = [beats.next(10.0) for _ in range(10_000)]
    assert max(moments.count(moment) for moment in set(moments)) == SHARED_MAX
    assert max(moments) <= 14.0


def test_what_has_passed_is_forgotten() -> None:
    beats = Beats(3.0)
    for number in range(100_000):
        beats.next(number * 10.0)
    assert len(beats._shared) < 10
