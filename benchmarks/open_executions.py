"""What executions that never end cost: memory, a cycle with nothing due, the start, and how long a
new execution waits behind the questions for them.

A checkpoint with `--open` (200,000) open executions is opened by a process of its own, which reads
an idle Alloy. Then `--due` (10,000) others are due at once, all of them having ended in place, at
an API that answers in 2 ms, without a request limit, with an interval of a second and no rest
between cycles: a new execution appears with the first question of a cycle, and waits until the
endpoint has it. Prints a line per figure.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from otel_alloy.alloy.models import Page, read_page
from otel_alloy.alloy.query import Query
from otel_alloy.checkpoint.store import open_store
from otel_alloy.errors import RequestRefused
from otel_alloy.pipeline.factory import Factory
from otel_alloy.pipeline.poller import Poller
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.models import Settings
from otel_alloy.testing.otlp_endpoint import OtlpEndpoint, Received
from otel_alloy.testing.simulator import LogStore, Simulator, iso

CYCLES = 20
ANSWER_SECONDS = 0.002
FILLER = "x" * 700
OVERLAP_MS, DAY_MS = 120_000, 86_400_000


def settings_of(folder: str, alloy: str, otlp: str) -> Settings:
    """An interval of a second, no request limit."""
    return Settings.model_validate(
        {
            "api_key": "bench",
            "endpoint": alloy,
            "storage": f"sqlite:///{folder}/checkpoint.db",
            "requests_per_minute": 0,
            "enrich": "off",
            "collection_interval": 1,
            "environment": {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp},
        }
    )


def started(number: int, created: int) -> dict[str, object]:
    """The record of an execution that started."""
    return {
        "_id": f"s{number}",
        "message": "executionStarted",
        "data": {"executionId": f"e{number}", "executionUuid": f"u{number}"},
        "createdAt": iso(created),
        "startedAt": iso(created),
        "filler": FILLER,
    }


def fill(settings: Settings, folder: str, count: int, age: int, next_check: int) -> None:
    """Writes a checkpoint with so many open executions of an age (ms)."""
    store = open_store(settings.storage)
    source = settings.sources[0]
    store.load(source.name, source.fingerprint)
    store.close()
    now = int(time.time() * 1000)
    rows = (
        (source.name, f"e{n}", json.dumps(started(n, now - age)), now - age, next_check, None)
        for n in range(count)
    )
    with closing(sqlite3.connect(Path(folder, "checkpoint.db"))) as db:
        db.executemany("INSERT INTO open_execution VALUES (?,?,?,?,?,?)", rows)
        db.execute("UPDATE source SET high=?, begin_at=1", (now - 1000,))
        db.commit()


def resident() -> float:
    """MB that this process has in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def idle(folder: str, alloy: str, otlp: str) -> None:
    """The process that is measured: starts, and reads an idle Alloy."""
    settings = settings_of(folder, alloy, otlp)
    begun = time.perf_counter()
    store = open_store(settings.storage)
    poller = Poller(
        Factory(settings, system_runtime()), settings.sources[0], store, lambda event: None
    )
    start = time.perf_counter() - begun
    poller.cycle()
    cpu = time.process_time()
    for _ in range(CYCLES):
        poller.cycle()
    cpu = (time.process_time() - cpu) / CYCLES
    print(json.dumps({"start": start, "cpu": cpu, "resident": resident()}))


def measure_idle(count: int) -> dict[str, float]:
    """What `idle` says of itself with so many open executions."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Simulator() as alloy,
        OtlpEndpoint() as otlp,
    ):
        settings = settings_of(folder, alloy.endpoint, otlp.http_endpoint)
        fill(settings, folder, count, DAY_MS // 4, DAY_MS // 2)
        open_store(settings.storage).close()  # what is made once for an older file
        done = subprocess.run(
            [sys.executable, __file__, "--idle", folder, alloy.endpoint, otlp.http_endpoint],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        found: dict[str, float] = json.loads(done.stdout)
        return found


class InPlace:
    """An Alloy without a socket that answers in 2 ms. Each execution that it is asked for has ended
    in place, and with the first such question of a cycle a new one appears."""

    def __init__(self) -> None:
        self.appeared: dict[str, float] = {}
        self._log = LogStore(clock=time.time)
        self._ended = int(time.time() * 1000) - 2 * OVERLAP_MS
        self._asked = False

    def fetch(self, query: Query) -> Page:
        """Sends one request."""
        time.sleep(ANSWER_SECONDS)
        if query.execution_id is None:
            self._asked = False
            return read_page(self._log.query(query.parameters()).body)
        if not self._asked:
            self._asked = True
            self._appear()
        record = started(int(query.execution_id[1:]), self._ended)
        end = record | {"message": "executionFinished", "completedAt": iso(self._ended)}
        return read_page(json.dumps({"notifications": [end]}).encode())

    def _appear(self) -> None:
        name, now = f"new{len(self.appeared)}", int(time.time() * 1000)
        end = {"_id": name, "message": "executionFinished", "completedAt": iso(now)}
        self._log.add(started(-1 - len(self.appeared), now) | end)
        self.appeared[name] = time.perf_counter()

    def get(self, path: str, parameters: Mapping[str, str]) -> bytes:
        """Nothing else is answered."""
        raise RequestRefused("404")

    def close(self) -> None:
        """Nothing to close."""


def measure_waits(due: int) -> tuple[list[float], float]:
    """Seconds that new executions waited, one per cycle, while `due` others are asked for, and
    seconds until all of those were found."""
    arrived: dict[str, float] = {}

    def note(request: Received) -> None:
        for item in request.items() if request.signal == "logs" else ():
            uid = next(a for a in item.record.attributes if a.key == "log.record.uid")
            arrived.setdefault(uid.value.string_value, time.perf_counter())

    alloy = InPlace()
    with tempfile.TemporaryDirectory() as folder, OtlpEndpoint(note, store=False) as otlp:
        settings = settings_of(folder, "http://127.0.0.1:9", otlp.http_endpoint)
        fill(settings, folder, due, 2 * OVERLAP_MS, OVERLAP_MS)
        store = open_store(settings.storage)
        factory = Factory(settings, system_runtime(), client=lambda source, runtime: alloy)
        poller = Poller(factory, settings.sources[0], store, lambda event: None)
        begun = time.perf_counter()
        while not alloy.appeared or len(arrived) < due + len(alloy.appeared):
            poller.cycle()
        took = time.perf_counter() - begun
        poller.close()
        store.close()
    return sorted(arrived[name] - at for name, at in alloy.appeared.items()), took


def main() -> None:
    """Prints a line per figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--open", type=int, default=200_000)
    parser.add_argument("--due", type=int, default=10_000)
    parser.add_argument("--idle", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.idle:
        idle(*options.idle)
        return
    for count in (0, options.open):
        found = measure_idle(count)
        print(
            f"{count:,} open executions: {found['resident']:.0f} MB resident, "
            f"{found['cpu'] * 1000:.1f} ms of CPU per cycle with nothing due, "
            f"start in {found['start'] * 1000:.0f} ms",
            flush=True,
        )
    waits, took = measure_waits(options.due)
    print(
        f"{options.due:,} are asked for in {took:.1f} s: a new execution waits "
        f"{waits[len(waits) // 2] * 1000:.0f} ms (median of {len(waits)}), "
        f"at most {waits[-1] * 1000:.0f} ms"
    )


if __name__ == "__main__":
    main()
