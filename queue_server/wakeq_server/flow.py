"""How far ahead a connection is read."""

import asyncio
from typing import TYPE_CHECKING

from uvicorn.protocols.http.flow_control import FlowControl

if TYPE_CHECKING:
    from wakeq_server.connection import Connection


class Flow(FlowControl):
    """uvicorn's, but it reads on behind a request that is being answered, or a parked one wouldn't see a hang-up."""

    def __init__(self, connection: "Connection") -> None:
        # uvicorn's makes an event at once, which takes 0.7 KB, and that few connections ever need.
        self._transport = connection.transport
        self.read_paused = self.write_paused = False
        self._connection = connection

    async def drain(self) -> None:
        """Return when more may be written."""
        if self.write_paused:
            await super().drain()

    def pause_writing(self) -> None:
        """uvicorn's; from now on there is something to wait for."""
        if not self.write_paused:
            self._is_writable_event = asyncio.Event()
        super().pause_writing()

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
