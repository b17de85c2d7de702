"""Which web pages may use a server, and by which names it may be called.

A web page anywhere can make a visitor's browser send requests to 127.0.0.1, and with a name of its own that resolves
there (DNS rebinding) even read the answers. So a foreign `Origin` is refused, and while bound to loopback so is a
`Host` that is no loopback name.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from wakeq._serving.hosts import host_name, is_loopback


class Origins:
    """What a server goes by; each has its own words for a refusal."""

    def __init__(self, *, bound_to: str, allowed_hosts: Iterable[str], origins: Iterable[str] = ()) -> None:
        self._any_host = not is_loopback(bound_to)
        self._hosts = {host.lower() for host in allowed_hosts}
        self._origins = {origin.lower().rstrip("/").encode() for origin in origins}
        # Clients name the same few hosts all day.
        self._is_ours = lru_cache(maxsize=256)(self._names_us)

    def foreign_host(self, headers: Mapping[bytes, bytes]) -> str | None:
        """What `Host` says, where that is not one of the server's names."""
        host = headers.get(b"host", b"")
        return None if self._any_host or self._is_ours(host) else host.decode("latin-1")

    def foreign_origin(self, headers: Mapping[bytes, bytes]) -> str | None:
        """What `Origin` says, where that is another site's."""
        origin = headers.get(b"origin")
        if origin is None or self._own(origin.lower(), headers.get(b"host", b"").lower()):
            return None
        return origin.decode("latin-1")

    def allows(self, origin: bytes) -> bool:
        """Whether pages of that origin were allowed by name."""
        return origin.lower() in self._origins

    def _own(self, origin: bytes, host: bytes) -> bool:
        return origin in self._origins or origin in (b"http://" + host, b"https://" + host)

    def _names_us(self, header: bytes) -> bool:
        name = host_name(header.decode("latin-1"))
        # A request without a Host is HTTP/1.0 or by hand: no browser sends one.
        return not name or is_loopback(name) or name in self._hosts
