"""A head that has been read before is looked up; whoever asks must not notice."""

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from wakeq._serving.sending import Turn
from wakeq_server.connection import Connection
from wakeq_server.heads import KEPT_MAX, KEPT_MAX_BYTES, Head, Heads
from wakeq_server.idle import Idle
from wakeq_server.settings import Settings

GET = b"GET /a%20b?c=d HTTP/1.1\r\nHost: a\r\nX-Y: z\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
CLOSE = b"GET /close HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
OLD = b"GET /old HTTP/1.0\r\n\r\n"
CHUNKS = b"POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
EXPECT = b"POST /expect HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc"
UPGRADE = b"GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
WRONG = b"GET /wrong HTTP/1.1\r\n\r\n"
LONG = b"GET /long HTTP/1.1\r\nHost: a\r\nX: " + b"x" * KEPT_MAX_BYTES + b"\r\n\r\n"
BLANK = b"\r\n\r\n"
TRACED = b"GET /traced HTTP/1.1\r\nHost: a\r\nTraceparent: k\r\n\r\n"

NEVER_KEPT = [
    TRACED,
    CLOSE,
    OLD,
    CHUNKS,
    EXPECT,
    UPGRADE,
    WRONG,
    LONG,
    GET + GET,
    GET + POST + b"abc",
    POST + b"abcd",
    BLANK + GET,
]


def keyed(line: bytes, body: bytes = b"abc") -> bytes:
    """A request with an idempotency key between its other headers."""
    return POST.replace(b"Content-Length", line + b"\r\nContent-Length") + body


KEY_LINES = [
    b"idempotency-key: %s",
    b"Idempotency-Key: %s",
    b"idempotency-key:%s",
    b"idempotency-key:  %s",
    b"idempotency-key: %s ",
    b"idempotency-key: %s\r\nidempotency-key: other",
    b"idempotency-key: other\r\nidempotency-key: %s",
    b"idempotency-key: %s\r\n folded",
    b"idempotency-key: %s\nX: y",
    b"x-idempotency-key: %s",
]
KEYS = [b"k", b"another", b"", b'"two words"', b"x" * 255, b"x" * 256, b"\xc3\xa9", b"a\tb", b"a\x00b", b"a\rb"]


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def write_eof(self) -> None: ...

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Forgetful(Heads):
    """Every head is a new one."""

    def keep(self, data: bytes, scope: Mapping[str, Any]) -> None: ...


class Counting(OrderedDict[bytes, Head]):
    """How often a head was found."""

    found = 0

    def get(self, key: bytes, default: Any = None) -> Any:
        head = super().get(key, default)
        self.found += head is not None
        return head


APPS: dict[Any, Any] = {}


async def app(scope: Any, receive: Any, send: Any) -> None:
    await APPS[scope["state"]["connection"]](scope, receive, send)


CONFIG = uvicorn.Config(app, http=Connection, ws="none", lifespan="off", log_config=None, proxy_headers=False)
CONFIG.load()


