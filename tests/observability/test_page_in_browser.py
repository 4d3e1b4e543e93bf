"""The page in a real browser: Chromium, headless, driven by Playwright.

It has to be there (Debian: `apt-get install chromium`); Playwright brings its driver and downloads
nothing here. Where there is no Chromium, these tests are skipped;
`OTEL_ALLOY_TEST_BROWSER=required`, as in the gate, makes that a failure.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from otel_alloy.http_server import Handler, Server
from otel_alloy.links import TraceUrl
from otel_alloy.observability.conditions import Failing, SourceView, View
from otel_alloy.observability.health import HealthServer
from otel_alloy.observability.page import Page
from otel_alloy.observability.recent import Last, Lately
from otel_alloy.observability.status import Status
from otel_alloy.runtime import system_runtime

if TYPE_CHECKING:
    from conftest import Place
    from playwright.sync_api import Browser, BrowserContext
    from playwright.sync_api import Page as Tab

pytestmark = pytest.mark.e2e

NOW = 1_760_000_000.0
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_MS = 120_000
"""For a browser that starts on a busy machine."""
FOREIGN = "rebound.example"
"""A name that the browser finds at 127.0.0.1, as a web site can make it with its DNS."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium for all tests of this module."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        if os.environ.get("OTEL_ALLOY_TEST_BROWSER") == "required":
            pytest.fail("Chromium is not there")
        pytest.skip("Chromium is not installed")
    from playwright.sync_api import sync_playwright

    arguments = [f"--host-resolver-rules=MAP {FOREIGN} 127.0.0.1"]
    if os.geteuid() == 0:  # in a container, which is a sandbox itself
        arguments.append("--no-sandbox")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=found, args=arguments, timeout=PATIENCE_MS
        )
        yield started
        started.close()


@contextmanager
def tab(browser: Browser, **options: Any) -> Iterator[Tab]:
    """A tab in a profile of its own."""
    context: BrowserContext = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    try:
        yield context.new_page()
    finally:
        context.close()


WELL = SourceView("production", True, True, complete=True, resting=True, lag=3.0, open=2, success=1)
LONG = "A workflow whose name is " + "long" * 40
DESTINATION = {"waiting": 9, "oldest_seconds": 99.0, "to_be_read_again": 1200, "reason": "x"}
BUSY = View(
    ready=False,
    live=True,
    leases_failing=True,
    sources=[
        WELL,
        replace(WELL, name="n" * 90, ready=False, stopped="AccessRefused"),
        replace(WELL, name="staging", failing=(Failing("traces", "retry", 3, 9.0, False),)),
        replace(WELL, name="elsewhere", elsewhere=True, owner="replica-b"),
    ],
    leases={
        "replica": "replica-a",
        "held": [{"unit": "source production", "owner": "replica-a"}],
        "unowned": ["source staging"],
    },
    destinations={
        "number": 7,
        "states": {"ok": 5, "failing": 1, "paused": 1},
        "waiting": 18,
        "to_be_read_again": 2400,
        "not_shown": 0,
        "shown": [
            {"name": "acme", "state": "failing", **DESTINATION},
            {"name": "d" * 90, "state": "paused", **DESTINATION},
        ],
    },
)
LATELY = Lately(
    NOW - 1200,
    [*[None] * 40, *range(20)],
    [*[None] * 40, *[n % 3 for n in range(20)]],
    12.5,
    300.0,
    [(("orders", "w-1"), 12, 0), (("orders", "w-2"), 3, 4), ((LONG, "w-3"), 1, 9)],
    5,
    [
        Last("production", "orders", "success", int(NOW * 1e9), 1.5, b"\x01" * 16, b"\x02" * 8),
        Last("staging", LONG, "error", int(NOW * 1e9), 150.0, b"\x03" * 16, b"\x04" * 8),
        Last("n" * 90, "bills", "incomplete", int(NOW * 1e9), 0.0, b"\x05" * 16, b"\x06" * 8),
    ],
)
"""A page on which everything is that can be: all levels, links, charts, long names."""


@pytest.fixture
def busy() -> Iterator[str]:
    """Where that page is served."""
    link = TraceUrl.parse("http://traces.example/trace/{trace_id}").link
    page = Page(lambda: BUSY, lambda: LATELY, lambda: NOW, link)
    status = Status(["production"], max_lag=900, runtime=system_runtime())
    server = HealthServer("127.0.0.1:0", status, page)
    try:
        yield server.url
    finally:
        server.close()


