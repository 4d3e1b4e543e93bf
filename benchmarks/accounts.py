"""What accounts cost on PostgreSQL while executions come: requests, CPU, transactions, statements,
WAL, rows and bytes, by the hour (Linux only: it reads /proc).

The command, in so many replicas, with a source for each account; each account is a simulated Alloy
of its own, where executions start and end by the real clock, a record each. The server is Debian's,
with fsync. Everything is counted after the first minute, and divided by accounts, executions or
hours. Arguments: `--accounts`, `--per-hour` (executions of an account), `--seconds`, `--replicas`,
`--interval` (`collection_interval`), `--no-adaptive`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from otel_alloy.testing.otlp_endpoint import OtlpEndpoint
from otel_alloy.testing.postgres_server import PostgresServer, installed_servers
from otel_alloy.testing.simulator import Simulator, Traffic, live

TICKS = os.sysconf("SC_CLK_TCK")
WARM_UP = 60.0
PRELOAD = {"shared_preload_libraries": "pg_stat_statements", "fsync": "on"}
COUNTS = """
SELECT (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()),
 (SELECT coalesce(sum(calls), 0) FROM pg_stat_statements),
 pg_current_wal_insert_lsn() - '0/0'::pg_lsn,
 (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'otel-alloy')
"""


@dataclass
class Far:
    """`far`, below, as a process."""

    process: subprocess.Popen[str]

    def ask(self) -> list[float]:
        """Requests to Alloy so far, and requests and bytes at the OTLP endpoint."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        found: list[float] = json.loads(self.process.stdout.readline())
        return found


def far(accounts: int, per_hour: float) -> None:
    """Serves both ends; prints their addresses, then counts for each line that it is sent."""
    received = [0, 0]
    with ExitStack() as stack:

        def count(request: object) -> None:
            received[0] += 1
            received[1] += len(getattr(request, "body", b""))

        otlp = stack.enter_context(OtlpEndpoint(count, store=False))
        alloys = [stack.enter_context(Simulator()) for _ in range(accounts)]
        for number, alloy in enumerate(alloys):
            alloy.store.feed(
                live(start=time.time(), rate=per_hour / 3600, traffic=Traffic(seed=number + 1))
            )
        print(json.dumps([otlp.http_endpoint, *(alloy.endpoint for alloy in alloys)]), flush=True)
        for _ in sys.stdin:
            asked = sum(alloy.requests[-1].number for alloy in alloys if alloy.requests)
            print(json.dumps([asked, *received]), flush=True)


def cpu(pids: list[int]) -> float:
    """CPU seconds of processes and of their children, also of those that have ended."""
    total, every = 0, set(map(str, pids))
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = stat.read_text().rpartition(")")[2].split()
            if stat.parent.name in every:
                total += sum(map(int, fields[11:15]))
            elif fields[1] in every:
                total += sum(map(int, fields[11:13]))
    return total / TICKS


def command(settings: str, url: str, otlp: str, log: Path) -> subprocess.Popen[bytes]:
    """A replica."""
    return subprocess.Popen(
        [sys.executable, "-m", "otel_alloy", "run", "--config", settings],
        env={
            "PATH": os.environ.get("PATH", ""),
            "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
            "OTEL_ALLOY_STORAGE": url,
            "OTEL_ALLOY_ENRICH": "off",
            "OTEL_ALLOY_HEALTH_ENDPOINT": "",
        },
        stdin=subprocess.DEVNULL,
        stderr=log.open("wb"),
    )


def database(url: str) -> list[float]:
    """See COUNTS."""
    with psycopg.connect(url, autocommit=True) as db:
        row = db.execute(COUNTS).fetchone()
    assert row is not None
    return [float(value) for value in row]


def tables(url: str) -> str:
    """The largest tables: rows and bytes, with what belongs to them."""
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("ANALYZE")
        rows = db.execute(
            "SELECT relname, reltuples::bigint, pg_total_relation_size(oid) FROM pg_class"
            " WHERE relnamespace = 'otel_alloy'::regnamespace AND relkind = 'r'"
            " AND reltuples > 0 ORDER BY 3 DESC LIMIT 8"
        ).fetchall()
    return ", ".join(f"{name} {count} ({size / 1e6:.2f} MB)" for name, count, size in rows)


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--accounts", type=int, default=40)
    parser.add_argument("--per-hour", type=float, default=1000.0)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--interval", type=float, default=30.0)
    parser.add_argument("--no-adaptive", action="store_true")
    parser.add_argument("--far", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.far:
        far(options.accounts, options.per_hour)
        return
    programs = Path(next(iter(installed_servers().values())))
    words = [__file__, "--far", f"--accounts={options.accounts}", f"--per-hour={options.per_hour}"]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = PostgresServer(programs, PRELOAD).start()
        stack.callback(server.stop)
        with psycopg.connect(server.url, autocommit=True) as db:
            db.execute("CREATE EXTENSION pg_stat_statements")
        ends = Far(
            subprocess.Popen(
                [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
        stack.callback(ends.process.kill)
        assert ends.process.stdout is not None
        otlp, *endpoints = json.loads(ends.process.stdout.readline())
        file = folder / "settings.json"
        settings = {
            "collection_interval": options.interval,
            "adaptive": not options.no_adaptive,
            "sources": [
                {"name": f"a{n}", "api_key": f"bench-{n}", "endpoint": endpoint}
                for n, endpoint in enumerate(endpoints)
            ],
        }
        file.write_text(json.dumps(settings))  # which is YAML, too
        replicas = [
            command(str(file), server.url, otlp, folder / f"{n}.log")
            for n in range(options.replicas)
        ]
        for one in replicas:
            stack.callback(one.kill)
        time.sleep(WARM_UP)
        pids = [one.pid for one in replicas]
        postmaster = [int((server.data / "postmaster.pid").read_text().split()[0])]

        def look() -> list[float]:
            return [
                *(time.time(), cpu(pids), cpu(postmaster)),
                *database(server.url)[:3],
                *ends.ask(),
            ]

        first = look()
        most = 0.0
        end = first[0] + options.seconds
        while time.time() < end:
            most = max(most, database(server.url)[3])
            time.sleep(5.0)
        delta = [new - old for new, old in zip(look(), first, strict=True)]
        if any(one.poll() is not None for one in replicas):
            raise SystemExit((folder / "0.log").read_text())
        show(options.accounts, options.per_hour, delta, most)
        print("  " + tables(server.url))


def show(accounts: int, per_hour: float, delta: list[float], most: float) -> None:
    """The figures, from what was counted meanwhile."""
    seconds, own, theirs, commits, statements, wal, asked, exports, sent = delta
    executions = accounts * per_hour * seconds / 3600
    each = seconds / 60 * accounts
    print(
        f"{accounts} accounts, {per_hour:g} executions an hour each, {seconds:.0f} s:\n"
        f"  an account and minute: {asked / each:.1f} requests to Alloy,"
        f" {exports / each:.1f} to OTLP, {commits / each:.1f} transactions,"
        f" {statements / each:.1f} statements, {wal / each / 1000:.1f} kB WAL,"
        f" {own / each * 1000:.1f} ms CPU here, {theirs / each * 1000:.1f} ms of PostgreSQL\n"
        f"  an execution: {asked / executions:.2f} requests, {sent / executions:.0f} B of OTLP,"
        f" {wal / executions:.0f} B WAL, {own / executions * 1e6:.0f} µs CPU here,"
        f" {theirs / executions * 1e6:.0f} µs of PostgreSQL\n"
        f"  connections: at most {most:.0f}"
    )


if __name__ == "__main__":
    main()
