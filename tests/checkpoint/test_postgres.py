"""What the checkpoint on PostgreSQL promises besides what every store does: commits whose answer is
lost, tables of two versions, errors with their remedies, and no secret in any of them."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from otel_alloy.checkpoint.database import Connection, destination_unit, source_unit
from otel_alloy.checkpoint.outbox import Entry, Sent
from otel_alloy.checkpoint.postgres import PostgresDatabase
from otel_alloy.checkpoint.postgres_schema import Migration, migrations
from otel_alloy.checkpoint.postgres_url import parse_postgres, place_of
from otel_alloy.checkpoint.sql_store import SqlStore
from otel_alloy.checkpoint.store import (
    Progress,
    RejectedRecord,
    Settlement,
    open_store,
    store_exists,
)
from otel_alloy.errors import AlloyReceiverError, CheckpointError, CheckpointUnwritable
from otel_alloy.observability.metrics import resource
from otel_alloy.settings.models import Settings
from otel_alloy.testing.postgres_server import PASSWORD, USER, PostgresServer, installed_servers
from otel_alloy.testing.tcp_proxy import Cut, TcpProxy

if TYPE_CHECKING:
    from conftest import Servers

COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"
SHORT = 0.7


@pytest.fixture
def url(servers: Servers, tmp_path: Any) -> str:
    """An empty checkpoint on the oldest server."""
    return servers.storage("postgres oldest", tmp_path)


def batch(number: int) -> Settlement:
    """A settlement of which each part shows if it is written twice."""
    return Settlement(
        Progress(high=number),
        known={(str(number), "m"): number},
        counted={"separate": 1},
        rejected=[RejectedRecord("s", "traces", "r", "ended", f'{{"n":{number}}}')],
        filtered={(number * 60_000, "rule"): 1},
        outbox={"acme": [Entry(b"x", None, number, str(number), "ended", "{}")]},
    )


def assert_written_once(store: SqlStore, batches: int) -> None:
    assert store.counted("s") == {"separate": batches}
    assert store.filtered("s", 0, 2**50) == {"rule": batches}
    assert store.outbox.backlogs()["acme"].executions == batches
    assert len(store.database.read("SELECT first FROM known")) == batches
    assert len(store.rejected()) == batches


@contextmanager
def through(url: str, cut: Callable[[], Cut | None]) -> Iterator[tuple[SqlStore, TcpProxy]]:
    """A store whose connections go through a proxy."""
    port = int(url.rpartition(":")[2].partition("/")[0])
    with TcpProxy(port, COMMIT, cut) as proxy:
        there = url.replace(f":{port}/", f":{proxy.port}/")
        with closing(SqlStore(PostgresDatabase(there, patience=SHORT))) as store:
            store.load("s", "f")
            yield store, proxy


@pytest.mark.parametrize("engine", ["postgres oldest", "postgres newest", "pgbouncer"])
@pytest.mark.parametrize("how", ["before", "after"])
def test_a_commit_whose_answer_is_lost_is_asked_for(
    servers: Servers, tmp_path: Any, engine: str, how: Cut
) -> None:
    """Cut before the COMMIT gets there, the transaction is done again; cut after it, it is not:
    either way it is written once, and gives what it gave."""
    cuts: list[Cut] = []
    url = servers.storage(engine, tmp_path)
    with through(url, lambda: cuts.pop() if cuts else None) as (store, _):
        store.settle("s", batch(1))
        for number in (2, 3):
            cuts.append(how)
            assert store.settle("s", batch(number)) == 1
            assert not cuts
            assert_written_once(store, number)
        assert store.outbox.sent([Sent("acme", [1], 1)], 5) == 0


def test_a_commit_that_is_still_under_way_is_waited_for(url: str) -> None:
    """The COMMIT is neither lost nor there: as long as the server has the transaction open, nobody
    can tell; it is not taken for lost, and when it gets there it is not written twice."""
    cuts: list[Cut] = []
    with through(url, lambda: cuts.pop() if cuts else None) as (store, proxy):
        cuts.append("held")
        with ThreadPoolExecutor(1) as pool:
            settling = pool.submit(store.settle, "s", batch(1))
            looking = psycopg.connect(parse_postgres(url).url, autocommit=True)
            with closing(looking):
                while not looking.execute(  # until somebody waits for the lock
                    "SELECT 1 FROM pg_locks WHERE NOT granted"
                ).fetchone():
                    pass
            assert not settling.done()
            proxy.release()
            assert settling.result(60) == 1
        assert_written_once(store, 1)


def test_a_commit_nobody_can_tell_of_yet_is_asked_for_later(url: str) -> None:
    """The server cannot be reached after the COMMIT: that is a retry, and the same call, made
    again, finds that it was written, and gives what it gave. Another call between does not
    disturb that."""
    cuts: list[Cut] = []
    with through(url, lambda: cuts.pop() if cuts else None) as (store, proxy):

        def cut() -> Cut | None:
            proxy.refuse = True
            return "after"

        proxy._cut = cut
        settlement = batch(1)
        with pytest.raises(CheckpointUnwritable):
            store.settle("s", settlement)
        with pytest.raises(CheckpointUnwritable):
            store.settle("s", settlement)
        proxy.refuse = False
        proxy._cut = lambda: None
        assert store.set_high("other", 5) is None  # type: ignore[func-returns-value]
        assert store.settle("s", settlement) == 1
        assert_written_once(store, 1)
        store.settle("s", batch(2))
        assert_written_once(store, 2)


def test_whatever_is_cut_everything_is_written_once(url: str) -> None:
    """Several writers, every third COMMIT cut one way or the other."""
    chance = random.Random(19)
    whole: list[Cut | None] = ["before", "after", None, None, None, None]
    with through(url, lambda: chance.choice(whole)) as (store, _):

        def settle_until_done(number: int) -> int:
            settlement = batch(number)
            while True:
                try:
                    return store.settle("s", settlement)
                except CheckpointUnwritable:
                    pass

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(settle_until_done, range(1, 41))) == [1] * 40
        assert_written_once(store, 40)


def test_a_server_that_says_nothing_is_given_up(url: str) -> None:
    """An open connection on which nothing comes: told as a retry in bounded time; afterwards it
    goes on."""
    with through(url, lambda: None) as (store, proxy):
        proxy.freeze(True)
        with pytest.raises(CheckpointUnwritable):
            store.settle("s", batch(1))
        proxy.freeze(False)
        proxy.cut_all()
        store.settle("s", batch(1))
        assert_written_once(store, 1)


def test_a_restart_of_the_server_goes_unnoticed(servers: Servers) -> None:
    """Connections that a restart has ended are exchanged for new ones, in reading and writing."""
    programs = servers.server().programs
    with (
        PostgresServer(programs) as server,
        closing(SqlStore(PostgresDatabase(server.url, patience=2))) as store,
    ):
        store.load("s", "f")
        together = threading.Barrier(8)
        for number in (1, 2, 3):
            with ThreadPoolExecutor(8) as pool:  # so that there are many connections to lose
                every = [lambda db: together.wait()] * 8
                list(pool.map(store.database.transact, every))
            store.settle("s", batch(number))
            server.kill()
            server.start()
            if number == 2:
                assert store.sources()["s"].high == 2
        assert_written_once(store, 3)
        server.kill()
        with pytest.raises(CheckpointUnwritable, match="start the server"):
            store.settle("s", batch(4))
        server.start()
        store.settle("s", batch(4))
        assert_written_once(store, 4)


# Who may write ----------------------------------------------------------------------------------


def test_a_fence_stops_the_whole_transaction(url: str) -> None:
    """Each transaction that settles asks for each of its units, in itself: what the fence wrote is
    undone with it."""
    asked: list[str] = []

    class LeaseLost(AlloyReceiverError):
        pass

    def fence(db: Connection, unit: str) -> None:
        asked.append(unit)
        db.execute("UPDATE source SET high=99 WHERE name=?", ("s",))
        if len(asked) > 2:
            raise LeaseLost("lost")

    with closing(SqlStore(PostgresDatabase(url, fence=fence))) as store:
        store.load("s", "f")
        store.settle("s", batch(1))
        (packet,) = store.outbox.take("acme", 10**9, 10)
        sent = [Sent("acme", [packet.number], 1)]
        store.outbox.sent(sent, 1)
        with pytest.raises(LeaseLost):
            store.settle("s", batch(2))
        assert asked == [source_unit("s"), destination_unit("acme"), source_unit("s")]
        assert store.counted("s") == {"separate": 1}
        with pytest.raises(LeaseLost):
            store.write_learned("s", "page_size", 1)
        assert store.learned("s") == {}


# Versions ---------------------------------------------------------------------------------------

NOW = migrations()
NEXT = NOW[-1].version + 1
COMPATIBLE = Migration(NEXT, NOW[-1].version, "ALTER TABLE source ADD COLUMN note text")
BREAKING = Migration(NEXT + 1, NEXT + 1, "ALTER TABLE source DROP COLUMN note")


def test_two_versions_run_side_by_side(url: str) -> None:
    """A newer program adds to the tables what older ones can do without: those that run go on, and
    new ones start. What older ones cannot do without ends them, with words, before they write."""
    with closing(SqlStore(PostgresDatabase(url))) as old:
        old.load("s", "f")
        old.settle("s", batch(1))
        newer = PostgresDatabase(url, known=[*NOW, COMPATIBLE])
        with closing(SqlStore(newer)) as new:
            assert newer.read("SELECT note FROM source") == [(None,)]
            new.settle("s", batch(2))
            old.settle("s", batch(3))
            with closing(open_store(url)) as another:
                another.settle("s", batch(4))
            assert_written_once(new, 4)
        PostgresDatabase(url, known=[*NOW, COMPATIBLE, BREAKING]).close()
        with pytest.raises(CheckpointError, match=f"from version {NEXT + 1} on"):
            old.settle("s", batch(5))
        assert_written_once(old, 4)
    with pytest.raises(CheckpointError, match=rf"schema version {NEXT + 1}.*use the otel-alloy"):
        open_store(url)


def test_many_that_start_at_once_make_the_tables_once(url: str) -> None:
    """A Deployment starts its replicas together."""
    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(open_store, [url] * 6))
    for number, store in enumerate(stores):
        store.load(f"s{number}", "f")
    assert len(stores[0].sources()) == 6
    for store in stores:
        store.close()


def test_a_migration_that_fails_leaves_nothing(url: str) -> None:
    """All or nothing: the next program that knows better begins where the last whole one ended."""
    broken = Migration(NEXT, 1, "ALTER TABLE source ADD COLUMN note text; SELECT 1/0")
    with pytest.raises(CheckpointError):
        PostgresDatabase(url, known=[*NOW, broken])
    assert not store_exists(url)
    PostgresDatabase(url, known=[*NOW, COMPATIBLE]).close()
    assert store_exists(url)


# Errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("53100", "make room"),
        ("53200", "more memory"),
        ("25006", "name the primary"),
        ("55P03", "pg_stat_activity"),
        ("40001", "tried again"),
        ("57014", "statement_timeout"),
    ],
)
def test_what_passes_is_waited_out(url: str, code: str, remedy: str) -> None:
    """A full disk, a standby, no memory, others in the way: a retry that says what to do, nothing
    written; afterwards the same settlement goes in."""
    with closing(SqlStore(PostgresDatabase(url))) as store:
        store.load("s", "f")
        failing(url, code)
        with pytest.raises(CheckpointUnwritable, match=remedy) as caught:
            store.settle("s", batch(1))
        assert code in str(caught.value) and PASSWORD not in str(caught.value)
        assert store.counted("s") == {}
        failing(url, None)
        store.settle("s", batch(1))
        assert_written_once(store, 1)


def failing(url: str, code: str | None) -> None:
    """From now on the server fails with this code when `known` is written; None: no more."""
    where = parse_postgres(url)
    with psycopg.connect(where.url, autocommit=True) as db:
        db.execute(f"SET search_path TO {where.schema}".encode())
        db.execute("DROP TRIGGER IF EXISTS failing ON known")
        if code is not None:
            db.execute(
                "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$"
                f" BEGIN RAISE EXCEPTION 'as the test says' USING ERRCODE='{code}'; END $$".encode()
            )
            db.execute(
                "CREATE TRIGGER failing BEFORE INSERT ON known FOR EACH ROW EXECUTE FUNCTION fail()"
            )


def test_others_in_the_way_are_no_error(url: str) -> None:
    """Two that set the same record aside at once, in opposite orders: a deadlock or a key that is
    there already; both come through, and each record is kept once."""
    records = [RejectedRecord("s", "traces", "r", "ended", f"{n}") for n in range(30)]
    stores = [SqlStore(PostgresDatabase(url)) for _ in range(2)]
    stores[0].add({"a": "f", "b": "f"})
    settlements = [Settlement(Progress(), rejected=r) for r in (records, records[::-1])]
    with ThreadPoolExecutor(2) as pool:
        new = pool.map(lambda n, s: s.settle("ab"[n], settlements[n]), (0, 1), stores)
        assert sum(new) == 30
    assert len(stores[0].rejected()) == 30
    for store in stores:
        store.close()


def test_a_place_that_is_none(servers: Servers) -> None:
    """Nobody listens, no such database, a wrong password, too many connections: each is told with
    its place and its remedy, never with the password."""
    server = servers.server()
    wrong = server.url.replace(PASSWORD, "canary-2")
    with psycopg.connect(server.url) as db:
        limit = db.execute("SHOW max_connections").fetchone()
    assert limit is not None
    for url, words in (
        (server.url.replace(f":{server.port}/", ":1/"), "start the server"),
        (server.url.rpartition("/")[0] + "/none", "create the database"),
        (wrong, "pg_hba.conf"),
        (f"{server.url}?schema=Not-One", "lower case letters"),
        (f"{server.url}?colour=blue", "libpq"),
        (server.url.replace("canary", "can@ry"), "%-escapes"),
    ):
        for act in (open_store, store_exists):
            with pytest.raises(CheckpointError, match=words) as caught:
                act(url)
            for secret in ("canary", "can@ry", "of-postgres"):
                assert secret not in f"{caught.value} {caught.value!r}"
    settings = Settings(api_key="key", storage=server.url)  # type: ignore[call-arg]
    assert PASSWORD not in repr(parse_postgres(server.url)) + repr(settings) + str(settings)
    assert PASSWORD not in str(resource(settings, "p")) and PASSWORD not in place_of(
        settings.storage
    )


def test_too_many_connections(servers: Servers) -> None:
    """The server has no place for one more: a retry that names max_connections."""
    settings = {"max_connections": "4", "superuser_reserved_connections": "0"}
    settings["max_wal_senders"] = "0"
    programs = servers.server().programs
    with PostgresServer(programs, settings) as server:
        database = PostgresDatabase(server.url, patience=SHORT)
        with closing(SqlStore(database)) as store:
            others = [psycopg.connect(server.url) for _ in range(4)]
            with pytest.raises(CheckpointUnwritable, match="max_connections"):
                store.load("s", "f")
            for other in others:
                other.close()
            store.load("s", "f")


def test_passwords_come_from_where_libpq_looks(servers: Servers, tmp_path: Any) -> None:
    """PGPASSWORD, and a service file with everything in it; tested as a program gets them."""
    server = servers.server()
    service = tmp_path / "service.conf"
    service.write_text(
        f"[alloy]\nhost=127.0.0.1\nport={server.port}\nuser={USER}\ndbname=postgres\n"
        f"password={PASSWORD}\n"
    )
    code = (
        "import sys\nfrom otel_alloy.checkpoint.store import store_exists\n"
        "print(store_exists(sys.argv[1]))\n"
    )
    for url, environment in (
        (server.url.replace(f":{PASSWORD}", ""), {"PGPASSWORD": PASSWORD}),
        ("postgresql:///?service=alloy", {"PGSERVICEFILE": str(service)}),
    ):
        url += "&schema=none" if "?" in url else "?schema=none"
        done = subprocess.run(
            [sys.executable, "-c", code, url], env=environment, capture_output=True, text=True
        )
        assert done.stdout == "False\n", done.stderr


def test_without_the_extra_it_is_said() -> None:
    """psycopg is imported only where it is needed; where it is missing, that is a mistake in the
    configuration, with what to install."""
    code = (
        "import sys\nsys.modules['psycopg'] = None\n"
        "from otel_alloy.checkpoint.store import open_store\nopen_store('postgresql://h/d')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ConfigurationError" in done.stderr and "extra `postgres`" in done.stderr
    assert installed_servers(), "nothing here was tested"
