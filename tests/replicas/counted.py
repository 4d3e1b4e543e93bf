"""A database that counts its transactions, and transactions that a test holds open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from otel_alloy.checkpoint.database import Connection, T
from otel_alloy.checkpoint.postgres import PostgresDatabase
from otel_alloy.checkpoint.postgres_sql import translated
from otel_alloy.checkpoint.postgres_url import parse_postgres


class Held:
    """A transaction that is open until the test ends it."""

    def __init__(self, connection: psycopg.Connection[Any], schema: str) -> None:
        self._connection = connection
        self._schema = schema

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Any:
        """As `Connection.execute`."""
        return self._connection.execute(translated(sql, self._schema).encode(), values)

    def executemany(self, sql: str, values: Any, /) -> Any:
        """Not needed here."""
        raise AssertionError(sql)


class CountedDatabase(PostgresDatabase):
    """`transactions`: how many there were."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._url = parse_postgres(url)
        self.transactions = 0

    def transact(
        self, act: Callable[[Any], T], units: Sequence[str] = (), call: object = None
    ) -> T:
        """See `Database.transact`."""
        self.transactions += 1
        return super().transact(act, units, call)

    @contextmanager
    def held(self) -> Iterator[Connection]:
        """A transaction by itself, committed at the end of the block."""
        with psycopg.connect(self._url.url) as db:
            yield Held(db, self._url.schema)
