"""Where messages may be pushed to: by address, by name, at every connection."""

import socket
from collections.abc import Callable
from typing import Any

import anyio
import httpcore
import pytest

from tests.support.clock import virtual_trio
from wakeq_server.errors import Forbidden
from wakeq_server.push.targets import Allowed, CheckedNetwork
from wakeq_server.settings import PUSH_CONNECT_S, Settings

pytestmark = pytest.mark.anyio
LOOPBACK = Settings.model_fields["push_allow"].default


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


Resolve = Callable[..., None]


@pytest.fixture
def resolves(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Say what names stand for; each further answer of one name is another lookup's."""

    def resolves(**names: list[list[str]]) -> None:
        async def getaddrinfo(host: str, port: int | None, **_: Any) -> list[tuple[Any, ...]]:
            answers = names.get(host.replace(".", "_"))
            if answers is None:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            addresses = answers.pop(0) if len(answers) > 1 else answers[0]
            return [(0, 0, 0, "", (address, port)) for address in addresses]

        monkeypatch.setattr("wakeq_server.push.targets.anyio.getaddrinfo", getaddrinfo)

    return resolves


@pytest.mark.parametrize(
    ("rules", "host", "connects_to"),
    [
        (LOOPBACK, "127.0.0.1", ["127.0.0.1"]),
        (LOOPBACK, "127.255.0.9", ["127.255.0.9"]),
        (LOOPBACK, "::1", ["::1"]),
        (LOOPBACK, "::ffff:127.0.0.1", ["127.0.0.1"]),
        (LOOPBACK, "0:0:0:0:0:ffff:7f00:1", ["127.0.0.1"]),
        (["::ffff:10.0.0.0/104"], "10.1.2.3", ["10.1.2.3"]),
        (["10.0.0.0/8"], "::ffff:10.1.2.3", ["10.1.2.3"]),
        (["10.0.0.7"], "10.0.0.7", ["10.0.0.7"]),
        (["2001:db8::/32"], "2001:db8:1::2", ["2001:db8:1::2"]),
    ],
)
async def test_an_allowed_address(rules: list[str], host: str, connects_to: list[str]) -> None:
    assert await Allowed(rules).resolve(host) == connects_to


@pytest.mark.parametrize(
    ("rules", "host"),
    [
        (LOOPBACK, "10.0.0.1"),
        (LOOPBACK, "169.254.169.254"),
        (LOOPBACK, "0.0.0.0"),
        (LOOPBACK, "::"),
        (LOOPBACK, "::2"),
        (LOOPBACK, "::ffff:10.0.0.1"),
        (LOOPBACK, "fe80::1"),
        (["10.0.0.7"], "10.0.0.8"),
        (["::/0"], "10.0.0.1"),
        (["::/0"], "::ffff:10.0.0.1"),
        (["0.0.0.0/0"], "::1"),
        ([], "127.0.0.1"),
    ],
)
async def test_a_forbidden_address(rules: list[str], host: str) -> None:
    with pytest.raises(Forbidden, match="--push-allow") as refusal:
        await Allowed(rules).check(f"http://[{host}]/" if ":" in host else f"http://{host}/")
    assert all(rule in refusal.value.detail for rule in rules)


async def test_a_name_is_what_it_resolves_to(resolves: Resolve) -> None:
    resolves(mine=[["127.0.0.2", "::1", "127.0.0.2"]], mixed=[["10.0.0.1", "127.0.0.1"]], mapped=[["::ffff:10.0.0.1"]])
    allowed = Allowed(LOOPBACK)
    assert await allowed.resolve("mine") == ["127.0.0.2", "::1"]
    assert await allowed.resolve("mixed") == ["127.0.0.1"], "an address that is not allowed would be connected to"
    with pytest.raises(Forbidden, match=r"mapped \(10\.0\.0\.1\) is not allowed"):
        await allowed.resolve("mapped")


async def test_a_name_that_is_allowed_may_be_anywhere(resolves: Resolve) -> None:
    resolves(worker=[["172.18.0.5"]], WORKER_=[["172.18.0.5"]], worker2=[["172.18.0.5"]], a_worker=[["172.18.0.5"]])
    allowed = Allowed(["Worker", "127.0.0.0/8"])
    assert await allowed.resolve("worker") == ["172.18.0.5"]
    assert await allowed.resolve("WORKER.") == ["172.18.0.5"]
    for other in ("worker2", "a.worker"):
        with pytest.raises(Forbidden):
            await allowed.resolve(other)


async def test_a_name_that_does_not_resolve_is_refused(resolves: Resolve) -> None:
    resolves()
    with pytest.raises(Forbidden, match="can't be resolved"):
        await Allowed(LOOPBACK).check("http://nowhere.example/")


@pytest.mark.parametrize("anyio_backend", [virtual_trio()])
async def test_a_name_that_takes_too_long_to_resolve_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any, **__: Any) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr("wakeq_server.push.targets.anyio.getaddrinfo", never)
    began = anyio.current_time()
    with pytest.raises(Forbidden, match="can't be resolved"):
        await Allowed(LOOPBACK).check("http://slow.example/")
    assert anyio.current_time() - began == PUSH_CONNECT_S
    with pytest.raises(httpcore.ConnectTimeout):
        await CheckedNetwork(Allowed(LOOPBACK)).connect_tcp("slow.example", 80, timeout=3.0)
    assert anyio.current_time() - began == PUSH_CONNECT_S + 3.0


# Connections


async def connected_to(rules: list[str], host: str, port: int) -> Any:
    stream = await CheckedNetwork(Allowed(rules)).connect_tcp(host, port, timeout=5.0)
    try:
        return stream.get_extra_info("server_addr")
    finally:
        await stream.aclose()


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to(resolves: Resolve) -> None:
    with socket.create_server(("127.0.0.3", 0)) as listener:
        port = listener.getsockname()[1]
        # A second lookup would lead to where nobody listens.
        resolves(mine=[["10.255.255.1", "127.0.0.3"], ["127.0.0.4"]])
        assert (await connected_to(LOOPBACK, "mine", port))[0] == "127.0.0.3"


async def test_a_name_that_has_moved_since_it_was_put_is_refused(resolves: Resolve) -> None:
    with socket.create_server(("127.0.0.3", 0)) as listener:
        port = listener.getsockname()[1]
        resolves(rebound=[["127.0.0.3"], ["127.0.0.3"], ["10.0.0.1"]])
        await Allowed(["127.0.0.0/8"]).check(f"http://rebound:{port}/")
        assert (await connected_to(LOOPBACK, "rebound", port))[0] == "127.0.0.3"
        with pytest.raises(httpcore.ConnectError, match=r"rebound \(10\.0\.0\.1\) is not allowed"):
            await connected_to(LOOPBACK, "rebound", port)


async def test_the_next_address_is_tried_where_one_refuses(resolves: Resolve) -> None:
    with socket.create_server(("127.0.0.3", 0)) as listener:
        port = listener.getsockname()[1]
        resolves(two=[["127.0.0.4", "127.0.0.3"]], none=[["127.0.0.4", "127.0.0.5"]])
        assert (await connected_to(LOOPBACK, "two", port))[0] == "127.0.0.3"
        with pytest.raises(httpcore.ConnectError):
            await connected_to(LOOPBACK, "none", port)


async def test_a_name_that_no_longer_resolves_is_a_failed_connection(resolves: Resolve) -> None:
    resolves()
    with pytest.raises(httpcore.ConnectError, match="nowhere can't be resolved: Name or service not known"):
        await connected_to(LOOPBACK, "nowhere", 80)
