"""The fixtures of this folder."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.compat.clients import Clients
from tests.compat.under_test import Address, python_of, queue_server


@pytest.fixture(scope="session", params=["0.4.2", "0.8.1"])
def python(request: pytest.FixtureRequest) -> Path:
    """The python of each llama_deploy version under test."""
    return python_of(request.param)


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """The unmodified clients of any python."""
    with ExitStack() as stack:
        yield Clients(tmp_path_factory.mktemp("clients"), stack)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Address]:
    """A queue server that keeps what it is given."""
    with queue_server(tmp_path / "data") as server:
        yield server
