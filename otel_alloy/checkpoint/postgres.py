"""The checkpoint in a PostgreSQL database, also through PgBouncer in transaction mode.

Nothing is left in a session: no prepared statement, no setting, no advisory lock, no LISTEN; each
transaction brings what it needs. A transaction is durable before `transact` returns. Where the
answer to a COMMIT is lost, the outcome is asked for (`outcome.py`), not assumed. What several
replicas may do is not decided here: `fence` is asked in each transaction. Only connections,
transactions and their errors may live here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import psycopg
from psycopg import errors
from psycopg.adapt import AdaptersMap
from psycopg.types.numeric import IntLoader
from psycopg.types.string import StrDumperUnknown, TextLoader
from psycopg_pool import ConnectionPool, PoolTimeout

from otel_alloy.checkpoint.database import Connection, Fence, Hold, T
from otel_alloy.checkpoint.holding import Terms, held
from otel_alloy.checkpoint.outcome import Outcomes, Slot
from otel_alloy.checkpoint.postgres_errors import AGAIN, is_lost, told
from otel_alloy.checkpoint.postgres_schema import (
    Migration,
    has_tables,
    migrations,
    prepare,
    too_new,
)
from otel_alloy.checkpoint.postgres_sql import together, translated
from otel_alloy.checkpoint.postgres_url import PostgresUrl, parse_postgres
from otel_alloy.errors import CheckpointError

PATIENCE = 10.0
"""Seconds that a connection is waited for; a server that says nothing three times as long is taken
for lost, however open the connection looks."""
_MOST_CONNECTIONS = 8
_TIMES = 5
_DEFAULTS = {
    "application_name": "otel-alloy",
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
# What a transaction begins with, in one message: it ends itself soon where this process is gone, as
# nobody can take over a lease whose row it holds; it is durable whatever the server's default is;
# it numbers itself (`outcome.py`); and it asks whether newer programs have changed the tables.
_BEGIN = """BEGIN;
SET LOCAL lock_timeout='10s'; SET LOCAL idle_in_transaction_session_timeout='5s';{alone}
INSERT INTO "{schema}".writer (slot, batch, at) VALUES ('{slot}', {number}, now())
 ON CONFLICT (slot) DO UPDATE SET batch=excluded.batch, at=excluded.at;
SELECT oldest_reader, CASE WHEN current_setting('synchronous_commit')='off'
 THEN set_config('synchronous_commit', 'on', true) END FROM "{schema}".schema_version"""
# Those that were in each other's way come one by one.
_ALONE = " SELECT pg_advisory_xact_lock(hashtext('otel-alloy {schema}'));"
_ASK = """BEGIN;
SET LOCAL lock_timeout='10s';
INSERT INTO "{schema}".writer (slot, batch, at) VALUES ('{slot}', 0, now())
 ON CONFLICT (slot) DO NOTHING;
