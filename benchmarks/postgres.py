"""What settling costs on PostgreSQL: statements, round trips, bytes of WAL and CPU time, for each
batch of 1,000 executions, beside SQLite.

    python benchmarks/postgres.py

The server is real, with fsync, in a folder of its own. A batch holds what `run` settles: half of
its executions began in it, half ended what was open before; the other rows are those of the last
two minutes that leave the overlap. Round trips are counted by the server's log.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass

import psycopg

from otel_alloy.checkpoint.outbox import Entry
from otel_alloy.checkpoint.store import Open, Progress, Seen, Settlement, Store, open_store
from otel_alloy.testing.postgres_server import PgBouncer, PostgresServer, installed_servers

EXECUTIONS = 1_000
RECORD = '{"_id":"%s","message":"executionFinished","filler":"' + "x" * 900 + '"}'
_STATEMENT = re.compile(r"LOG:  (?:statement|execute <unnamed>): (.*)")


@dataclass
class Cost:
    """Of one batch: seconds of the wall clock and of this process's CPU."""

    wall: float
    cpu: float


def settle(store: Store, batches: int, first: int, *, outbox: bool) -> Cost:
    """Settles so many batches, after as many that only fill the tables."""
    memory = store.load("s", "f")
    wall = cpu = 0.0
    for batch in range(first, first + batches):
        made = Settlement(Progress(begin=1, high=batch * EXECUTIONS), at=batch)
        for n in range(EXECUTIONS):
            execution, created = f"{batch:08x}{n:016x}", batch * EXECUTIONS + n
            record = (execution, "executionFinished")
            memory.remember(made, record, Seen(created, execution))
            made.known[record] = created
            made.spans.append(execution)
            if n % 2:
                memory.opened(made, execution, Open(RECORD % execution, created, 60_000))
                earlier = f"{batch - 1:08x}{n:016x}"
                if memory.started(earlier) is not None:
                    memory.closed(made, earlier)
        memory.forget(made, (batch - 1) * EXECUTIONS)
        made.forget_known_before = max(0, (batch - 20) * EXECUTIONS)
        if outbox:
            made.outbox["acme"] = [
                Entry(b"s" * 400, b"l" * 400, n, f"{n}", "ended", RECORD % n)
                for n in range(EXECUTIONS)
            ]
        begun, used = time.perf_counter(), time.process_time()
        store.settle("s", made)
        wall, cpu = wall + time.perf_counter() - begun, cpu + time.process_time() - used
        memory.settled(made)
    return Cost(wall / batches, cpu / batches)


def position(url: str) -> int:
    """Bytes of WAL since ever."""
    with psycopg.connect(url) as db:
        row = db.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    return int(row[0])


def show(name: str, cost: Cost, more: str = "") -> None:
    """One line."""
    print(
        f"{name:<28} {cost.wall * 1000:7.1f} ms  {cost.cpu * 1000:6.1f} ms CPU a batch = "
        f"{cost.cpu / EXECUTIONS * 1e6:5.1f} µs an execution{more}"
    )


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=int, default=40)
    batches = parser.parse_args().batches
    for outbox in (False, True):
        print("with an outbox:" if outbox else "one destination, no outbox:")
        with (
            tempfile.TemporaryDirectory() as folder,
            closing(open_store(f"sqlite:///{folder}/c.db")) as store,
        ):
            settle(store, 3, 1, outbox=outbox)
            show("SQLite", settle(store, batches, 4, outbox=outbox))
        for major, programs in installed_servers().items():
            with PostgresServer(programs, {"fsync": "on", "log_statement": "all"}) as server:
                with closing(open_store(server.url)) as store:
                    settle(store, 3, 1, outbox=outbox)
                    begun = position(server.url)
                    server.log.clear()
                    cost = settle(store, batches, 4, outbox=outbox)
                    written = (position(server.url) - begun) // batches
                trips, statements = counted("".join(server.log), batches)
                more = f"  {trips:.0f} round trips, {statements:.0f} statements, {written:,} B WAL"
                show(f"PostgreSQL {major}", cost, more)
                with (
                    PgBouncer(server) as pooler,
                    closing(open_store(f"{pooler.url}?schema=pooled")) as store,
                ):
                    settle(store, 3, 1, outbox=outbox)
                    show("  through PgBouncer", settle(store, batches, 4, outbox=outbox))


def counted(log: str, batches: int) -> tuple[float, float]:
    """Messages that were answered, and statements, for each batch; from the last of them that the
    log still holds."""
    whole = log.split("COMMIT\n")[1:-1]
    last = whole[-min(len(whole), batches) :]
    trips = statements = 0
    for transaction in last:
        found = _STATEMENT.split(transaction)[1:]
        trips += len(found) // 2 + 1  # and its COMMIT
        statements += transaction.count("SET LOCAL") + transaction.count("BEGIN;") * 2 + 1
        statements += len(found) // 2 - 1
    return trips / len(last), statements / len(last)


if __name__ == "__main__":
    main()
