"""What `run` costs while nothing happens: requests in an hour of the API's clock.

The default interval of 30 s is 120 cycles, which are run one after the other while the simulated
clock is moved on. The hour begins after the backlog is read.
"""

from __future__ import annotations

import tempfile

from otel_alloy.checkpoint.store import open_store
from otel_alloy.pipeline.factory import Factory
from otel_alloy.pipeline.poller import Poller
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.models import Settings
from otel_alloy.testing.otlp_endpoint import OtlpEndpoint
from otel_alloy.testing.simulator import Simulator, Traffic, iso, timeline

START = 1_760_000_000.0
INTERVAL, HOUR = 30, 3600


def requests(*, per_hour: int, open_executions: int) -> tuple[int, int]:
    """Requests and delivered spans of one hour, in which so many executions happen and so many
    others are under way all the time."""
    now = START
    with (
        Simulator(clock=lambda: now) as alloy,
        OtlpEndpoint() as otlp,
        tempfile.TemporaryDirectory() as folder,
    ):
        alloy.store.feed(timeline(200, start=START - 1800, end=START - 600, traffic=Traffic()))
        if per_hour:
            alloy.store.feed(
                timeline(per_hour, start=START, end=START + HOUR, traffic=Traffic(seed=2))
            )
        settings = Settings.model_validate(
            {
                "api_key": "bench",
                "endpoint": alloy.endpoint,
                "storage": f"sqlite:///{folder}/checkpoint.db",
                "requests_per_minute": 0,
                "enrich": "off",
                "collection_interval": INTERVAL,
                "environment": {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp.http_endpoint},
            }
        )
        for number in range(open_executions):
            created = iso(round((START - 300) * 1000))
            alloy.store.add(
                {
                    "_id": f"open-{number}",
                    "message": "executionStarted",
                    "data": {"executionId": f"open-{number}"},
                    "startedAt": created,
                    "createdAt": created,
                }
            )
        store = open_store(settings.storage)
        factory = Factory(settings, system_runtime())
        poller = Poller(factory, settings.sources[0], store, lambda event: None)
        poller.cycle()
        before, spans = len(alloy.requests), otlp.span_count
        for _ in range(HOUR // INTERVAL):
            now += INTERVAL
            poller.cycle()
        found = len(alloy.requests) - before, otlp.span_count - spans
        poller.close()
        store.close()
        return found


def main() -> None:
    """Prints a line per case."""
    for words, per_hour, open_executions in (
        ("nothing happens", 0, 0),
        ("nothing happens, 20 executions are under way", 0, 20),
        ("60 executions happen", 60, 0),
        ("3,600 executions happen", 3600, 0),
    ):
        sent, spans = requests(per_hour=per_hour, open_executions=open_executions)
        print(f"{words}: {sent} requests an hour, {spans} spans")


if __name__ == "__main__":
    main()