class Connected:
    """A connection to an application that notes what it is asked."""

    def __init__(self, heads: Heads) -> None:
        loop = asyncio.get_running_loop()
        self.asked: list[Any] = []
        shared: Any = {"settings": Settings(), "turn": Turn(loop.call_soon), "idle": Idle(loop, 75.0), "heads": heads}
        self._connection = Connection(CONFIG, ServerState(), {}, _loop=loop, **shared)
        self.transport = Transport()
        self._connection.connection_made(self.transport)
        APPS[self._connection] = self._answer

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if event["type"] == "http.disconnect":
                return
            if not event.get("more_body"):
                break
        assert scope["state"]["connection"] is self._connection
        self.asked.append(({name: value for name, value in scope.items() if name != "state"}, body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def read(self, data: bytes) -> None:
        if not self.transport.closed:
            self._connection.data_received(data)
        await turns()

    async def lose(self) -> None:
        self._connection.connection_lost(None)
        await turns()
        del APPS[self._connection]


async def turns() -> None:
    """Everybody does what can be done; who waits for the rest of a body goes on waiting."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio


async def told(heads: Heads, reads: list[bytes]) -> tuple[list[Any], bytes, bool]:
    connected = Connected(heads)
    for data in reads:
        await connected.read(data)
    await connected.lose()
    return connected.asked, connected.transport.written, connected.transport.closed


async def warm(*requests: bytes) -> Heads:
    heads = Heads()
    for request in requests:
        await told(heads, [request])
    return heads


@pytest.mark.parametrize("first", [GET, POST + b"abc", POST, CLOSE, CHUNKS, EXPECT, UPGRADE, BLANK + GET, GET + GET])
@pytest.mark.parametrize("second", [GET, POST + b"x\0y", POST + b"abcd", CLOSE, OLD, EXPECT, WRONG, POST, GET[:9]])
async def test_what_is_read_is_the_same(first: bytes, second: bytes) -> None:
    reads = [first, second, POST + b"xyz", GET]
    heads = await warm(GET, POST + b"abc", *NEVER_KEPT)
    assert await told(heads, reads) == await told(Forgetful(), reads)


@pytest.mark.parametrize("request_", [GET, POST + b"abc"])
async def test_the_second_is_found(request_: bytes) -> None:
    heads = Heads()
    heads.get = (counting := Counting()).get
    heads._known = counting
    await told(heads, [request_, request_])
    await told(heads, [request_])
    assert counting.found == 2


@pytest.mark.parametrize("request_", NEVER_KEPT)
async def test_what_is_more_than_a_head_and_a_length_is_not_kept(request_: bytes) -> None:
    assert not (await warm(request_))._known


async def test_what_came_in_parts_is_not_kept() -> None:
    heads = Heads()
    await told(heads, [GET[:9], GET[9:]])
    assert not heads._known


async def test_nobody_is_told_to_continue_who_did_not_ask() -> None:
    heads = await warm(POST + b"abc")
    _, written, _ = await told(heads, [EXPECT, POST + b"abc"])
    assert written.count(b"100 Continue") == 1


async def test_what_is_behind_a_closing_request_is_not_answered() -> None:
    heads = await warm(GET)
    connected = Connected(heads)
    connected._connection.data_received(CLOSE)
    connected._connection.data_received(GET)
    await turns()
    assert [scope["path"] for scope, _ in connected.asked] == ["/close"]
    await connected.lose()


async def test_known_requests_wait_their_turn() -> None:
    heads = await warm(GET, POST + b"abc")
    connected = Connected(heads)
    for body in (b"abc", b"def", b"ghi"):
        connected._connection.data_received(POST + body)
    await connected.read(GET)
    assert [body for _, body in connected.asked] == [b"abc", b"def", b"ghi", b""]
    assert connected.transport.written.count(b"HTTP/1.1 200") == 4
    await connected.lose()


async def test_the_oldest_makes_room() -> None:
    heads = Heads()
    requests = [GET.replace(b"z", b"%d" % number) for number in range(KEPT_MAX + 1)]
    for request in requests:
        await told(heads, [request])
    assert list(heads._known) == requests[1:]


@pytest.mark.parametrize("cuts", list(itertools.combinations(range(1, len(POST) + 3, 7), 2)))
async def test_parts_mean_what_the_whole_means(cuts: tuple[int, int]) -> None:
    heads = await warm(POST + b"abc")
    whole = POST + b"abc"
    first, second = cuts
    reads = [whole[:first], whole[first:second], whole[second:]]
    assert (await told(heads, reads))[0] == (await told(heads, [whole]))[0]


@pytest.mark.parametrize("line", KEY_LINES)
@pytest.mark.parametrize("key", KEYS)
async def test_a_request_with_another_key_is_read_as_it_is(line: bytes, key: bytes) -> None:
    heads = await warm(GET, *[keyed(each % b"first") for each in KEY_LINES])
    reads = [keyed(line % key, b"x\0y"), GET, keyed(line % b"k"), keyed(line % key, b"abcd")]
    assert await told(heads, reads) == await told(Forgetful(), reads)


async def test_a_head_is_found_whatever_its_key() -> None:
    heads = Heads()
    heads._keyed = counting = Counting()
    await told(heads, [keyed(b"idempotency-key: %d" % number) for number in range(5)])
    assert (counting.found, len(counting), len(heads._known)) == (4, 1, 0)


async def test_an_empty_key_is_not_taken_for_any() -> None:
    heads = await warm(keyed(b"idempotency-key: k"))
    assert heads.get(keyed(b"idempotency-key: ")) is None
    assert heads.get_keyed(keyed(b"idempotency-key: "), len(keyed(b"idempotency-key: ")) - 3) is None
