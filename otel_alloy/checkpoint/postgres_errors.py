"""What PostgreSQL's errors mean for us, by SQLSTATE: what may succeed later, and the remedies.

Of what the server says, only words without values of rows are passed on. Only errors live here.
"""

from __future__ import annotations

import re

import psycopg

from otel_alloy.checkpoint.postgres_url import PostgresUrl
from otel_alloy.errors import CheckpointError, CheckpointUnwritable

AGAIN = frozenset(("40001", "40P01", "23505"))
"""The same transaction may succeed at once: another one was in its way, or faster with a row."""

_AWAY = "start the server, or wait until it can be reached; nothing is lost, it goes on afterwards"
_NO_ENTRY = "correct the user, the password or pg_hba.conf"
_PASSING = {
    "25006": "it is a read-only standby: name the primary in the URL, or all hosts, separated by "
    "commas; the writable one is taken",
    "40001": "other writers were in the way; it is tried again",
    "40P01": "other writers were in the way; it is tried again",
    "23505": "other writers were in the way; it is tried again",
    "53100": "make room on the server's disk; nothing is lost, the batch will be sent again",
    "53200": "give the server more memory",
    "53300": "raise max_connections, or put PgBouncer before the server",
    "53400": "raise the limit that the server names",
    "55P03": "another transaction holds the rows; end it if it hangs (pg_stat_activity)",
    "57014": "the statement took longer than the server's statement_timeout",
}
_LASTING = {
    "42501": "grant this user the right, or let an administrator run `CREATE SCHEMA {schema} "
    "AUTHORIZATION …` once",
    "42P01": "the tables were removed; restore them, or start again with an empty database",
    "3D000": "create the database, or name another one",
    "3F000": "the schema was removed; restore it, or start again with an empty database",
    "54000": "a name in a record is longer than PostgreSQL can look up (2,700 bytes)",
}
_AT_THE_DOOR = {
    # libpq tells no SQLSTATE of a connection that is refused; these are PostgreSQL's words, and
    # PgBouncer's.
    r"too many clients|connection slots|no more connections": "53300",
    r"authentication failed|pg_hba|no password supplied|role \S+ does not exist": "28P01",
    r"database \S+ does not exist|no such database": "3D000",
    r"read-only|not currently accepting writes": "25006",
}
_SAID = ("08", "25", "28", "3D", "3F", "42", "53", "55", "57", "58")
"""Classes whose messages hold no value of a row."""


def is_lost(error: psycopg.Error) -> bool:
    """Whether it is about the connection, not about what was asked."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError)
    return state[:2] in ("08", "58") or state in ("57P01", "57P02", "57P03", "57P05", "25P03")


def told(
    error: psycopg.Error, where: PostgresUrl, *, opening: bool = False
) -> CheckpointError | CheckpointUnwritable:
    """Our error. `opening`: nothing was reached yet, so that nothing is to be waited for."""
    state = error.sqlstate or _at_the_door(error)
    problem = f"checkpoint in {where.place}: {_words(error, where)}"
    lasting = _NO_ENTRY if state[:2] == "28" else _LASTING.get(state, "")
    if state in _PASSING or is_lost(error):
        remedy = _PASSING.get(state) or lasting or _AWAY
        kind = CheckpointError if opening else CheckpointUnwritable
        return kind(problem, remedy)
    remedy = lasting or "look into the server's log"
    return CheckpointError(problem, remedy.replace("{schema}", where.schema))


def _at_the_door(error: psycopg.Error) -> str:
    found = [state for words, state in _AT_THE_DOOR.items() if re.search(words, str(error))]
    return found[0] if found else ""


def _words(error: psycopg.Error, where: PostgresUrl) -> str:
    state = error.sqlstate or ""
    name = type(error).__name__
    if not state:
        said = str(error).strip().splitlines() or [name]
        return where.masked(said[0])
    said = [error.diag.message_primary or ""] if state.startswith(_SAID) else []
    return where.masked(" ".join([*said, f"({name}, {state})"]))
