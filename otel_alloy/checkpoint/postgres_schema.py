"""The tables on PostgreSQL: made, and brought forward, under a lock.

The files of `sql/postgres/` begin with the version they lead to, and say in a line `-- oldest
reader: N` which is the oldest program that can go on beside the new tables: so replicas of two
versions run side by side while they are exchanged. A program refuses tables whose oldest reader is
newer than itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from zlib import crc32

import psycopg

from otel_alloy.checkpoint.postgres_url import PostgresUrl
from otel_alloy.errors import CheckpointError

_OLDEST_SERVER = 14
_OLDEST_READER = re.compile(r"^-- oldest reader: (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Migration:
    """What leads to a version: SQL, and the oldest program that goes on beside it."""

    version: int
    oldest_reader: int
    sql: str


@cache
def migrations() -> tuple[Migration, ...]:
    """All there are, in order."""
    folder = files("otel_alloy.checkpoint").joinpath("sql").joinpath("postgres")
    found = []
    for path in folder.iterdir():
        sql = path.read_text("utf-8")
        oldest = _OLDEST_READER.search(sql)
        assert oldest is not None, path.name
        found.append(Migration(int(path.name.split("_")[0]), int(oldest[1]), sql))
    return tuple(sorted(found, key=lambda one: one.version))


def has_tables(db: psycopg.Connection[Any], where: PostgresUrl) -> bool:
    """Whether there is a checkpoint already."""
    # Not `to_regclass`: after waiting for the lock, that may still answer from a cache.
    found = db.execute(
        "SELECT 1 FROM pg_tables WHERE schemaname=%s AND tablename='schema_version'",
        (where.schema,),
    )
    return found.fetchone() is not None


def prepare(db: psycopg.Connection[Any], where: PostgresUrl, known: Sequence[Migration]) -> None:
    """Makes the tables, or brings them to the newest version. `db`: in autocommit. Raises
    CheckpointError where they are too new, and psycopg's errors."""
    info = db.info
    if info.server_version // 10_000 < _OLDEST_SERVER:
        raise CheckpointError(
            f"checkpoint in {where.place}: PostgreSQL {info.server_version // 10_000} is too old",
            f"use version {_OLDEST_SERVER} or newer",
        )
    if info.parameter_status("server_encoding") not in (None, "UTF8"):
        raise CheckpointError(
            f"checkpoint in {where.place}: the database's encoding is not UTF8",
            "create one with ENCODING 'UTF8'",
        )
    newest = known[-1].version
    if _version(db, where, newest) >= newest:
        return
    with db.transaction():
        db.execute("SET LOCAL lock_timeout='30s'")
        db.execute("SELECT pg_advisory_xact_lock(%s)", (crc32(where.schema.encode()),))
        version = _version(db, where, newest)
        if version >= newest:  # another process was faster
            return
        named = db.execute("SELECT 1 FROM pg_namespace WHERE nspname=%s", (where.schema,))
        if named.fetchone() is None:
            db.execute(f'CREATE SCHEMA "{where.schema}"')
        db.execute(f'SET LOCAL search_path TO "{where.schema}"')
        if not version:
            db.execute("CREATE TABLE schema_version (version int, oldest_reader int)")
            db.execute("INSERT INTO schema_version VALUES (0, 0)")
        for one in known:
            if one.version > version:
                db.execute(one.sql.encode())
                db.execute(
                    "UPDATE schema_version SET version=%s,"
                    " oldest_reader=greatest(oldest_reader, %s)",
                    (one.version, one.oldest_reader),
                )


def _version(db: psycopg.Connection[Any], where: PostgresUrl, newest: int) -> int:
    """The version of the tables, 0 where there are none. Raises CheckpointError where a program
    that knows up to `newest` must not use them."""
    if not has_tables(db, where):
        return 0
    row = db.execute(
        f'SELECT version, oldest_reader FROM "{where.schema}".schema_version'.encode()
    ).fetchone()
    if row is None:
        raise CheckpointError(
            f"checkpoint in {where.place}: the table schema_version is empty",
            "restore it, or start again with an empty database",
        )
    if row[1] > newest:
        raise too_new(where, row[0], row[1], newest)
    return int(row[0])


def too_new(where: PostgresUrl, version: int | None, oldest: int, newest: int) -> CheckpointError:
    """The tables are for newer programs."""
    now = "" if version is None else f" {version}"
    return CheckpointError(
        f"the checkpoint in {where.place} has schema version{now}, which programs from version "
        f"{oldest} on can use; this otel-alloy has version {newest}",
        "use the otel-alloy that wrote it, or a newer one",
    )
