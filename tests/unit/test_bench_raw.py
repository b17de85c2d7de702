import pytest

from wakeq_bench.scenarios.raw import Answer, AnswerParser, BrokenAnswer, address_of, request

SIZED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 4\r\n\r\nnull"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
STARTED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n \r\n"
HEARTBEATS = STARTED + b'1\r\n \r\n9\r\n{"a": 1} \r\n2;x=y\r\nbc\r\n0\r\n\r\n'

WHOLE = [
    (SIZED, Answer(200, b"null")),
    (EMPTY, Answer(204, b"")),
    (HEARTBEATS, Answer(200, b'{"a": 1} bc')),
]


@pytest.mark.parametrize(("data", "answer"), WHOLE)
def test_whole(data: bytes, answer: Answer) -> None:
    assert AnswerParser().feed(data) == answer


@pytest.mark.parametrize(("data", "answer"), WHOLE)
def test_byte_by_byte(data: bytes, answer: Answer) -> None:
    parser = AnswerParser()
    found = [parser.feed(bytes([byte])) for byte in data]
    assert [one for one in found if one is not None] == [answer]
    assert found[-1] == answer


@pytest.mark.parametrize(("data", "answer"), WHOLE)
def test_one_after_the_other(data: bytes, answer: Answer) -> None:
    parser = AnswerParser()
    assert [parser.feed(data), parser.feed(SIZED)] == [answer, Answer(200, b"null")]


def test_trailing_bytes_belong_to_the_next_answer() -> None:
    parser = AnswerParser()
    assert parser.feed(SIZED + SIZED[:30]) == Answer(200, b"null")
    assert parser.feed(SIZED[30:]) == Answer(200, b"null")


def test_heartbeats_are_no_answer() -> None:
    assert AnswerParser().feed(STARTED) is None


def test_json() -> None:
    assert Answer(200, b'{"a": 1}').json() == {"a": 1}


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", STARTED + b"zz\r\n"])
def test_what_is_not_http(data: bytes) -> None:
    with pytest.raises(BrokenAnswer):
        AnswerParser().feed(data)


def test_requests() -> None:
    url = "http://127.0.0.1:81"
    assert request(url, "GET", "/a") == b"GET /a HTTP/1.1\r\nHost: 127.0.0.1:81\r\n\r\n"
    assert request(url, "POST", "/a", b"{}").endswith(b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")


def test_addresses() -> None:
    assert address_of("http://127.0.0.1:8001/x") == ("127.0.0.1", 8001)
    assert address_of("http://queue") == ("queue", 80)
