"""What replicas ask of the database while nothing happens: statements and transactions a second.

Three replicas as processes share 100 sources, each with a key of its own; settings are the default
ones but for the health port. Alloy has no records (`empty_alloy.py`). What PostgreSQL counts
(`pg_stat_statements`, `pg_stat_database`) is looked at twice, `--seconds` apart, once all sources
have an owner and have been read. Arguments: `--sources`, `--replicas`, `--seconds`.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

from sources import TICKS, Alloy

from otel_alloy.testing.postgres_server import PostgresServer, installed_servers
from otel_alloy.testing.replicas import Replicas, until

_WAL = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"
_COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname=current_database()"
_CALLS = "SELECT calls || ' ' || regexp_replace(query, '\\s+', ' ', 'g') FROM pg_stat_statements"


def cpu_of(processes: list[int]) -> float:
    """CPU seconds that these and their children that have ended have taken."""
    total = 0
    for process in processes:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15]))
    return total / TICKS


def family(parent: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [parent, *map(int, children)]


def calls(server: PostgresServer) -> Counter[str]:
    """How often each statement was executed."""
    found: Counter[str] = Counter()
    for line in server.ask(_CALLS).splitlines():
        number, _, query = line.partition(" ")
        # Slots and numbers are written into the text: what differs in these alone is the same.
        found[re.sub(r"'[0-9a-f.-]+', \d+", "'…', …", query)] += int(number)
    return found


def main() -> None:
    """Prints what was counted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sources", type=int, default=100)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=90.0)
    options = parser.parse_args()
    programs = next(iter(installed_servers().values()))  # Debian's has what counts statements
    settings = {"shared_preload_libraries": "pg_stat_statements"}
    with (
        PostgresServer(programs, settings) as server,
        Alloy() as alloy,
        tempfile.TemporaryDirectory() as folder,
    ):
        server.ask("CREATE EXTENSION pg_stat_statements")
        replicas = Replicas(
            Path(folder),
            server.url,
            {
                "endpoint": alloy.endpoint,
                "health_endpoint": "",
                "sources": [
                    {"name": f"s{n}", "api_key": f"bench-{n}", "workflow_id": f"{n:024x}"}
                    for n in range(options.sources)
                ],
            },
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        )
        try:
            for _ in range(options.replicas):
                replicas.start()
            until(lambda: replicas.spread(options.sources), 120, "an even spread")
            until(
                lambda: len({work for _, work in alloy.requests() if work}) == options.sources,
                120,
                "a first request of each",
            )
            time.sleep(60)  # what is done at first is done
            mine = [one.process.pid for one in replicas.running]
            before = calls(server)
            commits, wal = int(server.ask(_COMMITS)), float(server.ask(_WAL))
            asked, begun = len(alloy.requests()), time.monotonic()
            spent, served = cpu_of(mine), cpu_of(family(server.pid))
            time.sleep(options.seconds)
            took = time.monotonic() - begun
            spent, served = cpu_of(mine) - spent, cpu_of(family(server.pid)) - served
            asked = len(alloy.requests()) - asked
            commits, wal = int(server.ask(_COMMITS)) - commits, float(server.ask(_WAL)) - wal
            more = calls(server) - before
        finally:
            replicas.close()
    print(
        f"{options.replicas} replicas, {options.sources} sources: {sum(more.values()) / took:.1f} "
        f"statements/s, {commits / took:.1f} transactions/s, {wal / took / 1000:.1f} kB of WAL/s; "
        f"{asked / took:.2f} requests/s to Alloy; CPU: replicas {spent / took:.2%} of a core "
        f"together, PostgreSQL {served / took:.2%}; load {os.getloadavg()[0]:.1f}"
    )
    for query, number in more.most_common(20):
        print(f"  {number / took:6.2f}/s  {query[:110]}")


if __name__ == "__main__":
    main()
