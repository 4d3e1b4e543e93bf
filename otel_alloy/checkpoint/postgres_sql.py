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
_UPDATE = re.compile(r"UPDATE ([a-z_]+) SET (\w+=\?(?:, \w+=\?)*) WHERE (\w+=\?(?: AND \w+=\?)*)")
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
        table, keys = found[1], _columns(found[2], " AND ")
        given = _given(keys, count)
        return translated(f"DELETE FROM {table} USING {given} WHERE {_same(table, keys)}", schema)
    if found := _UPDATE.fullmatch(sql):
        table, changed, keys = found[1], _columns(found[2], ", "), _columns(found[3], " AND ")
        given = _given(changed + keys, count)
        new = ", ".join(f"{column}=given.{column}" for column in changed)
        return translated(
            f"UPDATE {table} SET {new} FROM {given} WHERE {_same(table, keys)}", schema
        )
    return None


def _columns(text: str, between: str) -> list[str]:
    return [part.partition("=")[0] for part in text.split(between)]


def _given(columns: Sequence[str], count: int) -> str:
    row = f"({','.join('?' * len(columns))})"
    return f"(VALUES {','.join([row] * count)}) AS given ({','.join(columns)})"


def _same(table: str, keys: Sequence[str]) -> str:
    return " AND ".join(f"{table}.{key}=given.{key}" for key in keys)
