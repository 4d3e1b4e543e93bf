"""A schema of a real PostgreSQL for each test, directly and through PgBouncer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .counted import CountedDatabase

if TYPE_CHECKING:
    from conftest import Servers

ENGINES = ("postgres oldest", "pgbouncer")


@pytest.fixture(params=ENGINES)
def storage(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> str:
    """The setting `storage`."""
    return servers.storage(request.param, tmp_path)


@pytest.fixture
def database(storage: str) -> Iterator[CountedDatabase]:
    """The database of `storage`."""
    with closing(CountedDatabase(storage)) as found:
        yield found
