"""A task's events: each once, in order, and none waited for in vain."""

from hypothesis import given
from hypothesis import strategies as st

from wakeq_control.streams import Event, Stream


def add(stream: Stream, *indices: int) -> list[bool]:
    return [stream.add(Event.make(index, {"n": index})) for index in indices]


def ready(stream: Stream) -> list[int]:
    return [event.index for event in stream.ready]


def test_an_event_is_taken_once() -> None:
    stream = Stream()
    assert add(stream, 0, 0, 2, 2, 1, 1) == [True, False, True, False, True, False]
    assert ready(stream) == [0, 1, 2]


def test_a_late_event_holds_back_those_behind_it() -> None:
    stream = Stream()
    add(stream, 0, 2, 3)
    assert ready(stream) == [0]
    add(stream, 1)
    assert ready(stream) == [0, 1, 2, 3]


def test_at_the_end_nothing_is_waited_for() -> None:
    stream = Stream()
    add(stream, 5, 3)
    stream.close()
    assert ready(stream) == [3, 5]


def test_what_comes_after_the_end_takes_its_place() -> None:
    stream = Stream()
    add(stream, 0, 3)
    stream.close()
    assert add(stream, 1, 3, 4) == [True, False, True]
    assert ready(stream) == [0, 1, 3, 4]


def test_a_line_is_ascii_as_llama_deploys() -> None:
    assert Event.make(0, {"msg": "e1 ü"}).line == b'{"msg": "e1 \\u00fc"}\n'


@given(st.permutations(range(8)), st.lists(st.integers(0, 7), max_size=8))
def test_whatever_the_order_nothing_is_lost_or_doubled(order: list[int], again: list[int]) -> None:
    stream = Stream()
    add(stream, *order[:4], *again, *order)
    assert ready(stream) == list(range(8))
    assert sorted(event.index for event in stream.arrived) == list(range(8))
