"""Room on the disk that is kept for what makes room: settles, when publishes are refused."""

import contextlib
import os
from pathlib import Path

RESERVE_BYTES = 16 * 1024 * 1024


class Reserve:
    """A file that occupies its size and is deleted when the disk is full."""

    def __init__(self, path: Path, size: int = RESERVE_BYTES) -> None:
        self.size = size
        self.held = False
        self._path = path

    def hold(self) -> bool:
        """Occupy the room, if there is twice as much: what is kept for an emergency must not be what makes it."""
        if not self.held:
            try:
                self.held = _free(self._path.parent) >= 2 * self.size and self._occupy()
            except OSError:
                self.release()
        return self.held

    def release(self) -> None:
        """Let go of the room."""
        self.held = False
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _occupy(self) -> bool:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file, 0, self.size)
            else:
                os.write(file, bytes(self.size))
        finally:
            os.close(file)
        return True


def _free(directory: Path) -> int:
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize
