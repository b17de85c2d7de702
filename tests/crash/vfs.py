"""A disk under SQLite that fails, and remembers what reached it: SQLite's own VFS with three calls in between.

SQLite reaches files through a table of functions, its VFS. Here the default one is copied, and every file that it opens
is given a copy of its methods in which writing, truncating and syncing go through us. That needs no compiler and no
rights: the library is the one that `sqlite3` has loaded.
"""

import _sqlite3
import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

_POINTERS = 19
"""Of `sqlite3_io_methods`, its version included, up to the last that SQLite has given it."""
_WRITE, _TRUNCATE, _SYNC = 3, 4, 5
_VFS_WORDS = 22

_Write = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64)
_Truncate = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)
_Sync = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_Open = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_OPEN_WORD = 5
"""Where in `sqlite3_vfs`, in words of eight bytes, xOpen stands."""


class Call(NamedTuple):
    """What SQLite asks of a file."""

    kind: str
    """`write`, `truncate` or `sync`."""
    file: str
    """Its name, without the directory."""
    offset: int = 0
    """Of a write; of `truncate` the new size."""
    data: bytes = b""


class Verdict(NamedTuple):
    """That a call fails: with which of SQLite's codes, and how much of a write gets through all the same."""

    code: int
    written: int = 0


class Judge(Protocol):
    """Whoever decides what becomes of calls; called in whatever thread makes them."""

    def __call__(self, call: Call, /) -> Verdict | None:
        """None: it succeeds."""


def _library() -> ctypes.CDLL:
    for name in (_sqlite3.__file__ if hasattr(_sqlite3, "__file__") else None, None):
        library = ctypes.CDLL(name)
        if hasattr(library, "sqlite3_vfs_register"):
            return library
    raise AssertionError("this Python's SQLite can't be reached: use one that doesn't hide it")


class _Disk:
    """The VFS. There is one a process: SQLite keeps using its methods for files that are still open."""

    def __init__(self) -> None:
        self.judge: Judge | None = None
        self._library = _library()
        self._library.sqlite3_vfs_find.restype = ctypes.c_void_p
        self._original = self._library.sqlite3_vfs_find(None)
        words = (ctypes.c_void_p * _VFS_WORDS).from_address(self._original)
        self._vfs = (ctypes.c_void_p * _VFS_WORDS)(*words)
        self._name = ctypes.create_string_buffer(b"judged")
        self._vfs[2], self._vfs[3] = None, ctypes.addressof(self._name)
        self._original_open = _Open(words[_OPEN_WORD] or 0)
        self._keep: list[Any] = [open_ := _Open(self._open)]
        self._vfs[_OPEN_WORD] = ctypes.cast(open_, ctypes.c_void_p).value
        self._methods: dict[int, Any] = {}
        self._names: dict[int, str] = {}

    def register(self) -> None:
        assert self._library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1) == 0

    def unregister(self) -> None:
        assert self._library.sqlite3_vfs_register(ctypes.c_void_p(self._original), 1) == 0
        assert self._library.sqlite3_vfs_unregister(ctypes.byref(self._vfs)) == 0

    def _open(self, _: int, name: int | None, file: int, flags: int, out: int | None) -> int:
        # The name goes on as the pointer that it is: SQLite keeps it, and has parameters behind its end.
        code: int = self._original_open(self._original, name, file, flags, out)
        methods = ctypes.c_void_p.from_address(file)
        if code == 0 and methods.value is not None and name is not None:
            self._names[file] = Path(ctypes.string_at(name).decode()).name
            methods.value = ctypes.addressof(self._judged(methods.value))
        return code

    def _judged(self, original: int) -> Any:
        """A copy of methods, with ours in the place of some."""
        if original not in self._methods:
            table = (ctypes.c_void_p * _POINTERS)(*(ctypes.c_void_p * _POINTERS).from_address(original))
            write, truncate, sync = (
                _Write(table[_WRITE] or 0),
                _Truncate(table[_TRUNCATE] or 0),
                _Sync(table[_SYNC] or 0),
            )

            def judged_write(file: int, data: int, size: int, offset: int) -> int:
                verdict = self._ask(lambda: Call("write", self._names[file], offset, ctypes.string_at(data, size)))
                if verdict is None:
                    return int(write(file, data, size, offset))
                if verdict.written:
                    write(file, data, min(verdict.written, size), offset)
                return verdict.code

            def judged_truncate(file: int, size: int) -> int:
                verdict = self._ask(lambda: Call("truncate", self._names[file], size))
                return int(truncate(file, size)) if verdict is None else verdict.code

            def judged_sync(file: int, flags: int) -> int:
                verdict = self._ask(lambda: Call("sync", self._names[file]))
                return int(sync(file, flags)) if verdict is None else verdict.code

            ours = {_WRITE: _Write(judged_write), _TRUNCATE: _Truncate(judged_truncate), _SYNC: _Sync(judged_sync)}
            for place, function in ours.items():
                table[place] = ctypes.cast(function, ctypes.c_void_p).value
            self._keep.append(ours)
            self._methods[original] = table
        return self._methods[original]

    def _ask(self, call: Callable[[], Call]) -> Verdict | None:
        return None if self.judge is None else self.judge(call())


_the_disk: list[_Disk] = []


@contextmanager
def judged_by(judge: Judge) -> Iterator[None]:
    """Databases that are opened meanwhile are on a disk that asks this one; close them before the end."""
    if not _the_disk:
        _the_disk.append(_Disk())
    (disk,) = _the_disk
    disk.register()
    disk.judge = judge
    try:
        yield
    finally:
        disk.judge = None
        disk.unregister()
