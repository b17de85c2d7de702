"""HTTP answers out of bytes, cut anywhere."""

import pytest

from wakeq._answers import Answers, NoAnswer

SIZED = b"HTTP/1.1 200 OK\r\nWakeq-Seq: 7\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=1\r\nbo\r\n2\r\ndy\r\n0\r\nTrailer: 1\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody"
OLD = b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nbody"
UNTIL_END = b"HTTP/1.1 200 OK\r\n\r\nbody"

WHOLE = [
    (SIZED, 200, b"body", True),
    (CHUNKED, 200, b"body", True),
    (EMPTY, 204, b"", True),
    (INTERIM + SIZED, 200, b"body", True),
    (LAST, 200, b"body", False),
    (OLD, 200, b"body", False),
]


@pytest.mark.parametrize("step", [1, 7, 1_000])
@pytest.mark.parametrize(("data", "status", "body", "goes_on"), WHOLE)
def test_an_answer_is_the_same_however_it_is_cut(
    data: bytes, status: int, body: bytes, goes_on: bool, step: int
) -> None:
    answers = Answers()
    found = b""
    for start in range(0, len(data), step):
        assert not answers.over
        answers.feed(data[start : start + step])
        found += answers.take()
    assert (answers.status, found, answers.over, answers.can_go_on) == (status, body, True, goes_on)


def test_answers_come_one_after_the_other() -> None:
    answers = Answers()
    for data, status, body, _ in WHOLE[:4]:
        answers.begin()
        answers.feed(data)
        assert (answers.status, answers.take(), answers.can_go_on) == (status, body, True)
    assert answers.headers == {b"wakeq-seq": b"7", b"content-length": b"4"}


def test_a_body_without_a_length_is_over_with_its_connection() -> None:
    answers = Answers()
    answers.feed(UNTIL_END)
    assert (answers.status, answers.over) == (200, False)
    answers.feed(b"")
    assert (answers.take(), answers.over, answers.can_go_on) == (b"body", True, False)


@pytest.mark.parametrize("data", [b"", SIZED[:20], SIZED[:-1], CHUNKED[:-2], INTERIM])
def test_an_end_too_early_is_none(data: bytes) -> None:
    answers = Answers()
    if data:
        answers.feed(data)
    with pytest.raises(NoAnswer):
        answers.feed(b"")
    assert not answers.can_go_on


@pytest.mark.parametrize(
    "data",
    [
        b"what?\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    answers = Answers()
    with pytest.raises(NoAnswer):
        answers.feed(data)
    assert not answers.can_go_on


@pytest.mark.parametrize("more", [b"x", SIZED, EMPTY])
def test_what_comes_beyond_an_answer_is_no_part_of_it(more: bytes) -> None:
    answers = Answers()
    answers.feed(SIZED + more)
    assert (answers.status, answers.headers[b"wakeq-seq"], answers.take()) == (200, b"7", b"body")
    assert (answers.over, answers.can_go_on) == (True, False)
