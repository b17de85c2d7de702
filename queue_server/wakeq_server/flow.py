"""How far ahead a connection is read."""

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
