"""Who may talk to this server at all.

Pages of other sites may not (`wakeq._serving.origins`). Where the server has a token, a request must show it
(RFC 6750). The one place where a request gets its principal.
"""

from collections.abc import Iterable, Mapping
from hmac import compare_digest
from typing import NamedTuple

from wakeq._serving.origins import Origins
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
        self._origins = Origins(bound_to=bound_to, allowed_hosts=allowed_hosts, origins=origins)
        self._token = None if token is None else token.encode()

    @property
    def has_token(self) -> bool:
        """Whether requests must show one."""
        return self._token is not None

    def check_origin(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises OriginRefused."""
        host = self._origins.foreign_host(headers)
        if host is not None:
            raise OriginRefused(f"the host {host!r} is not one of this server's names; see --allowed-hosts")
        origin = self._origins.foreign_origin(headers)
        if origin is not None:
            raise OriginRefused(f"pages of {origin!r} may not use this server; see --cors-origin")

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
        if origin is None or not self._origins.allows(origin):
            return []
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", b"wakeq-seq, retry-after"),
            (b"vary", b"origin"),
        ]
