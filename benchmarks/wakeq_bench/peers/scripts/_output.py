"""How the scripts of this folder say something: a line of standard output, at once."""

import json
import sys
from typing import Any


def say(line: str) -> None:
    """Write one line."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def say_json(record: dict[str, Any]) -> None:
    """Write one record as a line of JSON."""
    say(json.dumps(record))
