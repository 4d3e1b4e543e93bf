"""What completeness costs: requests of the audit, bytes that are kept, time until late records
are found.

All by the API's clock, which is moved on cycle by cycle; requests are real ones. The default ages
are 10 minutes, an hour and a day; so that all three are due within the hour that is measured, the
loaded cases take 10, 20 and 30 minutes, which cost the same.
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from otel_alloy.checkpoint.sqlite import SqliteStore
from otel_alloy.checkpoint.store import Progress, Settlement, open_store
from otel_alloy.pipeline.factory import Factory
from otel_alloy.pipeline.poller import Poller
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.models import Settings
from otel_alloy.testing.otlp_endpoint import OtlpEndpoint
from otel_alloy.testing.simulator import Simulator, Traffic, generate, timeline

START = 1_760_000_000.0
INTERVAL, HOUR = 30, 3600
SOON = "10m,20m,30m"


class Bench:
    """A poller of a simulated Alloy whose clock moves by an interval with each cycle."""

    def __init__(self, folder: str, alloy: Simulator, otlp: OtlpEndpoint, **more: Any) -> None:
        values: dict[str, Any] = {
            "api_key": "bench",
            "endpoint": alloy.endpoint,
            "storage": f"sqlite:///{folder}/checkpoint.db",
            "requests_per_minute": 0,
            "enrich": "off",
            "environment": {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp.http_endpoint},
        }
        settings = Settings.model_validate(values | more)
        self.store = open_store(settings.storage)
        factory = Factory(settings, system_runtime())
        self.poller = Poller(factory, settings.sources[0], self.store, lambda event: None)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *error: object) -> None:
        self.poller.close()
        self.store.close()


def requests(per_hour: int, page: int, ages: str) -> int:
    """Requests in the second hour, in which so many executions happen."""
    now = START
    with (
        Simulator(clock=lambda: now) as alloy,
        OtlpEndpoint() as otlp,
        tempfile.TemporaryDirectory() as folder,
    ):
        alloy.configure(max_limit=page)
        if per_hour:
            alloy.store.feed(
                timeline(2 * per_hour, start=START, end=START + 2 * HOUR, traffic=Traffic())
            )
        with Bench(folder, alloy, otlp, audit=ages) as bench:
            before = 0
            for cycle in range(2 * HOUR // INTERVAL):
                if cycle == HOUR // INTERVAL:
                    before = len(alloy.requests)
                now += INTERVAL
                bench.poller.cycle()
            return len(alloy.requests) - before


def late(minutes: int) -> float:
    """Minutes from when a record became visible, so long after its createdAt, to its delivery."""
    now = START
    with (
        Simulator(clock=lambda: now) as alloy,
        OtlpEndpoint() as otlp,
        tempfile.TemporaryDirectory() as folder,
        Bench(folder, alloy, otlp) as bench,
    ):
        bench.poller.cycle()
        traffic = Traffic(lifecycle="terminal", seed=5)
        (record,) = generate(1, start=START + 60, end=START + 120, traffic=traffic)
        seen = START + 120 + minutes * 60
        alloy.store.add(record, visible_at=seen)
        alloy.store.feed(timeline(2000, start=START, end=START + 26 * HOUR, traffic=Traffic()))
        wanted = record["data"]["executionId"].encode()
        while not any(wanted in span.SerializeToString() for span in otlp.spans()):
            now += INTERVAL
            bench.poller.cycle()
        return (now - seen) / 60


def megabytes(executions: int) -> float:
    """The size of a checkpoint that knows so many executions, each with a start and an end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.db"
        with closing(SqliteStore(path)) as store:
            store.load("default", "print")
            for batch in range(executions // 1000):
                names = range(batch * 1000, batch * 1000 + 1000)
                known = {(f"{n:024x}", m): n for n in names for m in ("executionStarted", "end")}
                spans = [f"{n:024x}" for n in names]
                store.settle("default", Settlement(Progress(high=batch), known=known, spans=spans))
        return path.stat().st_size / 1e6


def main() -> None:
    """Prints a line per figure."""
    for page in (30, 100):
        for words, per_hour in (("nothing happens", 0), ("10,000 executions", 10_000)):
            off, on = (requests(per_hour, page, ages) for ages in ("off", SOON))
            print(
                f"page {page:3}, {words}: {off} requests an hour, with the audit {on}", flush=True
            )
    for minutes in (5, 40, 600):
        print(
            f"visible {minutes} min late: delivered {late(minutes):.1f} min after that", flush=True
        )
    million = megabytes(1_000_000)
    print(f"a million executions known: {million:.1f} MB; a day at 10,000 an hour: "
          f"{million * 0.24:.1f} MB")  # fmt: skip


if __name__ == "__main__":
    main()
