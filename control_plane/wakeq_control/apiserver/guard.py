"""Who may talk to the API server, and who may deploy.

A deployment runs code. Whoever is on this machine can run some anyway; from elsewhere a token is asked for.
"""

from collections.abc import Iterable, Mapping

from wakeq._serving.hosts import is_loopback
from wakeq._serving.tokens import is_shown
from wakeq_control.apiserver.errors import DeployForbidden
from wakeq_control.http import guard

# What a proxy says of whom it speaks for. Of a proxy on this machine it is all that shows that somebody else asks.
_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via")


class Guard(guard.Guard):
    """Lets requests in, or says why not."""

    def __init__(self, *, bound_to: str, allowed_hosts: Iterable[str], token: str | None) -> None:
        super().__init__(bound_to=bound_to, allowed_hosts=allowed_hosts)
        self._deploy_token = token

    def check_deploy(self, headers: Mapping[bytes, bytes], client: str | None) -> None:
        """Raises DeployForbidden. ``client`` is the address that the request comes from."""
        if client is not None and is_loopback(client) and not any(name in headers for name in _FORWARDED):
            return
        if self._deploy_token is None:
            raise DeployForbidden(
                "deployments run code, so only this machine may deploy here; "
                "to deploy from another host, start the API server with WAKEQ_APISERVER_TOKEN"
            )
        if not is_shown(self._deploy_token, headers):
            raise DeployForbidden(
                "deployments run code, so a deploy from another host must show this server's token: "
                "as a bearer token, or as in http://:TOKEN@HOST:PORT"
            )