SELECT batch FROM "{schema}".writer WHERE slot='{slot}' FOR UPDATE"""
_FORGET = "DELETE FROM writer WHERE at < now() - interval '7 days'"


# PostgreSQL takes no U+0000 in a text: it is escaped, by what is then escaped itself.
_ESCAPE, _AS_ESCAPE, _AS_ZERO = "\x1a", "\x1a1", "\x1a0"


class _TextDumper(StrDumperUnknown):
    def dump(self, obj: str) -> Any:
        if "\0" in obj or _ESCAPE in obj:
            obj = obj.replace(_ESCAPE, _AS_ESCAPE).replace("\0", _AS_ZERO)
        return super().dump(obj)


class _TextLoader(TextLoader):
    def load(self, data: Any) -> Any:
        text = super().load(data)
        if isinstance(text, str) and _ESCAPE in text:
            text = text.replace(_AS_ZERO, "\0").replace(_AS_ESCAPE, _ESCAPE)
        return text


def _adapters() -> AdaptersMap:
    found = AdaptersMap(psycopg.adapters)
    found.register_dumper(str, _TextDumper)
    found.register_loader("text", _TextLoader)
    found.register_loader("numeric", IntLoader)  # sums: there are no fractions in the tables
    return found


class _Cursor(psycopg.Cursor[Any]):
    @property
    def lastrowid(self) -> int:
        """See `Rows`."""
        row = self.connection.execute("SELECT lastval()").fetchone()
        assert row is not None
        return int(row[0])


class _Wire(psycopg.Connection[Any]):
    """A connection that does not wait for ever."""

    patience = PATIENCE

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, timeout or 3 * self.patience)
        except errors._WaitTimeout:
            self.close()
            raise psycopg.OperationalError(
                f"the server has not answered for {3 * self.patience:g} s"
            ) from None


class _Transaction:
    """See `Connection`."""

    def __init__(self, wire: psycopg.Connection[Any], schema: str) -> None:
        self._wire = wire
        self._schema = schema

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Any:
        return self._wire.execute(translated(sql, self._schema).encode(), values)

    def executemany(self, sql: str, values: Iterable[Sequence[Any]], /) -> _Changed:
        changed = _Changed()
        for statement, some in together(sql, self._schema, values):
            changed.rowcount += self._wire.execute(statement.encode(), some).rowcount
        return changed


class _Changed:
    """See `Rows`: how many rows were changed, and nothing more."""

    rowcount = 0
    lastrowid = None

    def fetchone(self) -> None:
        return None

    def fetchall(self) -> list[Any]:
        return []

    def __iter__(self) -> Iterator[Any]:
        return iter(())


class _Lost(Exception):
    """The answer to a COMMIT was lost. `result`: what the transaction gives if it was written."""

    def __init__(self, result: object) -> None:
        super().__init__()
        self.result = result


class PostgresDatabase:
    """See `Database`. `url`: as libpq reads it, and `schema=` for the tables' schema. `fence`: is
    asked in every transaction that settles, for each of its units. `known`: the tables' versions.
    `patience`: see PATIENCE."""

    def __init__(
        self,
        url: str,
        *,
        fence: Fence | None = None,
        known: Sequence[Migration] | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._where = parse_postgres(url)
        self._known = known or migrations()
        self._schema = self._where.schema
        self._fence = fence
        with _opened(self._where) as wire:
            prepare(wire, self._where, self._known)
            with suppress(errors.ReadOnlySqlTransaction):
                wire.execute(translated(_FORGET, self._schema).encode())
            row = wire.execute("SELECT gen_random_uuid()::text").fetchone()
        assert row is not None
        self._outcomes = Outcomes(row[0], self._ask)
        self._pool = ConnectionPool(
            self._where.url,
            connection_class=_Wire,
            kwargs=_arguments(self._where),
            min_size=0,
            max_size=_MOST_CONNECTIONS,
            max_idle=60.0,
            timeout=patience,
            reconnect_timeout=0.0,
            num_workers=1,
            configure=lambda wire: setattr(wire, "patience", patience),
            open=True,
        )

    @property
    def place(self) -> str:
        """See `Database.place`."""
        return self._where.place

    def transact(
        self,
        act: Callable[[Any], T],
        units: Sequence[str] = (),
        call: object = None,
    ) -> T:
        """See `Database.transact`."""
        call = object() if call is None else call
        times, alone = 0, False
        while True:
            times += 1
            try:
                self._outcomes.clear()
                if (earlier := self._outcomes.earlier(call)) is not None:
                    result: T = earlier.result
                    return result
                return self._once(act, units, call, alone)
            except psycopg.Error as error:
                # Before its COMMIT, a lost transaction was not written: it can be done again.
                if times < _TIMES and (error.sqlstate in AGAIN or self._renewed(error)):
                    alone = alone or error.sqlstate in AGAIN
                    continue
                raise self._told(error) from None

    def _once(self, act: Callable[[Any], T], units: Sequence[str], call: object, alone: bool) -> T:
        slot = self._outcomes.take()
        doubt = None
        try:
            with self._pool.connection() as wire:
                return self._written(wire, slot, act, units, alone)
        except _Lost as lost:
            doubt = self._outcomes.doubt(slot, lost.result, call)
        finally:
            if doubt is None:
                self._outcomes.give(slot)
        for last in (False, True):  # the connections that there were may be lost, too
            try:
                self._outcomes.clear()
                break
            except psycopg.Error as error:
                if last or not self._renewed(error):
                    raise
        if doubt.written:
            self._outcomes.earlier(doubt.call)
            result: T = doubt.result
            return result
        return self._once(act, units, call, alone)

    def _written(
        self,
        wire: psycopg.Connection[Any],
        slot: Slot,
        act: Callable[[Any], T],
        units: Sequence[str],
        alone: bool,
    ) -> T:
        lock = _ALONE.format(schema=self._schema) if alone else ""
        begin = _BEGIN.format(schema=self._schema, slot=slot.name, number=slot.number, alone=lock)
        oldest = _last(wire.execute(begin.encode()))[0]
        if oldest > self._known[-1].version:
            raise too_new(self._where, None, oldest, self._known[-1].version)
        transaction = _Transaction(wire, self._schema)
        if self._fence is not None:
            for unit in units:
                self._fence(transaction, unit)
        result = act(transaction)
        try:
            wire.execute("COMMIT")
        except psycopg.Error as error:
            if wire.closed or is_lost(error):
                wire.close()
                raise _Lost(result) from None
            raise
        return result

    def _ask(self, slot: Slot) -> int:
        with self._pool.connection() as wire:
            ask = _ASK.format(schema=self._schema, slot=slot.name)
            number = int(_last(wire.execute(ask.encode()))[0])
            wire.execute("COMMIT")
            return number

    def read(self, select: str, values: Sequence[object] = ()) -> list[Any]:
        """See `Database.read`."""
        times = 0
        while True:
            times += 1
            try:
                with self._pool.connection() as wire:
                    statement = translated(select, self._schema).encode()
                    return wire.execute(statement, values).fetchall()
            except psycopg.Error as error:
                if times < _TIMES and self._renewed(error):
                    continue
                raise self._told(error) from None

    def _renewed(self, error: psycopg.Error) -> bool:
        """Where a connection was lost: throws away those that are lost, too. False where it was
        something else, or there is none to be had."""
        if not is_lost(error) or isinstance(error, PoolTimeout):
            return False
        with suppress(psycopg.Error):
            self._pool.check()
        return True

    def _told(self, error: psycopg.Error) -> Exception:
        if isinstance(error, PoolTimeout):  # which does not say why
            try:
                _connect(self._where).close()
            except psycopg.Error as why:
                error = why
            else:
                error = psycopg.OperationalError("no connection was free")
        return told(error, self._where)

    def hold(
        self, name: str, taken: str, remedy: str, terms: Terms | None = None
    ) -> AbstractContextManager[Hold]:
        """See `Database.hold`: a lease on a unit of that name."""
        return held(self, name, taken, remedy, terms)

    def run_is_active(self) -> bool:
        """See `Database.run_is_active`."""
        select = (
            "SELECT 1 FROM replica WHERE clock_timestamp()<heard_at+make_interval(secs => lease)"
        )
        return bool(self.read(select))

    def last_number(self, db: Connection, table: str) -> int:
        """See `otel_alloy.checkpoint.migrate.Numbering`."""
        row = db.execute(f"SELECT last_value, is_called FROM {table}_number_seq").fetchone()
        return int(row[0]) if row[1] else 0

    def go_on_after(self, db: Connection, table: str, number: int) -> None:
        """See `otel_alloy.checkpoint.migrate.Numbering`."""
        last = max(number, self.last_number(db, table))
        if last:
            db.execute("SELECT setval(?, ?)", (f'"{self._schema}".{table}_number_seq', last))

    def close(self) -> None:
        """See `Database.close`."""
        self._pool.close(timeout=PATIENCE)


def postgres_exists(url: str) -> bool:
    """Whether there is a checkpoint at such a URL. Raises CheckpointError."""
    where = parse_postgres(url)
    with _opened(where) as wire:
        return has_tables(wire, where)


@contextmanager
def _opened(where: PostgresUrl) -> Iterator[psycopg.Connection[Any]]:
    """A connection of its own; errors are ours."""
    try:
        with _connect(where) as wire:
            yield wire
    except psycopg.Error as error:
        raise told(error, where, opening=True) from None


def _connect(where: PostgresUrl) -> psycopg.Connection[Any]:
    return _Wire.connect(where.url, **_arguments(where))


def _arguments(where: PostgresUrl) -> dict[str, Any]:
    try:
        said = psycopg.conninfo.conninfo_to_dict(where.url)
    except psycopg.ProgrammingError:
        raise CheckpointError(
            "OTEL_ALLOY_STORAGE: no PostgreSQL URL that libpq reads",
            "see https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING",
        ) from None
    more = {name: value for name, value in _DEFAULTS.items() if name not in said}
    if "," in str(said.get("host", "")) and "target_session_attrs" not in said:
        more["target_session_attrs"] = "read-write"  # of several hosts, the primary
    return {
        **more,
        "client_encoding": "utf8",
        "autocommit": True,
        "prepare_threshold": None,
        "context": _ADAPTERS,
        "cursor_factory": _Cursor,
    }


def _last(cursor: psycopg.Cursor[Any]) -> Any:
    """The row that the last of several statements gives."""
    while cursor.nextset():
        pass
    return cursor.fetchone()


_ADAPTERS = _adapters()
