"""uvicorn's connection, as this server needs it: it knows whether its client has what it was sent, and writes once.

What it adds is what `wakeq_server.http.wire.Connection` asks for.
"""

import asyncio
import socket
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn._types import ASGIVersions
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from wakeq._serving.sending import Sending, Turn
from wakeq_server.arrival import Arrival
from wakeq_server.errors import BadRequest, HeadTooLarge, QueueError, RequestTimeout
from wakeq_server.exchange import Exchange
from wakeq_server.flow import Flow
from wakeq_server.framing import body_header, check_head, origin_form
from wakeq_server.heads import END, Heads
from wakeq_server.http.wire import error_response
from wakeq_server.idle import Idle
from wakeq_server.settings import BLOCKED_S, HEAD_MAX_BYTES, LINGER_S, PIPELINED_MAX, TCP_USER_TIMEOUT_S, Settings
from wakeq_server.tcp import bear_with, is_open, peer_has_read, watch_peer

_CHUNK_BYTES = 20
"""What frames a chunk, at most: 16 digits and two line breaks."""
_ASGI: ASGIVersions = {"version": "3.0", "spec_version": "2.3"}


class Connection(HttpToolsProtocol):
    """One connection of the queue server."""

    cycle: Exchange
    """The request that came last; none at first, see `_latest`."""
    pipeline: list[Exchange]  # type: ignore[assignment]
    """Whole heads behind the request that is being answered, the next one last."""
    incoming = False
    """Whether a request has begun to come that isn't whole."""
    _had_read_whole = False
    _answering: Exchange | None = None
    _refusal: QueueError | None = None
    """Why nothing more is read as requests."""
    _faulty: Exchange | None = None
    """The request whose body that is about; None where it is about a head."""
    _arrival: Arrival | None = None
    _replaying = False
    _view: socket.socket | None = None

    def __init__(self, *arguments: Any, settings: Settings, turn: Turn, idle: Idle, heads: Heads, **more: Any) -> None:
        super().__init__(*arguments, **more)
        # An empty deque takes eleven times as much, and few connections have requests that wait behind another.
        self.pipeline = []
        self._turn = turn
        self._idle = idle
        self._heads = heads
        # 0 or None until something comes.
        self._reading = self._begun = self._useful = 0
        self._objection: QueueError | None = None
        self._head_timeout_s = settings.head_timeout
        self._body_timeout_s = settings.body_timeout

    @property
    def gone(self) -> bool:
        """Whether the client has closed the connection: the kernel knows before the loop does."""
        return self.transport.is_closing() or not is_open(self._socket())

    @property
    def read_whole(self) -> bool:
        """Whether it did so after reading every byte that was sent."""
        return self._had_read_whole if self.transport.is_closing() else self._has_read_whole()

    @property
    def kept_alive(self) -> bool:
        """Whether it stays open when the answer that is being given is finished, and nothing that has come ends it."""
        if self._answering is None or self._refusal is not None or self.pipeline:
            return False
        return self._answering.keep_alive

    @property
    def fault(self) -> QueueError | None:
        """What is wrong with how the body of the request that is being answered has come."""
        return self._refusal if self._faulty is not None and self._faulty is self._answering else None

    async def flushed(self) -> None:
        """Return when everything written has left for the kernel."""
        if not self.unsent:
            return
        self.transport.set_write_buffer_limits(high=0)
        try:
            await self.flow.drain()
        finally:
            # uvloop's raises on one that is closed.
            if not self.transport.is_closing():
                self.transport.set_write_buffer_limits()

    @property
    def unsent(self) -> int:
        """Bytes of answers that have not left for the kernel."""
        return self.transport.get_write_buffer_size()

    def pause_writing(self) -> None:
        """uvicorn's; a client that doesn't read has longer than one that can't be reached, but not for ever."""
        super().pause_writing()
        self._bear_with_client(BLOCKED_S)

    def resume_writing(self) -> None:
        """uvicorn's."""
        super().resume_writing()
        self._bear_with_client(TCP_USER_TIMEOUT_S)

    def _bear_with_client(self, timeout_s: float) -> None:
        if not self.transport.is_closing():
            bear_with(self._socket(), timeout_s)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """uvicorn's, and the client must say something; one on another machine is watched for being cut off."""
        super().connection_made(Sending(transport, self._turn))  # type: ignore[arg-type]
        self.flow = Flow(self)
        # uvicorn ends a connection that is idle after a request, but not one that never had any.
        self._idle.enter(self)
        if self.client is not None:
            watch_peer(transport.get_extra_info("socket"), self.client[0])

    # Requests

    def data_received(self, data: bytes) -> None:
        """uvicorn's, for which what is no request is an answer of its own at once, amid others perhaps."""
        if self._refusal is not None:
            # It has no beginning. It is read all the same: closing on it would be a reset.
            return
        if not self.incoming and self._take_known(data):
            return
        self._reading, self._begun = len(data), self.incoming
        in_parts = self.incoming
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            self._refuse(self._objection or self._misread(error))
            return
        if self.incoming:
            self._wait_for_rest(len(data))
        elif self._arrival is not None:
            self._stop_waiting()
        elif self._begun == 1 and not in_parts and self._read_on:
            self._heads.keep(data, self.scope)

    @property
    def _read_on(self) -> bool:
        """Whether another request may come after those that have come."""
        cycle = self._latest
        return cycle is None or cycle.keep_alive

    def _take_known(self, data: bytes) -> bool:
        """Take one whole request whose head has been read before, past the parser; False where this is none."""
        end = data.find(END) + len(END)
        head, key = self._heads.get(data[:end]), None
        if head is None:
            found = self._heads.get_keyed(data, end)
            if found is None:
                return False
            head, key = found
        if head.length != len(data) - end or not self._read_on:
            return False
        self._idle.leave(self)
        self.expect_100_continue = False
        self.scope = scope = head.scope.copy()  # type: ignore[assignment]
        scope["client"] = self.client
        scope["server"] = self.server
        scope["state"] = {"connection": self, "head": head}
        if key is not None:
            scope["headers"] = head.headers(key)
            scope["state"]["idempotency_key"] = key
        self._come(Exchange(self, keep_alive=True))
        if head.length:
            self.on_body(data[end:])
        self.cycle.end()
        return True

    def _parse(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        while True:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                rest = memoryview(rest)[upgrade.args[0] :]
                if self.incoming:
                    self._read_body_after_upgrade()

    def _misread(self, error: httptools.HttpParserError) -> BadRequest:
        why: BaseException | None = error.__context__
        if isinstance(error, httptools.HttpParserCallbackError) and not isinstance(why, httptools.HttpParserError):
            self.logger.error("a request could not be read", exc_info=why)
        return BadRequest(f"this is no HTTP/1.1 request: {why or error}")

    def _read_body_after_upgrade(self) -> None:
        """No other protocol is spoken here (RFC 9110, 7.8), but the parser takes the body for the beginning of one.

        So another parser is told of it, as the rest of a request whose head everybody here has seen already.
        """
        line = body_header(self.scope["headers"])
        assert line is not None
        self.parser = httptools.HttpRequestParser(self)
        self._replaying = True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + line + b"\r\n")
        self._replaying = False

    @property
    def _latest(self) -> Exchange | None:
        return self.cycle

    @property
    def _has_head(self) -> bool:
        """Whether the head of the request that is coming, or came last, is whole."""
        # uvicorn makes a scope when a request begins, and a cycle when its head is whole.
        cycle = self._latest
        return cycle is not None and cycle.scope is self.scope

    def on_message_begin(self) -> None:
        """A request begins; it can find its connection."""
        if self._replaying:
            return
        self._idle.leave(self)
        self.incoming = True
        self._begun += 1
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self.scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": "http",
            "root_path": "",
            "headers": self.headers,
            "state": {"connection": self},
        }  # type: ignore[typeddict-item]

    def on_headers_complete(self) -> None:
        """A head is whole, and can be read in one way only: its request is answered, or waits for those before it."""
        if self._replaying:
            return
        version = self.parser.get_http_version()
        try:
            if self._reading > HEAD_MAX_BYTES or self._arrival is not None:
                self._check_head_size()
            check_head(version, self.url, self.headers)
            self.url = origin_form(self.url, self.headers)
        except QueueError as objection:
            self._objection = objection
            raise
        self._describe(version)
        self._come(Exchange(self, keep_alive=version != "1.0" and self.parser.should_keep_alive()))
        # The scope has the head's. What comes behind a body is nothing that a head was checked for.
        self.headers = []

    def _come(self, exchange: Exchange) -> None:
        before = self._latest
        self.cycle = exchange
        if before is None or before.response_complete:
            self._begin(exchange)
        else:
            self.flow.pause_reading()
            self.pipeline.insert(0, exchange)

    def _describe(self, version: str) -> None:
        scope = self.scope
        scope["method"] = self.parser.get_method().decode("ascii")
        if version != "1.1":
            scope["http_version"] = version
        # A fragment is the client's own affair, and no part of what is asked for (RFC 9110, 4.2.5).
        raw_path, _, scope["query_string"] = self.url.partition(b"#")[0].partition(b"?")
        path = raw_path.decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = raw_path

    def on_body(self, body: bytes) -> None:
        """A part of a body has come, and is counted."""
        self._useful += len(body)
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.add(body)
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    def on_chunk_complete(self) -> None:
        """A chunk of a body is whole."""
        self._useful += _CHUNK_BYTES

    def on_message_complete(self) -> None:
        """A request is whole, and nothing is waited for any more."""
        if self.parser.should_upgrade() and body_header(self.scope["headers"]) is not None:
            # It is not: see `_read_body_after_upgrade`.
            return
        self.incoming = False
        if not self.cycle.response_complete:
            self.cycle.end()
        else:
            self._idle.enter(self)

    def _check_head_size(self) -> None:
        """Raises HeadTooLarge."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > HEAD_MAX_BYTES:
            raise HeadTooLarge(HEAD_MAX_BYTES)

    # Requests that come in parts

    def _wait_for_rest(self, size: int) -> None:
        arrival, has_head = self._arrival, self._has_head
        if arrival is not None and arrival.scope is self.scope and arrival.has_head == has_head:
            arrival.note(size, self.loop.time())
        else:
            self._begin_to_wait(size, has_head=has_head)
        # What is no body: a head, or what chunks have about them beside their data.
        if self._arrival is not None and self._arrival.size - self._useful > HEAD_MAX_BYTES:
            self._refuse(HeadTooLarge(HEAD_MAX_BYTES))

    def _begin_to_wait(self, size: int, *, has_head: bool) -> None:
        self._stop_waiting()
        self._useful = 0
        if not self.transport.is_closing():
            timeout_s = self._body_timeout_s if has_head else self._head_timeout_s
            # Where the reading has brought other requests too, how much of it is this one's can't be told.
            size = 0 if has_head or self._begun > 1 else size
            self._arrival = Arrival(self.scope, timeout_s, self.loop.time(), has_head=has_head, size=size)
            self._look_later()

    def _look_later(self) -> None:
        assert self._arrival is not None
        self._arrival.timer = self.loop.call_at(self._arrival.due, self._look)

    def _stop_waiting(self) -> None:
        if self._arrival is not None:
            self._arrival.timer.cancel()
            self._arrival = None

    def _look(self) -> None:
        """A request in parts may have had its time."""
        arrival, cycle, now = self._arrival, self.cycle, self.loop.time()
        assert arrival is not None
        if self.flow.read_paused or (arrival.has_head and (cycle.waiting_for_100_continue or self.pipeline)):
            # It is this server that doesn't read on, or that nobody waits for it yet.
            arrival.begin_anew(now)
        elif arrival.over(now):
            self._give_up(arrival)
            return
        elif arrival.has_head and cycle.response_complete:
            # What is still coming is for nobody. A client that is sending must get to read its answer, though.
            if arrival.is_for_nobody:
                self.transport.close()
            arrival.is_for_nobody = True
            arrival.begin_anew(now)
        if not self.transport.is_closing():
            self._look_later()

    def _give_up(self, arrival: Arrival) -> None:
        cycle = self._latest
        if arrival.has_head or cycle is None or cycle.response_complete:
            what = "body" if arrival.has_head else "head"
            self._refuse(RequestTimeout(f"the request's {what} came too slowly"))
        else:
            # Another request is being answered.
            self._stop_waiting()
            self.transport.close()

    def reads_on(self) -> None:
        """This server had stopped reading for a while, which is not to be held against the client."""
        if self._arrival is not None:
            self._arrival.begin_anew(self.loop.time())

    # Refusals

    def _refuse(self, refusal: QueueError) -> None:
        """Read no more requests, since where the next one begins can't be told. Those before it are answered first."""
        self._stop_waiting()
        self._refusal = refusal
        cycle = self._latest
        if cycle is None or cycle.response_complete:
            self._end()
        elif self.incoming and self._has_head:
            self._refuse_body(cycle)

    def _refuse_body(self, cycle: Exchange) -> None:
        """The application says it when it asks for more of the body, and if it never asks, it needn't."""
        self._faulty = cycle
        cycle.keep_alive = False
        cycle.message_event.set()
        if cycle.response_started:
            self.transport.close()

    def _end(self) -> None:
        """Everything before the refusal has been answered."""
        if self.transport.is_closing():
            return
        if not self.incoming or not self._has_head:
            self._write_refusal()
        self._linger()

    def _write_refusal(self) -> None:
        assert self._refusal is not None
        response = error_response(self._refusal, legacy=False)
        headers = [*self.server_state.default_headers, *response.headers]
        head = b"".join(b"%b: %b\r\n" % header for header in headers)
        length = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(response.body)
        self.transport.write(STATUS_LINE[response.status] + head + length + response.body)

    def _linger(self) -> None:
        """Close this side, and drop what still comes: closing on it is a reset, and takes the answer along."""
        self._idle.leave(self)
        self.flow.resume_reading()
        self.transport.write_eof()
        self.timeout_keep_alive_task = self.loop.call_later(LINGER_S, self.timeout_keep_alive_handler)

    # Answers

    def close_idle(self) -> None:
        """See `idle.Idle`."""
        if not self.transport.is_closing():
            self.transport.close()

    @property
    def backed_up(self) -> bool:
        """Whether requests that wait behind another are enough: each may take memory, and none is answered yet."""
        return len(self.pipeline) >= PIPELINED_MAX or len(self.cycle.body) > HIGH_WATER_LIMIT

    def abandon(self) -> None:
        """End an answer that has nobody to go to, or no end, by closing the connection."""
        if self._answering is not None:
            self._answering.disconnected = True
        # What a client doesn't take would keep the connection.
        if self.unsent:
            self.transport.abort()
        else:
            self.transport.close()

    def _begin(self, exchange: Exchange) -> None:
        self._answering = exchange
        exchange.task = self.loop.create_task(exchange.run_asgi(self.app))
        self.tasks.add(exchange.task)

    def on_response_complete(self) -> None:
        """A request has its answer: the next one's turn has come, or the connection is idle."""
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.pipeline:
                self._begin(self.pipeline.pop())
            elif not self.incoming:
                self._idle.enter(self)
        if self._refusal is not None and self.cycle.response_complete:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """uvicorn's, and the request that is being answered is told."""
        super().connection_lost(exc)
        self._idle.leave(self)
        # After a reset uvicorn lets it run, and it would hold the connection.
        self._unset_keepalive_if_required()
        self._stop_waiting()
        # uvicorn tells the request that came last. With pipelining that is not the one that is parked.
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()
        if self._view is not None:
            # The descriptor is the transport's to close.
            self._view.detach()
            self._view = None
        self.let_go()

    def let_go(self) -> None:
        """Leave no cycle of a connection that is lost, when no request of it is being answered any more.

        The collector of garbage hardly ever looks at what has become old, as most connections have.
        """
        answering = self._answering
        if self.parser is None and (answering is None or answering.task is None):
            self.pipeline.clear()
            self._answering = self._faulty = None
            # Once raised, they know the frames that they came through.
            self._refusal = self._objection = None
            self.cycle = self.scope = self.flow = None

    def eof_received(self) -> None:
        """The client has closed its side; ours is still open, and can be asked about it."""
        self._had_read_whole = self._has_read_whole()

    def _has_read_whole(self) -> bool:
        return not self.unsent and peer_has_read(self._socket())

    def _socket(self) -> socket.socket:
        # The transport's own makes a socket object anew for every question.
        if self._view is None:
            own: Any = self.transport.get_extra_info("socket")
            self._view = socket.socket(own.family, own.type, own.proto, fileno=own.fileno())
        return self._view
