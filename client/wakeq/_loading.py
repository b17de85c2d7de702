"""Modules, loaded sooner."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """A block that loads modules. They stay: to look for what of them is garbage takes a tenth of it, in vain."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
