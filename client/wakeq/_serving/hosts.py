"""Names of hosts, in headers and in settings."""

import ipaddress
from functools import lru_cache

ANYWHERE = ("0.0.0.0", "::")  # noqa: S104  addresses to listen on, which nobody can be reached at


def host_name(header: str) -> str:
    """The name in a Host header, without its port."""
    host = header.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


@lru_cache(maxsize=1024)
def is_loopback(name: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
