"""Disks of a few megabytes, for tests that fill them, and files that nobody may write.

Where nothing can be mounted these tests are skipped, and say so. That a store survives a full disk is then still shown
by `test_failing_disk`, which needs no rights.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 1 << 20


@contextmanager
def small_disk(at: Path, mib: int) -> Iterator[Path]:
    """A disk in memory."""
    at.mkdir()
    with _mounted(at, "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs"):
        yield at


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """A file or a directory that may not be written, by root neither, who may write everywhere else."""
    if os.geteuid():
        mode = path.stat().st_mode
        path.chmod(mode & ~0o222)
        try:
            yield
        finally:
            path.chmod(mode)
    else:
        with _mounted(path, "--bind", str(path)):
            subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
            yield


@contextmanager
def _mounted(at: Path, *how: str) -> Iterator[None]:
    made = subprocess.run(["mount", *how, at], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"needs the right to mount: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)


def free(disk: Path) -> int:
    """Bytes that anybody may use."""
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


@contextmanager
def filled(disk: Path, *, leaving: int = 0) -> Iterator[None]:
    """Somebody else's file takes what is free, but for so many bytes."""
    other = disk / "other"
    descriptor = os.open(other, os.O_CREAT | os.O_WRONLY)
    try:
        os.posix_fallocate(descriptor, 0, free(disk) - leaving)
        yield
    finally:
        os.close(descriptor)
        other.unlink()
