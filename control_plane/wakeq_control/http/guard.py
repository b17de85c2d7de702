"""Who may talk to this server at all: no pages of other sites, and with a token only who shows it."""

from collections.abc import Iterable, Mapping

from wakeq._serving.origins import Origins
from wakeq._serving.tokens import is_shown
from wakeq_control.errors import OriginRefused, Unauthenticated

_OPEN = "/healthz"
"""What may be asked without a token: whoever starts and watches servers has none."""


class Guard:
    """Lets requests in, or says why not."""

    def __init__(self, *, bound_to: str, allowed_hosts: Iterable[str], token: str | None = None) -> None:
        self._origins = Origins(bound_to=bound_to, allowed_hosts=allowed_hosts)
        self._token = token

    def admit(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> None:
        """Raises OriginRefused, Unauthenticated."""
        self.check(headers)
        is_open = method == "GET" and path == _OPEN
        if self._token is not None and not is_open and not is_shown(self._token, headers):
            raise Unauthenticated

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises OriginRefused."""
        host = self._origins.foreign_host(headers)
        if host is not None:
            raise OriginRefused(f"the host {host.lower()!r} is not one of this server's names; see --allowed-hosts")
        origin = self._origins.foreign_origin(headers)
        if origin:
            raise OriginRefused(f"pages of {origin.lower()!r} may not use this server")
