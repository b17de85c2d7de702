"""HTTP/1.1 answers (RFC 9112), bytes in and answers out; no I/O. What bytes mean is decided by httptools.

A connection has one answer at a time, since one request is sent at a time. What comes beyond that makes it useless for
another.
"""

import httptools

_UPGRADED = 101
_FIRST_FINAL = 200
_EMPTY = (204, 304)


class NoAnswer(Exception):
    """What came is no HTTP answer, or ended too early."""


class Answers:
    """Those of one connection, one after the other."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._keeps = True
        self.begin()

    def begin(self) -> None:
        """A request is sent."""
        self.status = 0
        """0 until the head is whole."""
        self.headers: dict[bytes, bytes] = {}
        self.over = False
        self._parts: list[bytes] = []
        self._until_end = False

    @property
    def can_go_on(self) -> bool:
        """Whether the connection is good for another request."""
        return self.over and self._keeps

    def take(self) -> bytes:
        """What has come of the body, once."""
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def feed(self, data: bytes) -> None:
        """Bytes as they come, none at the end of the connection. Raises NoAnswer."""
        if not data:
            self._end()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise NoAnswer("the server changed to another protocol") from None
        except httptools.HttpParserError as error:
            self._keeps = False
            if not self.over:
                raise NoAnswer(f"what came is no HTTP answer: {error}") from None

    def _end(self) -> None:
        self._keeps = False
        if self._until_end:
            self.over = True
        if not self.over:
            raise NoAnswer("the server hung up before it had answered" if not self.status else "the answer is cut off")

    # What httptools calls

    def on_message_begin(self) -> None:
        """See httptools."""
        if self.over:
            self._keeps = False
        else:
            self.headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        if not self.over and not self.status:
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """See httptools."""
        status = self._parser.get_status_code()
        if self.over or status < _FIRST_FINAL:
            # An interim answer, which nobody has asked for (RFC 9110, 15.2).
            return
        self.status = status
        self._keeps = self._parser.should_keep_alive()
        self._until_end = not (
            b"content-length" in self.headers or b"transfer-encoding" in self.headers or status in _EMPTY
        )

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        if not self.over:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        if self.status:
            self.over = True
