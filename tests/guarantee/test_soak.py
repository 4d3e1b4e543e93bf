"""Hours of live traffic in simulated time, with faults and outages: flat memory, flat file."""

from __future__ import annotations

import gc
import logging
import random
import tracemalloc
from collections import deque
from itertools import takewhile
from pathlib import Path

import pytest

from otel_alloy.settings.models import Settings
from otel_alloy.testing.simulator import Traffic, live

from .scale import scaled
from .world import OVERLAP, START, World, span_key

KEY = "canary-key-7731"
HOURS = scaled(1, 24)
INTERVAL = 30
QUARTER = 900
API_AWAY, ENDPOINT_AWAY = (600, 1200), (1800, 2400)


def test_hours_of_traffic(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two executions a second with late records, faults at both ends, a restart every 20 minutes
    and a ten-minute outage of either end: all is delivered with one copy of each record's bytes,
    memory and file stay flat, and the lag is back to normal within two cycles of an outage."""
    caplog.set_level(logging.DEBUG)
    chance = random.Random(5)
    world = World(tmp_path, api_key=KEY, page_size=100, requests_per_minute=60)
    until = (START + HOURS * 3600) * 1000
    traffic = Traffic(late=0.05, late_by=OVERLAP - 5, created_at_grid=50, never_ends=0.001)
    source = live(start=START, rate=scaled(2, 2), traffic=traffic)
    world.log.feed(takewhile(lambda e: e.started < until, source))
    sizes: list[int] = []
    memory: list[int] = []
    tracemalloc.start()
    try:
        end = START + HOURS * 3600
        next_sample, next_restart = START + QUARTER, START + 1200
        while world.clock.now < end:
            begun = world.clock.now
            passed = begun - START
            if API_AWAY[0] <= passed < API_AWAY[1]:
                world.api_away_until = START + API_AWAY[1]
            if ENDPOINT_AWAY[0] <= passed < ENDPOINT_AWAY[1]:
                world.end_away_until = START + ENDPOINT_AWAY[1]
            if not world.faults and chance.random() < 0.2:
                world.faults = deque(chance.choices(["unavailable", "shape", None], k=3))
            if not world.traces.script and chance.random() < 0.2:
                world.traces.script = deque(chance.choices(["busy", "lost", "ok"], k=2))
            world.cycle()
            calm = [
                passed < first or passed > last + 120 for first, last in (API_AWAY, ENDPOINT_AWAY)
            ]
            if passed > 120 and all(calm):
                assert world.poller is not None
                high = world.poller.tracker.state.progress.high or 0
                assert world.now - high < (3 * INTERVAL + OVERLAP) * 1000, "the lag stays"
            world.clock.wait(max(0.0, INTERVAL - (world.clock.now - begun)))
            if world.clock.now >= next_restart:
                next_restart += 1200
                world.restart()
            if world.clock.now >= next_sample:
                next_sample += QUARTER
                world.check()
                # The test's own notes grow; only what the process holds counts.
                gc.collect()
                taken = tracemalloc.take_snapshot().filter_traces(
                    [tracemalloc.Filter(True, "*/otel_alloy/[!t]*")]
                )
                memory.append(sum(s.size for s in taken.statistics("filename")))
                sizes.append(sum(f.stat().st_size for f in tmp_path.iterdir()))
    finally:
        tracemalloc.stop()
    world.quiesce()
    world.check()
    ended = [r for r in world.log.records() if r["message"] != "executionStarted"]
    missing = [r for r in ended if span_key(r["data"]["executionUuid"]) not in world.taken]
    assert not missing
    assert len(ended) > 6000 * HOURS
    # What executions have in common is kept until it is too much; then that begins anew.
    assert memory[-1] < 1.5 * max(memory[: max(1, len(memory) // 2)]) + 2_000_000, memory
    assert sizes[-1] < 1.5 * max(sizes[: max(1, len(sizes) // 2)]) + 200_000, sizes
    secrets = KEY.encode()
    assert not any(secrets in file.read_bytes() for file in tmp_path.iterdir())
    assert KEY not in caplog.text
    world.close()


def test_no_secret_in_any_words() -> None:
    """Neither `repr` nor the words of a mistake hold a key or a header."""
    settings = Settings.model_validate(
        {
            "api_key": KEY,
            "privacy_key": KEY,
            "environment": {"OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer {KEY}"},
        }
    )
    assert KEY not in repr(settings) and KEY not in str(settings)
    assert KEY not in repr(settings.sources[0])
    with pytest.raises(ValueError) as caught:
        Settings.model_validate({"api_key": f"{KEY} {KEY}", "page_size": KEY})
    assert KEY not in str(caught.value)
