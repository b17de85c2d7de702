"""What the tests of this folder bring together: a queue server, and the python of a real llama_deploy."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.server import start_server
from wakeq_bench.peers import PeerUnavailable
from wakeq_bench.peers.llama_deploy import environment

QUEUE_URL = os.environ.get("WAKEQ_COMPAT_URL")
"""A queue server that runs already, to be tested instead of those that the tests start."""


@dataclass(frozen=True)
class Address:
    """Where a queue server listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@contextmanager
def queue_server(data: Path, durability: str = "fsync") -> Iterator[Address]:
    """A queue server to test."""
    if QUEUE_URL is not None:
        given = urlsplit(QUEUE_URL)
        yield Address(given.hostname or "127.0.0.1", given.port or 80)
        return
    with start_server(data, durability=durability) as server:
        yield Address(server.host, server.port)


def python_of(version: str, *, for_wakeq: bool = False) -> Path:
    """The python with that llama_deploy; where it cannot be had, the test is skipped."""
    try:
        return environment(version, for_wakeq=for_wakeq)
    except PeerUnavailable as error:
        pytest.skip(str(error))
