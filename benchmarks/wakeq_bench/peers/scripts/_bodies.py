"""Messages that are numbered, so that none can be lost or come twice unseen.

Run by the python of a peer's environment: the standard library only.
"""

DIGITS = 12
"""Those of the number that every message begins with."""


def body_of(number: int, size: int) -> str:
    """A message of `size` bytes."""
    return f"{number:0{DIGITS}d}".ljust(size, "x")


def number_of(body: bytes | str) -> int:
    """What message that is."""
    return int(body[:DIGITS])
