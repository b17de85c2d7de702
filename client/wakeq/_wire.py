"""What carries requests to a server: connections of our own, or a transport of httpx that a program gives."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Self

Header = tuple[bytes, bytes]
Kind = Literal["requests", "settles", "streams"]


class Broken(Exception):
    """There is no answer, or not all of it."""

    def __init__(self, reason: str, *, unsent: bool = False) -> None:
        """``unsent``: no server has read anything of the request."""
        super().__init__(reason)
        self.unsent = unsent


class Request(NamedTuple):
    """A request; its headers say how long its content is, and are beside those that all have."""

    method: str
    target: bytes
    headers: Sequence[Header]
    content: bytes


class Arriving(ABC):
    """An answer of which the head is here, and the body comes in parts: an async iterator of them."""

    status: int
    headers: Mapping[bytes, bytes]
    """By their names in lower case."""

    def __aiter__(self) -> Self:
        return self

    @abstractmethod
    async def __anext__(self) -> bytes:
        """The next part, as soon as it comes. Raises Broken."""

    async def whole(self) -> bytes:
        """All of the body. Raises Broken."""
        return b"".join([part async for part in self])

    @abstractmethod
    async def aclose(self) -> None:
        """Read no more of it."""


class Wire(ABC):
    """To one server."""

    @abstractmethod
    async def aopen(self) -> None:
        """Prepare what must be."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close all connections."""

    @abstractmethod
    async def send(self, request: Request, kind: Kind, silence_s: float) -> Arriving:
        """The answer, once its head has come. Each kind has limits of its own to how many are under way.

        A server that is silent for longer than ``silence_s`` has gone. Raises Broken.
        """
