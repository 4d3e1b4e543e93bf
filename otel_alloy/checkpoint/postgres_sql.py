"""The common statements (`database.py`) as PostgreSQL takes them. Pure.

Names of tables get their schema, so that nothing has to be set in the session; what is done for
each of many rows becomes few statements, as each would be a message and a plan of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice
from typing import Any

_TABLE = re.compile(r"\b(FROM|INTO|UPDATE|JOIN) ([a-z_]+)\b(?!\()")
_INSERT = re.compile(r"(INSERT INTO .*? VALUES )(\([?,0-9]+\))(.*)", re.DOTALL)
_DELETE = re.compile(r"DELETE FROM ([a-z_]+) WHERE (\w+=\?(?: AND \w+=\?)*)")
_TOGETHER = 500
"""Rows in one statement; with eight values each, far below the 65,535 that there may be."""


@lru_cache(maxsize=1000)
def translated(sql: str, schema: str) -> str:
    """One statement."""
    qualified = _TABLE.sub(rf'\1 "{schema}".\2', sql)
    return qualified.replace("%", "%%").replace("?", "%s")


def together(
    sql: str, schema: str, rows: Iterable[Sequence[Any]]
) -> Iterator[tuple[str, Sequence[Any]]]:
    """The same statement for each of many rows: statements with their values."""
    left = iter(rows)
    while some := list(islice(left, _TOGETHER)):
        joined = _joined(sql, schema, len(some)) if len(some) > 1 else None
        if joined is None:
            one = translated(sql, schema)
            yield from ((one, row) for row in some)
        else:
            yield joined, list(chain.from_iterable(some))


@lru_cache(maxsize=2000)
def _joined(sql: str, schema: str, count: int) -> str | None:
    if found := _INSERT.fullmatch(sql):
        begin, one, rest = found.groups()
        return translated(f"{begin}{','.join([one] * count)}{rest}", schema)
    if found := _DELETE.fullmatch(sql):
        table, conditions = found.groups()
        columns = [condition.partition("=")[0] for condition in conditions.split(" AND ")]
        row = f"({','.join('?' * len(columns))})"
        same = " AND ".join(f"{table}.{column}=given.{column}" for column in columns)
        return translated(
            f"DELETE FROM {table} USING (VALUES {','.join([row] * count)})"
            f" AS given ({','.join(columns)}) WHERE {same}",
            schema,
        )
    return None
