"""What reading costs Alloy, and how long an execution waits: requests and records a minute.

A virtual hour passes in seconds: time moves when somebody waits, and by 100 ms with each request.
Executions end at random moments, each one record, which is visible at once. All settings are the
defaults but for what the table says. The first ten virtual minutes are not counted. A rate is
sustained where the lag at the end is no longer than in the middle. Arguments: `--minutes`.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

from otel_alloy.alloy.models import Page, read_page
from otel_alloy.alloy.query import Query
from otel_alloy.checkpoint.store import open_store
from otel_alloy.errors import RequestRefused
from otel_alloy.pipeline.events import Settled
from otel_alloy.pipeline.factory import Factory
from otel_alloy.pipeline.poller import Poller
from otel_alloy.runtime import Runtime, spawn_thread
from otel_alloy.settings.models import Settings
from otel_alloy.testing.otlp_endpoint import OtlpEndpoint
from otel_alloy.testing.otlp_endpoint import Received as Arrived
from otel_alloy.testing.simulator import Config, LogStore, iso

START = 1_760_000_000.0
WARM_UP = 600.0
REQUEST_SECONDS = 0.1


class Clock:
    """Time that moves when somebody waits."""

    def __init__(self) -> None:
        self.now = START
        self._lock = threading.Lock()

    def wait(self, seconds: float) -> bool:
        """Moves on; nobody asks for the end."""
        with self._lock:
            self.now += max(0.0, seconds)
        return False

    def runtime(self) -> Runtime:
        """A runtime of this time."""
        return Runtime(
            clock=lambda: self.now,
            monotonic=lambda: self.now,
            wait=self.wait,
            stopping=lambda: False,
            random=random.Random(1).random,
            spawn=spawn_thread,
            stop=lambda: None,
        )


class Api:
    """Alloy without a socket."""

    def __init__(self, log: LogStore, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self.requests = 0
        self.records = 0

    def fetch(self, query: Query) -> Page:
        """Answers as the simulator does."""
        self._clock.wait(REQUEST_SECONDS)
        page = read_page(self._log.query(query.parameters()).body)
        page.server_date = int(self._clock.now * 1000)
        self.requests += 1
        self.records += page.received
        return page

    def get(self, path: str, parameters: Mapping[str, str]) -> bytes:
        """Nothing else is answered."""
        raise RequestRefused("404")

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Cost:
    """What an hour came to. Latencies in seconds."""

    requests: float = 0.0
    received: float = 0.0
    fresh: float = 0.0
    latencies: list[float] = field(default_factory=list)
    middle: float = 0.0
    end: float = 0.0

    def at(self, quantile: float) -> float:
        """A quantile of the latencies."""
        ordered = sorted(self.latencies) or [0.0]
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]

    @property
    def sustained(self) -> bool:
        """Whether it kept up."""
        return self.end <= 1.5 * self.middle + 30


def endings(rate: float, minutes: float) -> Iterator[tuple[dict[str, Any], float]]:
    """Executions that end so often (a second), one record each, with the moment of each."""
    chance = random.Random(7)
    for number in range(int(rate * minutes * 60)):
        moment = START + chance.uniform(0, minutes * 60)
        ended = round(moment * 1000)
        record: dict[str, Any] = {
            "_id": f"{number:024x}",
            "message": "executionFinished",
            "data": {"executionId": f"{number:024x}", "executionUuid": f"e{number}"},
            "startedAt": iso(ended - 400),
            "completedAt": iso(ended),
            "createdAt": iso(ended),
        }
        yield record, moment


def measure(rate: float, minutes: float, config: Config, **values: object) -> Cost:
    """One source with these settings, at so many executions a second."""
    clock, cost = Clock(), Cost()
    log = LogStore(config, clock=lambda: clock.now)
    for record, moment in endings(rate, minutes):
        log.add(record, visible_at=moment)
    api = Api(log, clock)
    counting = False

    def arrived(arrived: Arrived) -> None:
        if arrived.signal == "logs" and counting:
            for item in arrived.items():
                created = getattr(item.record, "observed_time_unix_nano", 0) / 1e9
                cost.latencies.append(clock.now - created)

    def observe(event: object) -> None:
        if isinstance(event, Settled) and counting:
            cost.fresh += event.counts.received - event.counts.repeated

    with ExitStack() as stack:
        otlp = stack.enter_context(OtlpEndpoint(arrived, store=False))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        settings = Settings.model_validate(
            {
                "api_key": "bench",
                "enrich": "off",
                "storage": f"sqlite:///{folder}/checkpoint.db",
                "initial_lookback": 1,
                "environment": {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp.http_endpoint},
                **values,
            }
        )
        store = stack.enter_context(closing(open_store(settings.storage)))
        factory = Factory(settings, clock.runtime(), client=lambda source, runtime: api)
        poller = stack.enter_context(closing(Poller(factory, settings.sources[0], store, observe)))
        requests = records = 0
        while clock.now < START + minutes * 60:
            if not counting and clock.now > START + WARM_UP:
                counting, requests, records = True, api.requests, api.records
            begun = clock.now
            poller.cycle()
            lag = clock.now - (poller.tracker.state.progress.high or 0) / 1000
            if clock.now < START + (WARM_UP + minutes * 60) / 2:
                cost.middle = lag
            cost.end = lag
            clock.wait(poller.interval - (clock.now - begun))
        counted = (clock.now - START - WARM_UP) / 60
        cost.requests = (api.requests - requests) / counted
        cost.received = (api.records - records) / counted
        cost.fresh /= counted
    return cost


def row(rate: float, limit: int, words: str, cost: Cost) -> str:
    """A line of the table."""
    again = cost.received / cost.fresh if cost.fresh else 0.0
    quantiles = " / ".join(f"{cost.at(q):.1f}" for q in (0.5, 0.95, 0.99))
    kept = "yes" if cost.sustained else "no"
    return (
        f"| {rate:g} | {limit} | {words} | {cost.requests:.0f} | {cost.received:,.0f} "
        f"| {again:.2f} | {quantiles} | {kept} |"
    )


def main() -> None:
    """Prints a line per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    minutes = parser.parse_args().minutes
    print(
        "| a second | page | settings | requests a minute | records a minute | readings a record"
        " | p50 / p95 / p99 s | keeps up |"
    )
    print("|---|---|---|---|---|---|---|---|")
    one_second: dict[str, Any] = {"collection_interval": 1}
    unlimited: dict[str, Any] = {"requests_per_minute": 0}
    cases: list[tuple[float, int, str, Config, dict[str, Any]]] = [
        (1, 100, "default", Config(max_limit=100), {}),
        (20, 100, "default", Config(max_limit=100), {}),
        (20, 100, "1 s", Config(max_limit=100), one_second),
        (20, 30, "default", Config(max_limit=30), {}),
        (25, 30, "default", Config(max_limit=30), {}),
        (90, 100, "default", Config(max_limit=100), {}),
        (200, 100, "no limit", Config(max_limit=100), unlimited),
        (20, 100, "no counts", Config(max_limit=100, total_items="missing"), {}),
    ]
    for rate, limit, words, config, values in cases:
        cost = measure(rate, minutes, config, **values)
        print(row(rate, limit, words, cost), flush=True)


if __name__ == "__main__":
    main()
