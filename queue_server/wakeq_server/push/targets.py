"""Where messages may be pushed to.

A push makes the server send requests on behalf of whoever put it, so it must not reach what that client can't reach
itself (server-side request forgery). A name says nothing: it may resolve to one address when it is put and to another
when it is connected to (DNS rebinding). So names are resolved here, their addresses checked, and connections made to
the very addresses that were checked. The request keeps the host of its URL: in `Host`, and in what a certificate must
be for.
"""

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpcore

from wakeq_server.errors import Forbidden
from wakeq_server.settings import PUSH_CONNECT_S

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


class Allowed:
    """The rule of `--push-allow`: networks, addresses, and names of hosts, which may resolve to any address."""

    def __init__(self, rules: Sequence[str]) -> None:
        """``rules`` are as `Settings.push_allow` has checked them."""
        self._networks: list[Network] = []
        self._names: set[str] = set()
        for rule in rules:
            try:
                self._networks.append(_plain_network(ipaddress.ip_network(rule)))
            except ValueError:
                self._names.add(_plain_name(rule))
        self._said = ", ".join(rules) or "nothing"

    async def check(self, url: str) -> None:
        """Whether messages may be pushed there, as its host resolves now. Raises Forbidden."""
        host = urlsplit(url).hostname or ""
        try:
            with anyio.fail_after(PUSH_CONNECT_S):
                await self.resolve(host)
        except OSError:
            # TimeoutError is one, too.
            raise self._refusal(f"the host {host} can't be resolved, so nobody knows whether it is allowed") from None

    async def resolve(self, host: str) -> list[str]:
        """The addresses of a host that may be connected to. Raises Forbidden where none may, and OSError."""
        addresses = await _addresses(host)
        if _plain_name(host) in self._names:
            return [str(address) for address in addresses]
        allowed = [str(address) for address in addresses if self._allows(address)]
        if not allowed:
            shown = ", ".join(map(str, addresses[:3]))
            raise self._refusal(f"{host} is not allowed" if shown == host else f"{host} ({shown}) is not allowed")
        return allowed

    def _allows(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def _refusal(self, problem: str) -> Forbidden:
        return Forbidden(f"url: {problem}; this server pushes to {self._said} (--push-allow)")


async def _addresses(host: str) -> list[Address]:
    """What a host's name stands for, each once; an address is its own."""
    try:
        return [_plain_address(ipaddress.ip_address(host))]
    except ValueError:
        found = await anyio.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(_plain_address(ipaddress.ip_address(sockaddr[0])) for *_, sockaddr in found))


def _plain_address(address: Address) -> Address:
    """An IPv4 address that is written as an IPv6 one is that IPv4 address: connecting to either reaches it."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _plain_network(network: Network) -> Network:
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        return ipaddress.IPv4Network((int(network.network_address) & 0xFFFF_FFFF, network.prefixlen - 96))
    return network


def _plain_name(name: str) -> str:
    return name.lower().rstrip(".")


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to allowed addresses only."""

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check, connect. Raises httpcore's ConnectError and ConnectTimeout, as it is asked to."""
        try:
            with anyio.fail_after(timeout):
                addresses = await self._allowed.resolve(host)
                return await self._first(addresses, port, timeout, local_address, socket_options)
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"no connection within {timeout} s") from None
        except Forbidden as error:
            raise httpcore.ConnectError(error.detail) from None
        except OSError as error:
            raise httpcore.ConnectError(f"{host} can't be resolved: {error.strerror or error}") from None

    async def _first(
        self,
        addresses: Sequence[str],
        port: int,
        timeout: float | None,
        local_address: str | None,
        socket_options: Iterable[Any] | None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first address that takes one; each has its share of the time."""
        share = None if timeout is None else timeout / len(addresses)
        for address in addresses[:-1]:
            try:
                return await self._network.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._network.connect_tcp(addresses[-1], port, share, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        """httpcore's own retries, which are not asked for, would wait here."""
        await anyio.sleep(seconds)
