"""How `client_kwargs`, which llama_deploy hands to httpx, become settings of wakeq's client."""

from collections.abc import Callable, Mapping
from typing import Any

import httpx

_OF_TRANSPORT = ("cert", "proxy", "verify")
_ALLOWED = ("headers", "timeout", *_OF_TRANSPORT)
_BEARER = "bearer "


def client_options(url: str, client_kwargs: Mapping[str, Any], token: str | None) -> Callable[[], dict[str, Any]]:
    """Makes the arguments of a wakeq client, anew for each. Raises ValueError naming what can't be obeyed."""
    for name in client_kwargs:
        if name not in _ALLOWED:
            raise ValueError(
                f"client_kwargs: {name} has no meaning for wakeq; allowed are {', '.join(sorted(_ALLOWED))}"
            )
    common: dict[str, Any] = {"token": token or _token(client_kwargs.get("headers", {}))}
    timeout = client_kwargs.get("timeout")
    if timeout is not None:
        common["timeout"] = _seconds(timeout)
    of_transport = {name: client_kwargs[name] for name in _OF_TRANSPORT if name in client_kwargs}
    if not of_transport:
        return lambda: common
    of_transport.setdefault("verify", url.startswith("https:"))
    # Streams hold a connection each, and the client sets no limits of a transport that it is given.
    limits = httpx.Limits(max_connections=None)
    return lambda: common | {"transport": httpx.AsyncHTTPTransport(limits=limits, **of_transport)}


def _token(headers: Mapping[str, str]) -> str | None:
    token = None
    for name, value in headers.items():
        if name.lower() != "authorization" or not value.lower().startswith(_BEARER):
            raise ValueError(f"client_kwargs: headers has {name}; allowed is authorization, as Bearer TOKEN")
        token = value[len(_BEARER) :].strip()
    return token


def _seconds(timeout: Any) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise ValueError("client_kwargs: timeout must be a number of seconds above 0")
    return float(timeout)
