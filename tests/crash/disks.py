"""Disks of a few megabytes, for tests that fill them or take the right to write away."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 1 << 20


@contextmanager
def small_disk(at: Path, mib: int) -> Iterator[Path]:
    """A disk in memory. Where nothing can be mounted the test is skipped, and says so."""
    at.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", at], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"a small disk needs the right to mount one: {made.stderr.strip()}")
    try:
        yield at
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
