"""Stdin and stdout of a command that must not block: it has leases to keep, and signals to obey, meanwhile."""

import errno
import io
import os
import select
import stat
import sys
from collections.abc import AsyncIterator, Callable
from typing import BinaryIO

import anyio

_PIECE = 64 * 1024


async def write(data: bytes, written: Callable[[int], object] = lambda _: None) -> None:
    """To stdout, past all buffers; ``written`` is told of each part how many bytes it had.

    Raises OSError, BrokenPipeError where nobody reads it any more.
    """
    if sys.stdout is None:
        raise OSError(errno.EBADF, "stdout is closed")
    stdout = sys.stdout.buffer
    fd = _waitable(stdout)
    if fd is None:
        # What fails here may have been written in part, or whole.
        written(len(data))
        stdout.write(data)
        stdout.flush()
        return
    left = memoryview(data)
    while left:
        await anyio.wait_writable(fd)
        # What a pipe that is writable takes without blocking.
        count = os.write(fd, left[: select.PIPE_BUF])
        written(count)
        left = left[count:]


async def read(source: BinaryIO) -> AsyncIterator[tuple[bytes, bool]]:
    """All of it in pieces, as it comes; with each, whether there is more to read already, which may be the end."""
    fd = _waitable(source)
    while True:
        if fd is None:
            piece = source.read(_PIECE)
        else:
            await anyio.wait_readable(fd)
            piece = os.read(fd, _PIECE)
        if not piece:
            return
        yield piece, fd is None or bool(select.select([fd], [], [], 0)[0])


def _waitable(file: BinaryIO) -> int | None:
    """The descriptor of a pipe, socket or terminal. Files on a disk are always ready, and no loop can wait for one."""
    try:
        fd = file.fileno()
    except io.UnsupportedOperation:
        return None
    mode = os.fstat(fd).st_mode
    return fd if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd) else None
