"""A line to a server, of bytes: what asyncio and trio have in common of it."""

from abc import ABC, abstractmethod


class LineTooSlow(Exception):
    """Nothing has moved for as long as it may."""


class Line(ABC):
    """A connection; what is wrong with it is an OSError, or LineTooSlow where it stands still."""

    @abstractmethod
    async def send(self, data: bytes, limit_s: float) -> None:
        """Hand over all of it, each part within ``limit_s``; or less, where the server has answered already."""

    @abstractmethod
    async def receive(self, limit_s: float) -> bytes:
        """What has come; nothing at the end."""

    @property
    @abstractmethod
    def is_quiet(self) -> bool:
        """Whether all is sent and nothing has come, not even the end."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close it at once."""
