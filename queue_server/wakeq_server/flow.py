"""How a connection is read from and written to: not further ahead than it must be, and in as few pieces as can be."""

from typing import TYPE_CHECKING

from uvicorn.protocols.http.flow_control import FlowControl

if TYPE_CHECKING:
    from wakeq_server.connection import Connection


class Flow(FlowControl):
    """uvicorn's, but it reads on behind a request that is being answered, or a parked one wouldn't see a hang-up."""

    def __init__(self, connection: "Connection") -> None:
        super().__init__(connection.transport)
        self._connection = connection

    def pause_reading(self) -> None:
        """uvicorn's, once there is enough to do."""
        if self._connection.backed_up:
            super().pause_reading()

    def resume_reading(self) -> None:
        """uvicorn's, unless there is enough to do; and the connection hears of it."""
        connection = self._connection
        if self.read_paused and not (connection.pipeline and connection.backed_up):
            super().resume_reading()
            connection.reads_on()


class HeadFirst:
    """A transport that holds the head of an answer back until its body comes, so that both are one system call."""

    __slots__ = ("_connection", "_head", "_transport")

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._transport = connection.transport
        self._head = b""

    def write(self, data: bytes) -> None:
        """Write, or hold."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):
            self._head = data
            return
        self._transport.write(data)

    def is_closing(self) -> bool:
        """The transport's."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Write what is held, and close; what was refused is closed when all has been said."""
        self.flush()
        if self._connection.fault is None:
            self._transport.close()

    def flush(self) -> None:
        """Write what is held: the answer has no body."""
        if self._head:
            self.write(b"")
