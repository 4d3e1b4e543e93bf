"""Takes the pictures of Jaeger: `python docs/jaeger_picture.py --ui FOLDER`.

A real Jaeger shows one real trace: an execution that failed, its blocks, and the spans of a
customer's service that the execution called. Alloy alone is simulated; its names are invented.

`FOLDER` holds Jaeger's web pages, built from their public source as that says (with `index.html` in
it): they are not part of the program that `make servers` builds. The browser is Chromium, found on
PATH. The pictures are `docs/images/jaeger-light.png` and `jaeger-dark.png`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import httpx
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Tracer
from playwright.sync_api import FloatRect, sync_playwright

from otel_alloy.http_server import Handler, Server
from otel_alloy.propagation.propagator import AlloyPropagator
from otel_alloy.testing.simulator import Config, Simulator, Traffic, live

REPOSITORY = Path(__file__).parents[1]
IMAGES = Path(__file__).with_name("images")
COMMAND = Path(sys.executable).with_name("otel-alloy")
BUILD = REPOSITORY / "tests/e2e/servers/build.py"

WIDTH, HEIGHT = 1280, 720
WITHIN = 180.0
"""Seconds until there is a trace that is worth a picture."""
LONGEST = 5_000_000
"""Microseconds: in a longer trace the customer's service would not be seen."""
_pause = Event().wait


