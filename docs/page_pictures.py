"""Takes the pictures of the health endpoint's page, for `docs/screenshots.py`.

The page is the real one, in a real browser (Chromium, which has to be installed). What it shows is
an hour of the simulator's traffic, whose names are invented, told to it minute by minute with a
clock of our own. The pictures are reduced to a few colours, as there are no more.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from otel_alloy.alloy.models import read_notification
from otel_alloy.alloy.timestamps import to_ms
from otel_alloy.errors import Throttled
from otel_alloy.links import TraceUrl
from otel_alloy.mapping.convert import Converter, Execution, Role
from otel_alloy.observability.health import HealthServer
from otel_alloy.observability.page import Page
from otel_alloy.observability.recent import Recent
from otel_alloy.observability.status import Status
from otel_alloy.pipeline import events
from otel_alloy.runtime import system_runtime
from otel_alloy.testing.simulator import Record, Traffic, generate

COLORS = 48


@dataclass(frozen=True, slots=True)
class Look:
    """A picture of the page's upper part on a screen of so many CSS pixels."""

    width: int
    height: int
    scheme: str = "light"


LOOKS = {
    "page": Look(1000, 1780),
    "page-dark": Look(1000, 1060, "dark"),
    "page-narrow": Look(360, 780),
}


def take(names: list[str], folder: Path) -> None:
    """Writes the pictures of these names. Raises SystemExit where there is no Chromium."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        raise SystemExit("the pictures of the page need Chromium: apt-get install chromium")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with served() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=arguments)
        for name in names:
            look = LOOKS[name]
            page = browser.new_page(
                viewport={"width": look.width, "height": look.height},
                color_scheme="dark" if look.scheme == "dark" else "light",
                device_scale_factor=2 if look.width < 500 else 1,
            )
            page.goto(url)
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            path = folder / f"{name}.png"
            picture.quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)
            print(path)
        browser.close()


@contextmanager
def served() -> Iterator[str]:
    """Where the page is served, after an hour of traffic that ends now."""
    now = time.time()
    clock = [now - 3600]
    runtime = replace(system_runtime(), clock=lambda: clock[0], monotonic=lambda: clock[0])
    status = Status(["production", "staging"], max_lag=900, runtime=runtime)
    recent = Recent(runtime)
    converter = Converter()
    minutes: list[list[Record]] = [[] for _ in range(60)]
    for record in generate(2400, start=now - 3700, end=now, traffic=Traffic(error_rate=0.03)):
        minute = int((to_ms(str(record["createdAt"])) or 0) / 1000 - (now - 3600)) // 60
        if minute in range(60):
            if minute in range(20, 26) and "Stripe" in record["forgeWorkflow"]["name"]:
                record["message"] = record["message"].replace("Finished", "Error")
            minutes[minute].append(record)
    for minute, records in enumerate(minutes):
        clock[0] = now - 3600 + 60 * (minute + 1)
        for event in _cycle("production", records, converter, int(clock[0] * 1000)):
            status(event)
            recent(event)
    for event in _cycle("staging", [], converter, int(clock[0] * 1000)):
        status(event)
    clock[0] += 4
    refused = Throttled("the budget is spent")
    status(events.RequestRetried("staging", refused, 2, 20.0))
    link = TraceUrl.parse("http://localhost:16686/trace/{trace_id}").link
    page = Page(status.view, recent.look, runtime.clock, link)
    server = HealthServer("127.0.0.1:0", status, page)
    try:
        yield server.url
    finally:
        server.close()


def _cycle(
    source: str, records: list[Record], converter: Converter, now: int
) -> Iterator[events.CycleBegan | events.Settled | events.CycleEnded]:
    """What a receiver tells of a cycle that brought these records."""
    ended = [
        Execution(read_notification(json.dumps(record)), Role.ENDED)
        for record in sorted(records, key=lambda record: str(record["createdAt"]))
        if record["message"] in ("executionFinished", "executionError")
    ]
    yield events.CycleBegan(source, "c", now - 60_000, now - 60_000, now)
    yield events.Settled(
        source=source,
        counts=events.Counts(received=len(records), executions=len(ended)),
        position=events.Position(high=now, start=0, before=now, last=True, now=now, open=3),
        glance=lambda newest, since: converter.glance(ended, newest, since),
    )
    yield events.CycleEnded(source, "c", now, now, 30.0)
