"""A server for all tests of this folder, a schema for each."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from .plain import PlainDatabase, Server, programs


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = programs()
    if found is None:
        pytest.skip("no PostgreSQL here (Debian: apt-get install postgresql)")
    server = Server(tmp_path_factory.mktemp("postgres"), found)
    yield server
    server.stop()


@pytest.fixture
def database(server: Server) -> PlainDatabase:
    return PlainDatabase(server.dsn, f"s{uuid4().hex}")
