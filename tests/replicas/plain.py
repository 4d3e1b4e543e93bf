"""A PostgreSQL server of the tests' own, and the least that its SQL needs: a connection for each
transaction, as a pooler may give it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import psycopg

from otel_alloy.errors import CheckpointUnwritable

T = TypeVar("T")


def programs() -> Path | None:
    """Where the server's programs lie; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parent if found else None


class Server:
    """A server that listens on a socket in its own folder alone."""

    def __init__(self, folder: Path, bin_folder: Path) -> None:
        self._bin = bin_folder
        self._folder = folder
        self._data = folder / "data"
        self._socket = folder / "socket"
        self._socket.mkdir()
        self._user: str | None = None
        if os.getuid() == 0:  # initdb refuses root
            self._user = next(u for u in ("postgres", "nobody") if _known(u))
            for path in (folder, self._socket):
                shutil.chown(path, self._user)
        self._run(
            "initdb", "-D", self._data, "-U", "alloy", "-A", "trust", "-N", "--locale=C.UTF-8"
        )
        self.start()

    @property
    def dsn(self) -> str:
        return f"host={self._socket} user=alloy dbname=postgres"

    @property
    def url(self) -> str:
        """The same as a URL."""
        return f"postgresql://alloy@/postgres?host={quote(str(self._socket), safe='')}"

    def start(self) -> None:
        options = f"-c listen_addresses= -c unix_socket_directories={self._socket} -c fsync=off"
        log = self._folder / "log"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def _run(self, program: str, *arguments: str | Path) -> None:
        before = [] if self._user is None else ["runuser", "-u", self._user, "--"]
        command = [*before, str(self._bin / program), *map(str, arguments)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self._folder)


def _known(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


class Plain:
    """One transaction, with `?` for values."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._cursor = connection.cursor()

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Any:
        self._cursor.execute(sql.replace("?", "%s"), values)
        return self._cursor

    def executemany(self, sql: str, values: Iterable[Sequence[Any]], /) -> Any:
        self._cursor.executemany(sql.replace("?", "%s"), values)
        return self._cursor


class PlainDatabase:
    """A schema of the server."""

    place = "the test's PostgreSQL"

    def __init__(self, dsn: str, schema: str) -> None:
        self._dsn = f"{dsn} options='-c search_path={schema}'"
        self._schema = schema
        self.statements = 0
        with psycopg.connect(dsn, autocommit=True) as db:
            db.execute(f"CREATE SCHEMA {schema}")
        sql = files("otel_alloy.checkpoint").joinpath("sql/postgres/2_replicas.sql").read_text()
        with self.connection() as db:
            db.execute(sql)

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """A transaction, in a session of its own."""
        with psycopg.connect(self._dsn) as db:
            yield db

    def transact(self, act: Any, units: Sequence[str] = (), call: object = None) -> Any:
        self.statements += 1
        try:
            with self.connection() as db:
                return act(Plain(db))
        except psycopg.OperationalError as error:
            raise CheckpointUnwritable(str(error)) from None

    def read(self, select: str, values: Sequence[object] = ()) -> list[Any]:
        return list(self.transact(lambda db: db.execute(select, values).fetchall()))

    def hold(self, name: str, taken: str, remedy: str) -> AbstractContextManager[object]:
        raise AssertionError("not needed here")

    def run_is_active(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is open."""
