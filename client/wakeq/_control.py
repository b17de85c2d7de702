"""The synchronous client of a control plane: the asynchronous one, on an event loop in a thread of its own."""

from collections.abc import Iterator, Mapping
from typing import Any

from wakeq._async_control import SERVICE_WAIT_S, AsyncControlPlane
from wakeq._connection import Transport
from wakeq._control_model import ServiceInfo, SessionInfo, SessionState, TaskInfo
from wakeq._portal import OnPortal
from wakeq._task_events import SyncTaskEvents, TaskEvents


class ControlPlane(OnPortal):
    """A connection to one control plane for programs without an event loop; any number of threads may use it.

    Use it as a context manager, or `close` it. Its thread starts with the first call. What its methods do is described
    at those of `AsyncControlPlane`.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        token: str | None = None,
        timeout: float = 10.0,
        retry_s: float = 60.0,
        transport: Transport = None,
    ) -> None:
        """As `AsyncControlPlane`."""
        self._control = AsyncControlPlane(base_url, token=token, timeout=timeout, retry_s=retry_s, transport=transport)
        super().__init__(self._control)

    def services(self) -> list[ServiceInfo]:
        """See `AsyncControlPlane.services`."""
        return self._call(self._control.services)

    def service(self, name: str) -> ServiceInfo:
        """See `AsyncControlPlane.service`."""
        return self._call(self._control.service, name)

    def create_session(self) -> str:
        """See `AsyncControlPlane.create_session`."""
        return self._call(self._control.create_session)

    def sessions(self) -> Iterator[SessionInfo]:
        """See `AsyncControlPlane.sessions`."""
        after: str | None = ""
        while after is not None:
            page, after = self._call(self._control._sessions_from, after)
            yield from page

    def session(self, session_id: str) -> SessionInfo:
        """See `AsyncControlPlane.session`."""
        return self._call(self._control.session, session_id)

    def delete_session(self, session_id: str) -> None:
        """See `AsyncControlPlane.delete_session`."""
        self._call(self._control.delete_session, session_id)

    def session_state(self, session_id: str) -> SessionState:
        """See `AsyncControlPlane.session_state`."""
        return self._call(self._control.session_state, session_id)

    def update_session_state(self, session_id: str, values: Mapping[str, Any], *, version: int | None = None) -> int:
        """See `AsyncControlPlane.update_session_state`."""
        return self._call(self._control.update_session_state, session_id, values, version=version)

    def replace_session_state(self, session_id: str, values: Mapping[str, Any], *, version: int | None = None) -> int:
        """See `AsyncControlPlane.replace_session_state`."""
        return self._call(self._control.replace_session_state, session_id, values, version=version)

    def create_task(
        self,
        session_id: str,
        service: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        task_id: str | None = None,
        timeout_s: float | None = None,
        service_wait_s: float = SERVICE_WAIT_S,
    ) -> str:
        """See `AsyncControlPlane.create_task`."""
        return self._call(
            self._control.create_task,
            session_id,
            service,
            arguments,
            task_id=task_id,
            timeout_s=timeout_s,
            service_wait_s=service_wait_s,
        )

    def tasks(self, session_id: str) -> list[TaskInfo]:
        """See `AsyncControlPlane.tasks`."""
        return self._call(self._control.tasks, session_id)

    def task(self, session_id: str, task_id: str) -> TaskInfo:
        """See `AsyncControlPlane.task`."""
        return self._call(self._control.task, session_id, task_id)

    def wait(self, session_id: str, task_id: str, *, wait_s: float | None = None) -> TaskInfo:
        """See `AsyncControlPlane.wait`."""
        return self._call(self._control.wait, session_id, task_id, wait_s=wait_s)

    def events(self, session_id: str, task_id: str, *, after: int | None = None) -> SyncTaskEvents:
        """See `AsyncControlPlane.events`."""

        async def made() -> TaskEvents:
            return self._control.events(session_id, task_id, after=after)

        return SyncTaskEvents(self, self._call(made))

    def send_event(self, session_id: str, task_id: str, event: Any) -> TaskInfo:
        """See `AsyncControlPlane.send_event`."""
        return self._call(self._control.send_event, session_id, task_id, event)

    def result(self, session_id: str, task_id: str) -> str:
        """See `AsyncControlPlane.result`."""
        return self._call(self._control.result, session_id, task_id)

    def run(
        self,
        service: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        session_id: str | None = None,
        task_id: str | None = None,
        timeout_s: float | None = None,
        service_wait_s: float = SERVICE_WAIT_S,
    ) -> str:
        """See `AsyncControlPlane.run`."""
        return self._call(
            self._control.run,
            service,
            arguments,
            session_id=session_id,
            task_id=task_id,
            timeout_s=timeout_s,
            service_wait_s=service_wait_s,
        )

    def cancel(self, session_id: str, task_id: str) -> TaskInfo:
        """See `AsyncControlPlane.cancel`."""
        return self._call(self._control.cancel, session_id, task_id)
