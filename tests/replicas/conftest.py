"""A server for all tests of this folder, a schema for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest

from .plain import PlainDatabase, Server, programs


@pytest.fixture
def server_folder() -> Iterator[Path]:
    """With a short name, as a socket's must be."""
    with TemporaryDirectory(prefix="pg") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    found = programs()
    if found is None:
        pytest.skip("no PostgreSQL here (Debian: apt-get install postgresql)")
    with TemporaryDirectory(prefix="pg") as name:
        server = Server(Path(name), found)
        yield server
        server.stop()


@pytest.fixture
def database(server: Server) -> PlainDatabase:
    return PlainDatabase(server.dsn, f"s{uuid4().hex}")


@pytest.fixture
def storage(server: Server) -> str:
    """The setting `storage` for a schema of its own."""
    return f"{server.url}&schema=s{uuid4().hex}"
