"""Who may talk to this server at all.

A web page anywhere can make a visitor's browser send requests to 127.0.0.1, and with a name of its own that
resolves there (DNS rebinding) even read the answers. So a foreign `Origin` is refused, and while bound to loopback
so is a `Host` that is no loopback name. Where the server has a token, a request must show it (RFC 6750). The one place
where a request gets its principal.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from hmac import compare_digest
from typing import NamedTuple

from wakeq._serving.hosts import host_name, is_loopback
from wakeq_server.errors import OriginRefused, Unauthenticated


class Principal(NamedTuple):
    """On whose behalf a request is made."""

    name: str


ANONYMOUS = Principal("anonymous")
TOKEN_HOLDER = Principal("token holder")

_OPEN = ("/healthz", "/readyz")
"""What may be asked without a token: whoever starts and watches servers has none."""


class Guard:
    """Lets requests in, or says why not."""

    def __init__(
        self,
        *,
        bound_to: str,
        allowed_hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        token: str | None = None,
    ) -> None:
        self._any_host = not is_loopback(bound_to)
        self._allowed = {host.lower() for host in allowed_hosts}
        self._token = None if token is None else token.encode()
        self._origins = {origin.lower().rstrip("/").encode() for origin in origins}
        # Clients name the same few hosts all day.
        self._host_ok = lru_cache(maxsize=256)(self._check_host)

    @property
    def has_token(self) -> bool:
        """Whether requests must show one."""
        return self._token is not None

    def check_origin(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises OriginRefused."""
        host = headers.get(b"host", b"")
        if not self._any_host and not self._host_ok(host):
            raise OriginRefused(
                f"the host {host.decode('latin-1')!r} is not one of this server's names; see --allowed-hosts"
            )
        origin = headers.get(b"origin")
        if origin is not None and not self._own_origin(origin.lower(), host):
            raise OriginRefused(f"pages of {origin.decode('latin-1')!r} may not use this server; see --cors-origin")

    def admit(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> Principal:
        """The request's principal. Raises Unauthenticated."""
        if self._token is None or (method == "GET" and path in _OPEN):
            return ANONYMOUS
        scheme, _, shown = headers.get(b"authorization", b"").partition(b" ")
        # In a time that tells nothing of how much of it is right.
        if scheme.lower() != b"bearer" or not compare_digest(shown.strip(), self._token):
            raise Unauthenticated
        return TOKEN_HOLDER

    def cors(self, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        """What lets a page of an allowed origin read the answer."""
        if origin is None or origin.lower() not in self._origins:
            return []
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", b"wakeq-seq, retry-after"),
            (b"vary", b"origin"),
        ]

    def _own_origin(self, origin: bytes, host: bytes) -> bool:
        return origin in self._origins or origin in (b"http://" + host.lower(), b"https://" + host.lower())

    def _check_host(self, header: bytes) -> bool:
        name = host_name(header.decode("latin-1"))
        # A request without a Host is HTTP/1.0 or by hand: no browser sends one.
        return not name or is_loopback(name) or name in self._allowed