def test_the_page_of_a_running_receiver(place: Place, browser: Browser) -> None:
    """Without JavaScript the page of `otel-alloy run` shows what Alloy has and the endpoint got:
    the executions with links to their traces, failures by workflow, one of which has a hostile
    name. It asks for nothing but itself, and has no user, no id of one and no key in it."""
    name = "<img src='http://evil.example/x'><script>document.title = 'hacked'</script>"
    records = place.fill(60, days=0.02, error_rate=0.3)
    hostile = copy.deepcopy(next(r for r in records if r["message"] == "executionError"))
    hostile |= {"_id": "hostile", "data": {"executionId": "hostile", "executionUuid": "hostile"}}
    hostile["forgeWorkflow"]["name"] = name
    place.alloy.store.add(hostile)
    records.append(hostile)
    process = place.start(
        *("run", "--since", "1h", "--log-format", "json"),
        *("--trace-url", "http://traces.example/trace/{trace_id}"),
        OTEL_ALLOY_HEALTH_ENDPOINT="127.0.0.1:0",
    )
    assert process.stderr is not None
    message = json.loads(process.stderr.readline())["message"]
    url = message.removeprefix("health: ").partition(" ")[0]
    assert place.otlp.wait_for(lambda otlp: otlp.span_count >= 61, 60)
    with tab(browser, java_script_enabled=False) as here:
        asked: list[str] = []
        said: list[str] = []
        here.on("request", lambda request: asked.append(request.url))
        here.on("console", lambda line: said.append(line.text))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:  # until what was acknowledged is settled, too
            here.goto(url)
            if here.locator("tbody tr").count() > 25 and here.title().startswith("Ready"):
                break
        assert here.title() == "Ready · otel-alloy"
        table = here.get_by_role("table", name=re.compile("newest end first"))
        links = table.get_by_role("link")
        assert links.count() == 25
        spans = {item.record.trace_id.hex() for item in place.otlp.items("traces")}
        for link in links.all():
            trace = link.inner_text()
            assert trace in spans
            assert link.get_attribute("href") == f"http://traces.example/trace/{trace}"
        failures = here.get_by_role("table", name=re.compile("by workflow"))
        shown = {
            row.get_by_role("rowheader").inner_text(): row.get_by_role("cell").first.inner_text()
            for row in failures.get_by_role("row").all()[1:]
        }
        ended = Counter(
            r["forgeWorkflow"]["name"] for r in records if r["message"] == "executionError"
        )
        assert shown.pop(name) == str(ended.pop(name))
        assert shown == {workflow: str(number) for workflow, number in ended.items()}
        with urllib.request.urlopen(f"{url}status") as answer:
            last = json.load(answer)["executions"]["last"]
        assert [one["trace_url"] for one in last] == [a.get_attribute("href") for a in links.all()]
        text = here.content() + json.dumps(last)
        assert here.locator("img, script, iframe, object").count() == 0
        assert set(asked) == {url} and not said
    process.terminate()
    assert place.end(process).code == 0
    for record in records:
        for secret in (record["user"]["email"], record["user"]["fullName"], record["userId"]):
            assert secret not in text
    assert place.environment["ALLOY_API_KEY"] not in text


