"""Who may talk to this server at all.

A web page anywhere can make a visitor's browser send requests to 127.0.0.1, and with a name of its own that resolves
there (DNS rebinding) even read the answers. So a foreign `Origin` is refused, and while bound to loopback so is a
`Host` that is no loopback name.
"""

from collections.abc import Iterable, Mapping

from wakeq._serving.hosts import host_name, is_loopback
from wakeq_control.errors import OriginRefused


class Guard:
    """Lets requests in, or says why not."""

    def __init__(self, *, bound_to: str, allowed_hosts: Iterable[str]) -> None:
        self._any_host = not is_loopback(bound_to)
        self._allowed = {host.lower() for host in allowed_hosts}

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises OriginRefused."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host_name(host)
        if name and not (self._any_host or is_loopback(name) or name in self._allowed):
            raise OriginRefused(f"the host {host!r} is not one of this server's names; see --allowed-hosts")
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        if origin and origin not in (f"http://{host}", f"https://{host}"):
            raise OriginRefused(f"pages of {origin!r} may not use this server")
