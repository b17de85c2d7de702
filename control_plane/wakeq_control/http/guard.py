"""Who may talk to this server at all."""

from collections.abc import Iterable, Mapping

from wakeq._serving.origins import Origins
from wakeq_control.errors import OriginRefused


class Guard:
    """Lets requests in, or says why not."""

    def __init__(self, *, bound_to: str, allowed_hosts: Iterable[str]) -> None:
        self._origins = Origins(bound_to=bound_to, allowed_hosts=allowed_hosts)

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises OriginRefused."""
        host = self._origins.foreign_host(headers)
        if host is not None:
            raise OriginRefused(f"the host {host.lower()!r} is not one of this server's names; see --allowed-hosts")
        origin = self._origins.foreign_origin(headers)
        if origin:
            raise OriginRefused(f"pages of {origin.lower()!r} may not use this server")