CONTRAST = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = channels(color).slice(0, 3).map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const color = getComputedStyle(one).backgroundColor;
      const alpha = channels(color)[3];
      if (alpha === undefined || alpha === 1) return color;
      if (alpha !== 0) throw new Error("half transparent: " + one.outerHTML);
    }
    throw new Error("no background");
  };
  const ratio = (one, other) => {
    const [dark, bright] = [light(one), light(other)].sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const words = walk.currentNode.textContent.trim();
    if (!words) continue;
    const style = getComputedStyle(walk.currentNode.parentElement);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const is = ratio(style.color, behind(walk.currentNode.parentElement));
    found.push({what: words.slice(0, 40), ratio: is, needs: large ? 3 : 4.5});
  }
  for (const drawn of document.querySelectorAll("rect.bar, rect.ground")) {
    const is = ratio(getComputedStyle(drawn).fill, behind(drawn));
    found.push({what: drawn.outerHTML, ratio: is, needs: 3});
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(browser: Browser, busy: str, scheme: str) -> None:
    """In light and in dark every text and every bar stands out from what is behind it, as WCAG's
    level AA wants; dark is dark."""
    with tab(browser, color_scheme=scheme) as here:
        here.goto(busy)
        found = here.evaluate(CONTRAST)
        assert len(found) > 100
        assert not [one for one in found if one["ratio"] < one["needs"]]
        paper = here.evaluate("getComputedStyle(document.body).backgroundColor")
        brightest = max(map(int, re.findall(r"\d+", paper)[:3]))
        assert (brightest < 64) == (scheme == "dark")


FOCUS = """() => {
  const one = document.activeElement;
  const style = getComputedStyle(one);
  const box = one.getBoundingClientRect();
  return {
    tag: one.tagName, name: one.getAttribute("aria-label") || one.innerText,
    href: one.getAttribute("href"), outline: style.outlineStyle + " " + style.outlineColor,
    width: parseFloat(style.outlineWidth),
    seen: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
  };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_keyboard(browser: Browser, busy: str, scheme: str) -> None:
    """The tab key goes through all links and all tables that scroll, in their order, each in view
    and with an outline that is seen; the first one stops the refreshing, with Enter."""
    with tab(browser, color_scheme=scheme, viewport={"width": 360, "height": 640}) as here:
        here.goto(busy)
        wanted = here.locator("a, [tabindex]").evaluate_all(
            "all => all.map(one => one.getAttribute('aria-label') || one.innerText)"
        )
        reached = []
        for _ in wanted:
            here.keyboard.press("Tab")
            focus = here.evaluate(FOCUS)
            assert focus["width"] >= 2 and focus["outline"].startswith("solid"), focus
            assert focus["seen"], focus
            reached.append(focus["name"])
        assert reached == wanted and len(wanted) == 5 + 5 + 3
        here.goto(busy)
        here.keyboard.press("Tab")
        here.keyboard.press("Enter")
        here.wait_for_url(f"{busy}/?refresh=off")
        here.keyboard.press("Tab")
        assert here.evaluate(FOCUS)["href"] == "/"


def test_narrow(browser: Browser, busy: str) -> None:
    """On a screen of 360 pixels, and with text twice as large, the page is not wider than the
    screen, whatever names hold; tables scroll within themselves, and the heads of a source's row
    and its state are seen without."""
    width = "[document.scrollingElement.scrollWidth, innerWidth]"
    with tab(browser, viewport={"width": 360, "height": 740}) as here:
        here.goto(busy)
        assert here.evaluate(width) == [360, 360]
        first = here.locator("tbody tr").first
        box = first.locator("td").first.bounding_box()
        assert box is not None and box["x"] + box["width"] <= 360
        scroller = here.locator(".scroll").first
        assert scroller.evaluate("one => one.scrollWidth > one.clientWidth")
        assert scroller.evaluate("one => { one.scrollLeft = 50; return one.scrollLeft; }") == 50
    with tab(browser, viewport={"width": 360, "height": 740}) as here:
        session = here.context.new_cdp_session(here)
        session.send("Emulation.setDeviceMetricsOverride", metrics(180))
        here.goto(busy)
        assert here.evaluate("document.scrollingElement.scrollWidth") <= 360


def metrics(width: int) -> dict[str, Any]:
    """A screen of so many CSS pixels, as a zoomed one has them."""
    return {"width": width, "height": 740, "deviceScaleFactor": 2, "mobile": False}


def test_as_a_screen_reader_has_it(browser: Browser, busy: str) -> None:
    """What assistive technology is told: landmarks, headings, tables with names and heads, charts
    with words."""
    with tab(browser) as here:
        here.goto(busy)
        assert here.get_by_role("main").count() == here.get_by_role("banner").count() == 1
        assert here.get_by_role("navigation", name="This page").count() == 1
        assert here.get_by_role("heading", level=1).inner_text() == "Not ready"
        titles = here.get_by_role("heading", level=2).all_inner_texts()
        assert titles == [
            *("Sources", "Throughput", "Failures of the last hour", "Last executions"),
            *("Destinations", "Replicas"),
        ]
        for title in titles:
            assert here.get_by_role("region", name=title, exact=True).count() == 1
        tables = here.get_by_role("table")
        assert tables.count() == 5
        for table in tables.all():
            rows = table.get_by_role("row").count()
            assert table.get_by_role("columnheader").count() >= 3
            assert table.get_by_role("rowheader").count() == rows - 1 >= 1
        assert here.get_by_role("img").count() == 2
        assert here.get_by_role("img", name=re.compile("^Failures by minute: 19 in")).count() == 1


class _Framer(Handler):
    server: Server[str]

    def do_GET(self) -> None:
        """A page of somebody else with ours in a frame."""
        body = f"<h1>Win a prize</h1><iframe src='{self.server.owner}/'></iframe>".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(body)


def test_in_a_frame_it_does_not_show(browser: Browser, busy: str) -> None:
    """A page of another origin that frames ours gets an error of the browser instead."""
    framer = Server(("127.0.0.1", 0), _Framer, busy)
    framer.start("framer")
    try:
        with tab(browser) as here:
            said: list[str] = []
            here.on("console", lambda line: said.append(line.text))
            here.goto(framer.url)
            here.wait_for_load_state("load")
            (frame,) = here.main_frame.child_frames
            assert "Not ready" not in frame.content()
            assert any("frame-ancestors" in line or "X-Frame-Options" in line for line in said)
    finally:
        framer.stop()


def test_a_rebound_name_shows_nothing(browser: Browser, busy: str) -> None:
    """A web site whose name leads to this machine gets no page and no status, to its script
    either."""
    port = urlsplit(busy).port
    with tab(browser) as here:
        answer = here.goto(f"http://{FOREIGN}:{port}/")
        assert answer is not None and answer.status == 421
        assert "Not ready" not in here.content()
        got = here.evaluate("fetch('/status').then(answer => answer.status, String)")
        assert got == 421 or "Failed" in str(got)
