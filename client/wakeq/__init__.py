"""wakeq: publish and consume messages over HTTP; consumers are woken, not polling."""

from wakeq._version import __version__

__all__ = ["__version__"]