def main() -> None:
    """Takes both pictures. Raises SystemExit where a part is missing, with what brings it."""
    parser = argparse.ArgumentParser(description="Takes the pictures of Jaeger.")
    parser.add_argument("--ui", type=Path, required=True, metavar="FOLDER")
    ui: Path = parser.parse_args().ui.resolve()
    if not (ui / "index.html").is_file():
        raise SystemExit(f"{ui} has no index.html: --ui names Jaeger's web pages as built")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("no Chromium on PATH; Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as temporary, _jaeger(ui, Path(temporary)) as (otlp, pages):
        with _orders(otlp) as url:
            trace = _a_failure(otlp, pages, url, Path(temporary))
        for path in _taken(f"{pages}/trace/{trace}", chromium):
            print(path)


@contextmanager
def _jaeger(ui: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """A Jaeger that shows these pages: base URLs of its OTLP receiver and of the pages."""
    told = [sys.executable, str(BUILD), "--where", "jaeger"]
    where = subprocess.run(told, stdout=subprocess.PIPE, text=True)
    if where.returncode:
        raise SystemExit("no Jaeger here: `make servers` builds it")
    program = where.stdout.strip().partition("\t")[2]
    grpc, http, query, query_grpc, health = (_free_port() for _ in range(5))
    settings = folder / "config-ui.json"
    settings.write_text('{"themes": {"enabled": true}, "monitor": {"menuEnabled": false}}')
    environment = {
        "PATH": os.environ["PATH"],
        "JAEGER_OTLP_ENDPOINT": f"127.0.0.1:{grpc}",
        "JAEGER_QUERY_ENDPOINT": f"127.0.0.1:{query}",
        "JAEGER_QUERY_GRPC_ENDPOINT": f"127.0.0.1:{query_grpc}",
        "JAEGER_HEALTH_ENDPOINT": f"127.0.0.1:{health}",
        "JAEGER_STORAGE": str(folder / "jaeger"),
        "JAEGER_UI_CONFIG": str(settings),
    }
    overlays = (
        f"yaml:receivers::otlp::protocols::http::endpoint: 127.0.0.1:{http}",
        f"yaml:extensions::jaeger_query::ui::assets_path: {ui}",
    )
    configurations = (REPOSITORY / "collector-config/jaeger/config.yaml", *overlays)
    words = [program, *(f"--config={configuration}" for configuration in configurations)]
    with (folder / "jaeger.log").open("wb") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    try:
        pages = f"http://127.0.0.1:{query}"
        _wait_until(lambda: _answers(f"http://127.0.0.1:{health}/status"), "Jaeger does not start")
        yield f"http://127.0.0.1:{http}", pages
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    server = Server(("127.0.0.1", 0), Handler, None)
    port = int(server.url.rpartition(":")[2])
    server.server_close()
    return port


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _wait_until(holds: Callable[[], bool], otherwise: str, within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"{otherwise} within {within:g} s")
        _pause(0.5)


class _Orders(Handler):
    """The customer's service: what it does takes as long as it would with a database."""

    server: Server[Tracer]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        tracer, context = self.server.owner, AlloyPropagator(sampled=True).extract(headers)
        with tracer.start_as_current_span("POST /orders", context, SpanKind.SERVER):
            with tracer.start_as_current_span("INSERT orders", kind=SpanKind.CLIENT):
                _pause(0.12)
            with tracer.start_as_current_span("reserve stock"):
                _pause(0.2)
        self.send_response(204)


@contextmanager
def _orders(otlp: str) -> Iterator[str]:
    provider = TracerProvider(resource=Resource({"service.name": "orders"}))
    exporter = OTLPSpanExporter(endpoint=f"{otlp}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=200))
    server = Server(("127.0.0.1", 0), _Orders, provider.get_tracer("orders"))
    server.start("orders")
    try:
        yield f"{server.url}/orders"
    finally:
        server.stop()
        provider.shutdown()


def _a_failure(otlp: str, pages: str, orders: str, folder: Path) -> str:
    """The trace id of an execution that failed after some blocks and a call of the service."""
    with Simulator(Config(custom_api_url=orders)) as alloy:
        traffic = Traffic(error_rate=0.5, users=5)
        alloy.store.feed(live(start=time.time(), rate=1, traffic=traffic, calls=True))
        environment = {
            "PATH": os.environ["PATH"],
            "ALLOY_API_KEY": "any",
            "ALLOY_ENDPOINT": alloy.endpoint,
            "OTEL_ALLOY_STORAGE": f"sqlite:///{folder}/checkpoint.db",
            "OTEL_ALLOY_HEALTH_ENDPOINT": "",
            "OTEL_ALLOY_COLLECTION_INTERVAL": "2s",
            "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
            "OTEL_LOGS_EXPORTER": "none",
        }
        receiver = subprocess.Popen([COMMAND, "run"], env=environment, stderr=subprocess.DEVNULL)
        found: list[str] = []
        try:
            _wait_until(lambda: bool(_told(pages, found)), "no failure as looked for", WITHIN)
        finally:
            receiver.terminate()
            receiver.wait()
    return found[0]


def _told(pages: str, found: list[str]) -> list[str]:
    asked: dict[str, str] = {"service": "runalloy", "tags": '{"error":"true"}', "limit": "100"}
    traces: list[dict[str, Any]] = httpx.get(
        f"{pages}/api/traces", params=asked, trust_env=False
    ).json()["data"]
    found += [trace["traceID"] for trace in traces or [] if _worth_a_picture(trace)]
    return found


def _worth_a_picture(trace: dict[str, Any]) -> bool:
    services = {process["serviceName"] for process in trace["processes"].values()}
    return (
        services == {"runalloy", "orders"}
        and len(trace["spans"]) >= 8  # an execution, four blocks, three of the service
        and 1_500_000 < max(span["duration"] for span in trace["spans"]) < LONGEST
    )


def _taken(url: str, chromium: str) -> Iterator[Path]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for theme in ("light", "dark"):
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.add_init_script(f"localStorage.setItem('jaeger-ui-theme', '{theme}')")
            page.goto(url, wait_until="networkidle")
            last = page.locator(".span-row").last.bounding_box()
            if last is None:
                raise SystemExit(f"Jaeger shows no span at {url}")
            path = IMAGES / f"jaeger-{theme}.png"
            below = last["y"] + last["height"]
            clip: FloatRect = {"x": 0, "y": 0, "width": WIDTH, "height": below}
            page.screenshot(path=path, animations="disabled", clip=clip)
            page.close()
            yield path
        browser.close()


if __name__ == "__main__":
    main()
