"""How fast a backfill is where nothing but CPU limits it: threads, and processes; and its limits.

The API and the endpoint answer at once, and are on the same machine: on few cores they take from
what the workers could have. So CPU per execution and peak memory are told beside the rate. The
requests that a backfill needs more than one worker does show how much it reads beyond its slices.
Arguments: `--executions`, `--page`; `--postgres`: workers each in a process of its own, with the
checkpoint in SQLite and in a PostgreSQL on this machine, whose own CPU is told apart.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import END_MS, both_ends, measure


def once(
    alloy: str, otlp: str, storage: str, executions: int, page: int, workers: int, processes: int
) -> None:
    """Prints what one backfill in this process took."""
    from otel_alloy.pipeline.backfill import Backfill, Range
    from otel_alloy.pipeline.events import Settled
    from otel_alloy.pipeline.receiver import tune_garbage_collector
    from otel_alloy.settings.models import Settings

    logging.getLogger("otel_alloy").setLevel(logging.ERROR)
    tune_garbage_collector()
    spans = requests = 0

    def observe(event: object) -> None:
        nonlocal spans, requests
        if isinstance(event, Settled):
            spans += event.counts.spans
            requests += event.counts.requests

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_validate(
            {
                "api_key": "bench",
                "endpoint": alloy,
                "storage": storage or f"sqlite:///{folder}/checkpoint.db",
                "requests_per_minute": 0,
                "enrich": "off",
                "page_size": page,
                "adaptive": False,
                "environment": {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp},
            }
        )
        length = min(59 * 86_400_000, executions * 5_000)
        whole = Range(END_MS - length, END_MS - 120_000, "bench")
        begun = time.monotonic(), time.process_time()
        Backfill(
            settings,
            settings.sources,
            whole,
            workers=workers,
            processes=processes,
            observe=observe,
        ).run()
        checkpoint = sum(f.stat().st_size for f in Path(folder).iterdir())
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = resource.getrusage(resource.RUSAGE_SELF)
    result = {
        "spans": spans,
        "requests": requests,
        "wall": time.monotonic() - begun[0],
        "cpu": time.process_time() - begun[1] + children.ru_utime + children.ru_stime,
        "peak_mb": max(own.ru_maxrss, children.ru_maxrss) / 1024,
        "checkpoint_mb": checkpoint / 1e6,
    }
    print(json.dumps(result))


def one(ends: tuple[str, str], storage: str, options: argparse.Namespace, *many: int) -> Any:
    """What a backfill with so many workers and processes took, in a process of its own."""
    numbers = map(str, (options.executions, options.page, *many))
    return measure("backfill.py", *ends, storage, *numbers)


def main() -> None:
    """Prints a line per number of workers and processes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--executions", type=int, default=200_000)
    parser.add_argument("--page", type=int, default=1000)
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    if options.postgres:
        engines(options)
        return
    cores = os.cpu_count() or 1
    first = 0.0
    with both_ends(options.executions) as ends:
        for workers, processes in ((1, 1), (2, 1), (4, 1), (2, 2), (4, cores)):
            result = one(ends, "", options, workers, processes)
            rate = result["spans"] / result["wall"]
            first = first or rate
            print(
                f"{workers} workers in {processes} processes: {rate:6.0f} executions/s "
                f"({rate / first:.2f} of one worker), "
                f"{result['cpu'] / result['spans'] * 1e6:.1f} us each, "
                f"{result['requests']} requests, peak {result['peak_mb']:.0f} MB each, "
                f"checkpoint {result['checkpoint_mb']:.2f} MB",
                flush=True,
            )


def engines(options: argparse.Namespace) -> None:
    """Prints a line per engine and number of processes."""
    from idle_replicas import cpu_of, family

    from otel_alloy.testing.postgres_server import PostgresServer, installed_servers

    programs = list(installed_servers().values())[-1]
    with both_ends(options.executions) as ends, PostgresServer(programs, {"fsync": "on"}) as server:
        for number in (1, 2, 4):
            for engine in ("SQLite", "PostgreSQL"):
                storage = f"{server.url}?schema=backfill_{number}" * (engine != "SQLite")
                served = cpu_of(family(server.pid))
                result = one(ends, storage, options, number, number)
                served = cpu_of(family(server.pid)) - served
                spans = result["spans"]
                print(
                    f"{number} processes, {engine}: {spans / result['wall']:6.0f} executions/s, "
                    f"{result['cpu'] / spans * 1e6:.1f} us each and {served / spans * 1e6:.1f} us "
                    f"of the server, {result['requests']} requests; "
                    f"load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    if len(sys.argv) == 8:
        once(sys.argv[1], sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
    else:
        main()
