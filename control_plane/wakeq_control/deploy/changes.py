"""Changes of files, as the kernel tells of them."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.from_thread
import anyio.to_thread
from watchdog.events import (
    EVENT_TYPE_CREATED,
    EVENT_TYPE_DELETED,
    EVENT_TYPE_MODIFIED,
    EVENT_TYPE_MOVED,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

QUIET_S = 0.2
"""An editor writes a file in several steps, and a checkout several files."""
_CHANGES = (EVENT_TYPE_CREATED, EVENT_TYPE_DELETED, EVENT_TYPE_MODIFIED, EVENT_TYPE_MOVED)


class Changes(FileSystemEventHandler):
    """Python files below folders, and single files; what else a service writes beside its code is no change of it."""

    def __init__(self, portal: anyio.from_thread.BlockingPortal) -> None:
        self._portal = portal
        self._files: frozenset[str] = frozenset()
        self._event = anyio.Event()
        self._observer = Observer()
        self._observer.start()

    def close(self) -> None:
        """Watch nothing any more."""
        self._observer.stop()
        self._observer.join()

    def watch(self, paths: Iterable[Path]) -> None:
        """Watch these instead of those before."""
        paths = [path.resolve() for path in paths]
        self._files = frozenset(str(path) for path in paths if not path.is_dir())
        folders = {path for path in paths if path.is_dir()}
        self._observer.unschedule_all()
        for folder in folders:
            self._observer.schedule(self, str(folder), recursive=True)
        for folder in {Path(file).parent for file in self._files} - folders:
            self._observer.schedule(self, str(folder), recursive=False)

    def dispatch(self, event: FileSystemEvent) -> None:
        """Called in a thread of the observer's."""
        names = {str(event.src_path), str(event.dest_path)}
        is_ours = any(name.endswith(".py") or name in self._files for name in names)
        if event.event_type in _CHANGES and not event.is_directory and is_ours:
            self._portal.start_task_soon(self._event.set)

    async def next(self) -> None:
        """Return when something has changed, and nothing more has for a moment."""
        await self._event.wait()
        while self._event.is_set():
            self._event = anyio.Event()
            with anyio.move_on_after(QUIET_S):
                await self._event.wait()


@asynccontextmanager
async def open_changes() -> AsyncIterator[Changes]:
    """Nothing is watched yet. Raises OSError where the kernel refuses."""
    async with anyio.from_thread.BlockingPortal() as portal:
        changes = Changes(portal)
        try:
            yield changes
        finally:
            with anyio.CancelScope(shield=True):
                # In a thread: the observer's may be waiting for this one.
                await anyio.to_thread.run_sync(changes.close)
