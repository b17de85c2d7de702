"""What a connection of the control plane writes, and when."""

from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from tests.unit.test_sending import Loop, Wire
from wakeq._serving.phrases import PhrasedProtocol, _Answers
from wakeq._serving.sending import Turn

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class OpenWire(Wire):
    """One that nobody closes."""

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class SoonLoop(Loop):
    """What is called soon is called when the turn ends."""

    def call_soon(self, call: Any) -> None:
        self.calls.append(call)


@pytest.fixture
def loop() -> SoonLoop:
    return SoonLoop()


@pytest.fixture
def log() -> list[tuple[str, object]]:
    return []


@pytest.fixture
def answers(loop: Any, log: list[tuple[str, object]]) -> _Answers:
    return _Answers(OpenWire("a", log), Turn(loop.call_soon), loop)


def test_a_head_goes_with_its_body(answers: _Answers, loop: Loop, log: list[tuple[str, object]]) -> None:
    answers.write(HEAD)
    answers.write(b"ok")
    assert log == [("a", HEAD + b"ok")]
    loop.end()
    assert len(log) == 1


def test_a_head_without_one_leaves_at_the_end_of_the_turn(
    answers: _Answers, loop: Loop, log: list[tuple[str, object]]
) -> None:
    answers.write(HEAD)
    assert log == []
    loop.end()
    assert log == [("a", HEAD)]
    answers.write(b"ok")
    loop.end()
    assert log == [("a", HEAD), ("a", b"ok")]


@pytest.mark.parametrize("how", ["close", "abort", "write_eof"])
def test_nothing_overtakes_a_head(answers: _Answers, log: list[tuple[str, object]], how: str) -> None:
    answers.write(HEAD)
    getattr(answers, how)()
    assert log == [("a", HEAD), ("a", how.removeprefix("write_"))]


def test_what_waits_to_be_sent_is_counted(answers: _Answers) -> None:
    answers.write(HEAD)
    assert answers.get_write_buffer_size() == len(HEAD)


def test_a_reason_stands_in_one_status_line(answers: _Answers, log: list[tuple[str, object]]) -> None:
    answers.reason = b"no such task"
    for _ in range(2):
        answers.write(HEAD)
        answers.close()
    written = [what for _, what in log if what != "close"]
    assert written == [b"HTTP/1.1 200 no such task\r\ncontent-length: 2\r\n\r\n", HEAD]


def connection() -> PhrasedProtocol:
    """One that nobody has asked anything over."""
    loop = SoonLoop()
    config = uvicorn.Config(app=lambda scope: None, loop="none", log_config=None)
    protocol = PhrasedProtocol(config, ServerState(), {}, loop, turn=Turn(loop.call_soon))
    protocol.connection_made(OpenWire("a", []))
    return protocol


def test_who_asks_is_told_when_the_client_hangs_up() -> None:
    told: list[str] = []
    asked = connection()
    asked.when_gone(lambda: told.append("before"))
    asked.connection_lost(ConnectionResetError())
    asked.when_gone(lambda: told.append("after"))
    assert told == ["before", "after"]


def test_who_has_his_answer_is_told_nothing() -> None:
    told: list[str] = []
    asked = connection()
    asked.when_gone(lambda: told.append("before"))
    asked.when_gone(None)
    asked.connection_lost(ConnectionResetError())
    assert told == []


def test_who_waits_behind_a_large_body_is_told_too() -> None:
    asked = connection()
    asked.flow.pause_reading()
    asked.when_gone(lambda: None)
    assert not asked.flow.read_paused
