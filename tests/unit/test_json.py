"""JSON of servers is read whatever is in it."""

import pytest

from wakeq._json import loads


@pytest.mark.parametrize("text", ['{"a": 1}', b'{"a": 1}'])
def test_what_the_fast_parser_takes(text: bytes | str) -> None:
    assert loads(text) == {"a": 1}


def test_a_lone_surrogate_is_read_as_it_was_written() -> None:
    assert loads(rb'{"half": "\ud83d"}') == {"half": "\ud83d"}


def test_what_is_no_json_is_told() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        loads(b"nothing")
