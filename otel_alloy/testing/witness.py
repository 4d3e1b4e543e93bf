"""What a PostgreSQL saw of its replicas: every cursor that moved, every lease that changed hands,
every outbox that got shorter, and who did it.

Triggers write it down in the same transactions, in a schema of their own, so it survives whatever
the server survives, and goes over to a standby. A replica is told by the `application_name` of its
URL. Nothing here judges.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from otel_alloy.checkpoint.postgres_url import parse_postgres

_WATCH = """
CREATE SCHEMA {schema}_witness;
CREATE TABLE {schema}_witness.member (name text PRIMARY KEY, writer text NOT NULL);
CREATE TABLE {schema}_witness.moved (
    n bigserial, at double precision NOT NULL, writer text NOT NULL, owner text, epoch bigint,
    source text NOT NULL, high bigint, start bigint, before bigint, position bigint);
CREATE TABLE {schema}_witness.changed (
    n bigserial, at double precision NOT NULL, unit text NOT NULL, owner text,
    epoch bigint NOT NULL, was text);
CREATE TABLE {schema}_witness.emptied (
    n bigserial, at double precision NOT NULL, writer text NOT NULL, owner text, epoch bigint,
    destination text NOT NULL);

CREATE FUNCTION {schema}_witness.member() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO {schema}_witness.member VALUES (NEW.name, current_setting('application_name'))
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE FUNCTION {schema}_witness.moved() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO {schema}_witness.moved
        (at, writer, owner, epoch, source, high, start, before, position)
        SELECT date_part('epoch', clock_timestamp()), current_setting('application_name'),
               l.owner, l.epoch, NEW.name, NEW.high, NEW.window_start, NEW.window_before,
               NEW.position
        FROM (VALUES (1)) AS one LEFT JOIN {schema}.lease l ON l.unit = 'source ' || NEW.name;
    RETURN NULL;
END $$;
CREATE FUNCTION {schema}_witness.changed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO {schema}_witness.changed (at, unit, owner, epoch, was)
        VALUES (date_part('epoch', clock_timestamp()), NEW.unit, NEW.owner, NEW.epoch, OLD.owner);
    RETURN NULL;
END $$;
CREATE FUNCTION {schema}_witness.emptied() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO {schema}_witness.emptied (at, writer, owner, epoch, destination)
        SELECT date_part('epoch', clock_timestamp()), current_setting('application_name'),
               l.owner, l.epoch, OLD.destination
        FROM (VALUES (1)) AS one
        LEFT JOIN {schema}.lease l ON l.unit = 'destination ' || OLD.destination;
    RETURN NULL;
END $$;

CREATE TRIGGER witness AFTER INSERT ON {schema}.replica
    FOR EACH ROW EXECUTE FUNCTION {schema}_witness.member();
CREATE TRIGGER witness AFTER UPDATE ON {schema}.source
    FOR EACH ROW EXECUTE FUNCTION {schema}_witness.moved();
CREATE TRIGGER witness AFTER UPDATE ON {schema}.lease
    FOR EACH ROW WHEN (NEW.owner IS DISTINCT FROM OLD.owner OR NEW.epoch <> OLD.epoch)
    EXECUTE FUNCTION {schema}_witness.changed();
CREATE TRIGGER witness AFTER DELETE ON {schema}.outbox
    FOR EACH ROW EXECUTE FUNCTION {schema}_witness.emptied();
"""


@dataclass(frozen=True, slots=True)
class Moved:
    """A source's row was written by `writer`, while `owner` had its lease with `epoch`. `at`: Unix
    seconds by the server's clock; the rest as in `Progress`."""

    at: float
    writer: str
    owner: str | None
    epoch: int | None
    source: str
    high: int | None
    position: int | None
    start: int | None
    before: int | None


@dataclass(frozen=True, slots=True)
class Changed:
    """A lease went from `was` to `owner`; None is nobody."""

    at: float
    unit: str
    owner: str | None
    epoch: int
    was: str | None

    @property
    def takeover(self) -> bool:
        """Whether it was taken from one who had not given it back."""
        return self.was is not None and self.owner is not None


@dataclass(frozen=True, slots=True)
class Emptied:
    """What lay ready for a destination was taken out by `writer`, while `owner` had the lease."""

    at: float
    writer: str
    owner: str | None
    epoch: int | None
    destination: str


class Witness:
    """Of the checkpoint at `url`, whose tables are there; begins with `watch`."""

    def __init__(self, url: str) -> None:
        self._where = parse_postgres(url)
        self._seen = f"{self._where.schema}_witness"

    def watch(self) -> None:
        """Begins to write down."""
        with self._open() as wire:
            wire.execute(_WATCH.format(schema=self._where.schema).encode())

    def members(self) -> dict[str, str]:
        """The `application_name` of each replica there ever was, by its name."""
        return dict(self.rows(f"SELECT name, writer FROM {self._seen}.member"))

    def moved(self) -> list[Moved]:
        """All that cursors did, in order."""
        found = self.rows(
            "SELECT at, writer, owner, epoch, source, high, position, start, before"
            f" FROM {self._seen}.moved ORDER BY n"
        )
        return [Moved(*row) for row in found]

    def changed(self) -> list[Changed]:
        """All that leases did, in order."""
        return [
            Changed(*row)
            for row in self.rows(
                f"SELECT at, unit, owner, epoch, was FROM {self._seen}.changed ORDER BY n"
            )
        ]

    def emptied(self) -> list[Emptied]:
        """All that was taken out of outboxes, in order."""
        return [
            Emptied(*row)
            for row in self.rows(
                f"SELECT at, writer, owner, epoch, destination FROM {self._seen}.emptied ORDER BY n"
            )
        ]

    def settled_since(self, moment: float, but: str = "") -> dict[str, float]:
        """When each source was first settled by anybody `but` a replica after a moment (Unix s)."""
        return dict(
            self.rows(
                f"SELECT source, min(at) FROM {self._seen}.moved"
                f" WHERE at>{moment!r} AND writer<>'{but}' GROUP BY 1"
            )
        )

    def rows(self, select: str) -> list[Any]:
        """What a SELECT gives."""
        with self._open() as wire:
            return wire.execute(select.encode()).fetchall()

    @contextmanager
    def _open(self) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(
            self._where.url,
            autocommit=True,
            prepare_threshold=None,
            target_session_attrs="read-write",
            application_name="witness",
            options=f"-csearch_path={self._where.schema}",
        ) as wire:
            yield wire
