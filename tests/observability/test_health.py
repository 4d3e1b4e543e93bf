"""/livez, /readyz and /status over real sockets, and what they say beside metrics and log."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import io
import json
import logging
import os
import re
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from email.message import Message
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_alloy.alloy.timestamps import to_ms
from otel_alloy.errors import Unavailable
from otel_alloy.http_server import Handler, Server
from otel_alloy.observability import metrics as telemetry
from otel_alloy.observability import probe
from otel_alloy.observability.health import MOST, HealthServer
from otel_alloy.observability.logging import JsonLines, masked
from otel_alloy.observability.page import Page
from otel_alloy.observability.recent import Recent
from otel_alloy.observability.status import PATIENCE, Status
from otel_alloy.observability.systemd import Systemd
from otel_alloy.otlp.delivery import Report
from otel_alloy.otlp.outcome import Kind, Outcome
from otel_alloy.pipeline import events
from otel_alloy.pipeline.events import tell_all
from otel_alloy.pipeline.receiver import Receiver
from otel_alloy.runtime import Runtime, system_runtime
from otel_alloy.testing.otlp_endpoint import Answer
from otel_alloy.testing.simulator import Simulator, iso

if TYPE_CHECKING:
    from conftest import Place


def get(url: str, path: str) -> tuple[int, str]:
    """Status and body of one request."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def served(status: Status | None = None, endpoint: str = "127.0.0.1:0") -> HealthServer:
    """A server of `status`; None: of a source that has not begun."""
    runtime = system_runtime()
    shown = status or Status(["one"], max_lag=900, runtime=runtime)
    page = Page(shown.view, Recent(runtime).look, runtime.clock)
    return HealthServer(endpoint, shown, page)


class Running:
    """A receiver in this process, with everything that watches it."""

    def __init__(self, place: Place, **changes: Any) -> None:
        settings = place.settings(collection_interval="1s", **changes)
        names = [source.name for source in settings.sources]
        mask = masked(settings)
        runtime = system_runtime()
        self.status = Status(names, max_lag=settings.ready_max_lag, runtime=runtime, mask=mask)
        self.server = served(self.status)
        self.reader = InMemoryMetricReader()
        self.telemetry = telemetry.Telemetry([self.reader], {}, self.status, sources=names)
        self.written = io.StringIO()
        self.handler = logging.StreamHandler(self.written)
        self.handler.setFormatter(JsonLines(mask))
        self.told: list[object] = []
        self._changed = threading.Condition()
        watchers = tell_all(self.status, self.telemetry, self._note)
        self._receiver = Receiver(settings, observe=watchers)
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self._receiver.run()
        except Exception as error:
            self._note(error)

    def _note(self, event: object) -> None:
        with self._changed:
            self.told.append(event)
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[list[Any]], bool]) -> None:
        """Until `condition` holds of the events since the last `forget`."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.told), 60), self.told[-5:]

    def forget(self) -> None:
        """Begins a new list of events."""
        with self._changed:
            self.told = []

    def get(self, path: str) -> tuple[int, str]:
        """From the health port."""
        return get(self.server.url, path)

    def source(self) -> dict[str, Any]:
        """The first source as /status shows it."""
        code, text = self.get("/status")
        assert code == 200
        found: dict[str, Any] = json.loads(text)["sources"][0]
        return found

    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self.written.getvalue().splitlines()]

    def values(self, metric: telemetry.Metric) -> dict[str, float]:
        """The values of a metric by their last attribute besides the source, or ""."""
        data = self.reader.get_metrics_data()
        assert data is not None
        points: list[Any] = [
            point
            for scope in data.resource_metrics[0].scope_metrics
            for found in scope.metrics
            if found.name == metric.name
            for point in found.data.data_points
        ]
        return {
            "".join(str(v) for k, v in p.attributes.items() if k != telemetry.SOURCE): p.value
            for p in points
        }

    def __enter__(self) -> Running:
        logger = logging.getLogger("otel_alloy")
        logger.addHandler(self.handler)
        logger.setLevel(logging.INFO)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._receiver.stop()
        self._thread.join(20)
        logger = logging.getLogger("otel_alloy")
        logger.removeHandler(self.handler)
        logger.setLevel(logging.NOTSET)
        self.server.close()
        self.telemetry.close()
        assert not self._thread.is_alive()


def ended(told: list[Any]) -> bool:
    return any(isinstance(event, events.CycleEnded) for event in told)


def failed(signal: str, times: int) -> Callable[[list[Any]], bool]:
    """Whether an OTLP signal could not be delivered so often."""
    return lambda told: (
        sum(
            isinstance(e, events.ExportAttempted)
            and e.report.signal == signal
            and e.report.next_wait is not None
            for e in told
        )
        >= times
    )


def add_one(place: Place, name: str) -> None:
    at = iso(round((place.now - 1) * 1000))
    place.alloy.store.add(
        {
            "_id": name,
            "message": "executionFinished",
            "data": {"executionId": name},
            "startedAt": at,
            "completedAt": at,
            "createdAt": at,
        }
    )


def test_one_story(place: Place) -> None:
    """The collector goes away and comes back: /readyz, /status, the metrics and the log say the
    same of it, down to the number of failed attempts."""
    records = place.fill(20, days=0.02)
    with Running(place, since="1h") as running:
        running.wait_for(ended)
        assert running.get("/livez") == (200, "live\n")
        assert running.get("/readyz") == (200, "ready\n")
        before = running.values(telemetry.SETTLED)[""]
        assert before == len(records)
        assert running.values(telemetry.LAG)[""] < 60

        place.judge = lambda received: Answer(connection="drop")
        place.now += 3600
        add_one(place, "meanwhile")
        running.forget()
        running.wait_for(failed("traces", 2))
        code, text = running.get("/readyz")
        assert code == 503
        assert "source default: the lag is 36" in text
        assert running.get("/livez")[0] == 200
        source = running.source()
        assert source["ready"] is False
        assert 3600 <= source["lag_seconds"] < 3700
        assert source["last_error"]["stage"] in ("traces", "logs")
        assert any(words.startswith("traces: ") for words in source["waits_for"])
        assert 3600 <= running.values(telemetry.LAG)[""] < 3700
        assert running.values(telemetry.RECEIVED)[""] > running.values(telemetry.SETTLED)[""]
        assert running.values(telemetry.SETTLED)[""] == before
        failing = running.values(telemetry.FAILING)
        assert failing["traces"] >= 2
        assert (failing["alloy"], failing["checkpoint"]) == (0, 0)

        place.judge = lambda received: None
        running.forget()
        running.wait_for(ended)
        assert running.get("/readyz") == (200, "ready\n")
        assert running.source()["lag_seconds"] < 60
        waits = running.source()["waits_for"]  # none, if the next cycle has begun meanwhile
        assert all(words.startswith("the next cycle") for words in waits)
        assert running.values(telemetry.LAG)[""] < 60
        assert set(running.values(telemetry.FAILING).values()) == {0}
        assert running.values(telemetry.SETTLED)[""] == before + 1
        for _ in range(20):  # a cycle may be between what it received and what it settled
            received = running.values(telemetry.RECEIVED)[""]
            repeated = running.values(telemetry.REPEATED)[""]
            if received == before + 1 + repeated:
                break
            running.forget()
            running.wait_for(ended)
        assert received == before + 1 + repeated
        retries = running.values(telemetry.RETRIES)
        lines = running.lines()
    place.assert_exactly_once([*place.ended(records), "meanwhile"])
    for name in ("traces", "logs"):
        told = [line for line in lines if name in line["message"]]
        assert [line["level"] for line in told] == ["WARNING", "INFO"], told
        assert "cannot deliver" in told[0]["message"]
        words = f"{name} are delivered again, after {retries[name]} failed attempts"
        assert told[1]["message"] == f"source default: {words}"
        assert told[0]["cycle"] == told[1]["cycle"] != ""
        assert told[0]["source"] == "default"


def test_records_that_alloy_does_not_give(place: Place) -> None:
    """Alloy counts ten records that no request brings: the source is not ready and says their
    number and place, in /readyz, /status, metric and log (one line at ERROR, later ones folded),
    and the checkpoint stays before them. When they are given, all is read and all of it is over."""
    records = place.fill(50, days=0.02)
    moments = sorted(to_ms(r["createdAt"]) or 0 for r in records)
    hidden = moments[40], moments[50]
    missing = sum(hidden[0] <= moment < hidden[1] for moment in moments)
    place.alloy.configure(hidden=hidden)
    with Running(place, since="1h") as running:
        running.wait_for(
            lambda told: sum(isinstance(event, events.Unreached) for event in told) >= 2
        )
        code, text = running.get("/readyz")
        assert code == 503
        assert "source default: records: Alloy has 10 records created between" in text
        (count,) = {e.count for e in running.told if isinstance(e, events.Unreached)}
        assert count is not None and count >= missing
        assert running.source()["unreachable"]["records"] == count
        assert running.source()["lag_seconds"] is None or running.source()["lag_seconds"] > 60
        assert running.values(telemetry.UNREACHABLE)[""] == count
        assert running.get("/livez")[0] == 200

        place.alloy.configure(hidden=None)
        running.forget()
        running.wait_for(ended)
        assert running.get("/readyz") == (200, "ready\n")
        assert running.source()["unreachable"] is None
        assert running.values(telemetry.UNREACHABLE)[""] == 0
        words = ("no request brings", "what could not be reached is read")
        told = [line for line in running.lines() if any(w in line["message"] for w in words)]
    assert sorted(line["level"] for line in told) == ["ERROR", "INFO"], told
    place.assert_exactly_once(place.ended(records))


def test_a_misconfigured_collector(place: Place) -> None:
    """Where the OTLP endpoint refuses the credentials, /readyz says so at once, and which signal;
    the secret is in none of it."""
    place.fill(5)
    place.judge = lambda received: (
        Answer(status=401, message="token-of-canary is not known")
        if received.signal == "logs"
        else None
    )
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": place.otlp.http_endpoint,
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer token-of-canary",
    }
    with Running(place, environment=environment) as running:
        running.wait_for(failed("logs", 1))
        code, text = running.get("/readyz")
        assert code == 503
        assert "source default: logs: " in text
        assert "401" in text
        assert "traces: " not in text
        shown = text + running.get("/status")[1] + running.written.getvalue()
    assert "canary" not in shown


def test_a_refused_key(place: Place) -> None:
    """With two sources, one of which is refused: /readyz names that one and what to do, and the
    other goes on."""
    records = place.fill(5)
    place.alloy.configure(api_key="right-key")
    sources = [{"name": "good", "api_key": "right-key"}, {"name": "bad", "api_key": "canary-key"}]
    with Running(place, sources=sources, api_key="unused") as running:
        running.wait_for(
            lambda told: ended(told) and any(isinstance(e, events.SourceStopped) for e in told)
        )
        code, text = running.get("/readyz")
        assert (code, text.count("\n")) == (503, 2)
        assert "source bad: stopped: " in text
        assert "check ALLOY_API_KEY" in text
        requests = running.values(telemetry.REQUESTS)
        assert requests["401AccessRefused"] == 1
        shown = text + running.get("/status")[1] + running.written.getvalue()
        assert running.get("/livez")[0] == 200
    assert "canary" not in shown
    place.assert_exactly_once(place.ended(records))


@pytest.mark.parametrize(
    "outage", ["401", "403", "404", "redirect", "400", "html", "shape", "challenge:1"]
)
def test_a_refusal_after_good_answers_is_held(place: Place, outage: str) -> None:
    """Whatever refuses for a while what was accepted before: not ready and said at once, by health
    port, status and metric; one ERROR; the other source goes on; then one INFO, and all arrives."""
    records = place.fill(5, days=0.02)
    with Simulator(clock=lambda: place.now) as other:
        sources = [{"name": "one"}, {"name": "other", "endpoint": other.endpoint}]
        with Running(place, sources=sources, since="1h") as running:
            running.wait_for(lambda told: ended_of(told, "one") and ended_of(told, "other"))
            place.alloy.configure(outage=outage)
            running.forget()
            running.wait_for(lambda told: sum(held(event) for event in told) >= 2)
            code, text = running.get("/readyz")
            assert code == 503 and "source one: alloy: " in text and "source other" not in text
            assert running.get("/livez")[0] == 200
            assert running.source()["held"]["reason"] in text
            assert {g.source: g.held for g in running.status.gauges()} == {"one": 1, "other": 0}
            place.now += 1
            add_one(place, "meanwhile")
            running.forget()
            running.wait_for(lambda told: ended_of(told, "other"))

            place.alloy.configure(outage=None)
            running.forget()
            running.wait_for(lambda told: ended_of(told, "one"))
            running.forget()
            running.wait_for(lambda told: ended_of(told, "one"))
            assert running.get("/readyz") == (200, "ready\n")
            assert running.source()["held"] is None
            assert set(running.values(telemetry.HELD).values()) == {0}
            told = [line for line in running.lines() if line["source"] == "one"]
        said = [line["level"] for line in told if "held" in line["message"]]
        assert said[0] == "ERROR" and set(said[1:]) <= {"WARNING"}, told
        again = [line for line in told if "answers again" in line["message"]]
        assert [line["level"] for line in again] == ["INFO"]
    place.assert_exactly_once([*place.ended(records), "meanwhile"])


def held(event: object) -> bool:
    return isinstance(event, events.RequestRetried) and event.held


def ended_of(told: list[Any], source: str) -> bool:
    return any(isinstance(e, events.CycleEnded) and e.source == source for e in told)


def test_before_the_first_cycle() -> None:
    """Nothing is ready before a cycle is complete; what is not there is 404, and a wrong method
    refused; HEAD answers like GET, without a body."""
    server = served()
    try:
        assert get(server.url, "/readyz") == (
            503,
            "not ready\nsource one: the first cycle is not complete\n",
        )
        assert get(server.url, "/livez?verbose") == (200, "live\n")
        assert get(server.url, "/no")[0] == 404
        for path in ("/livez", "/status", "/"):
            code, headers, body = ask(server, path, method="HEAD")
            assert (code, body) == (200, "") and int(headers["Content-Length"]) > 0
            for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
                code, headers, _ = ask(server, path, method=method)
                assert (code, headers["Allow"]) == (405, "GET, HEAD")
    finally:
        server.close()


def ask(
    server: HealthServer, path: str, *, method: str = "GET", hosts: Sequence[str] | None = None
) -> tuple[int, Message, str]:
    """Status, headers and body of one request, with these `Host` headers instead of the usual."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    connection.putrequest(method, path, skip_host=hosts is not None)
    for host in hosts or ():
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, text


def test_the_page_is_served_for_itself_alone() -> None:
    """The page may load nothing but the style in it, stand in no frame, send no form and be kept by
    nobody; it comes anew by itself unless that is switched off. What is no page may do nothing."""
    server = served()
    try:
        code, headers, html = ask(server, "/")
        assert code == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
        (style,) = re.findall("<style>(.*?)</style>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert dict(
            part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; ")
        ) == {
            "default-src": "'none'",
            "style-src": f"'sha256-{digest}'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        assert headers["Refresh"] == "30" and 'href="/?refresh=off"' in html
        _, still, calm = ask(server, "/?refresh=off")
        assert "Refresh" not in still and 'href="/"' in calm
        assert ask(server, "/?x=refresh=off&y")[1]["Refresh"] == "30"
        for path in ("/", "/status", "/readyz", "/livez", "/no"):
            headers = ask(server, path)[1]
            assert headers["Cache-Control"] == "no-store"
            assert headers["X-Frame-Options"] == "DENY"
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    finally:
        server.close()


OURS = ("127.0.0.1", "127.0.0.1:8089", "localhost:1", "LOCALHOST.", "a.localhost", "[::1]:8089")
FOREIGN = ("evil.example", "evil.example:8089", "localhost.evil.example", "1.2.3.4.nip.io", "[x]")


def test_on_loopback_no_web_site_gets_an_answer() -> None:
    """Asked under a name that is not this machine's, page and status are refused, and the verdicts
    come without reasons; an address, a name of this machine and no name at all are answered."""
    server = served()
    try:
        for hosts in (*([host] for host in OURS), [], ["10.1.2.3:8089"]):
            assert ask(server, "/", hosts=hosts)[0] == 200, hosts
            assert ask(server, "/status", hosts=hosts)[0] == 200, hosts
            assert "first cycle" in ask(server, "/readyz", hosts=hosts)[2]
        for hosts in (*([host] for host in FOREIGN), ["localhost", "evil.example"]):
            for path in ("/", "/status"):
                code, _, text = ask(server, path, hosts=hosts)
                assert code == 421 and "localhost" in text and "one" not in text.split(), hosts
            assert ask(server, "/readyz", hosts=hosts)[::2] == (503, "not ready\n")
            assert ask(server, "/livez", hosts=hosts)[::2] == (200, "live\n")
    finally:
        server.close()


def test_on_other_addresses_names_are_not_asked_about() -> None:
    """Where it listens for others, as in a container, any name is answered, and the page's address
    is one that a browser on this machine can open."""
    server = served(endpoint="0.0.0.0:0")
    try:
        assert server.page_url.startswith("http://127.0.0.1:")
        assert ask(server, "/status", hosts=["otel-alloy.prod.svc"])[0] == 200
        assert ask(server, "/", hosts=["otel-alloy.example"])[0] == 200
    finally:
        server.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")
def test_slow_clients_keep_nobody_out() -> None:
    """However many connections say nothing or dawdle, there are never more than a few, and a probe
    is answered at once."""

    def threads() -> int:
        return sum("process_request_thread" in t.name for t in threading.enumerate())

    server = served()
    host, port = server.url.removeprefix("http://").split(":")
    slow: list[socket.socket] = []
    try:
        for number in range(250):
            slow.append(socket.create_connection((host, int(port)), timeout=10))
            if number % 2:
                slow[-1].sendall(b"GET /livez HT")
            if number % 50 == 49:
                assert get(server.url, "/livez") == (200, "live\n")
        assert slow[0].recv(100) == b""  # broken, as the oldest
        # A broken one's thread needs a moment to end.
        assert any(threads() <= MOST + 1 for _ in range(200) if not threading.Event().wait(0.01))
    finally:
        for connection in slow:
            connection.close()
        server.close()


def test_a_connection_does_not_last() -> None:
    """A connection on which a byte comes now and then is broken at its deadline all the same."""
    served = Server(("127.0.0.1", 0), Handler, None, deadline=0.2)
    served.start("test")
    try:
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
            sent = 0
            with contextlib.suppress(OSError):
                while connection.send(b"G") and select.select([connection], [], [], 0.05)[0] == []:
                    sent += 1
            assert sent >= 1
    finally:
        served.stop()


def test_ipv6() -> None:
    """The health port listens on an IPv6 address in brackets."""
    server = served(endpoint="[::1]:0")
    try:
        assert server.url.startswith("http://[::1]:")
        assert get(server.url, "/livez")[0] == 200
    finally:
        server.close()


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def runtime(clock: Clock) -> Runtime:
    """Whose time is `clock`, and in which no thread starts."""
    return replace(
        system_runtime(),
        clock=clock,
        monotonic=clock,
        spawn=lambda function, name: threading.Thread(target=function),
    )


@pytest.fixture
def status(runtime: Runtime) -> Status:
    return Status(["one"], max_lag=900, runtime=runtime)


def cycle(status: Status, rest: float = 30.0, now: int = 5_000_000) -> None:
    status(events.CycleBegan("one", "c", now - 60_000, None, now))
    status(events.CycleEnded("one", "c", now, now, rest))


def test_lag_counts_only_while_there_is_something_to_read(status: Status, clock: Clock) -> None:
    """After a complete cycle the lag is zero however old the newest record is; it grows until the
    next one, and an interval longer than the limit is not held against the source."""
    status(events.CycleBegan("one", "c", 1000, 1000, 5_000_000))
    (gauges,) = status.gauges()
    assert gauges.lag == gauges.cursor_age == 4999.0
    assert "the lag is 4999 s" in status.not_ready()[0]
    cycle(status, rest=3600)
    assert not status.not_ready()
    clock.now += 3600
    assert not status.not_ready()
    assert status.gauges()[0].lag == 3600
    clock.now += 3700
    assert "more than 7200 s" in status.not_ready()[0]


def test_stuck(status: Status, clock: Clock) -> None:
    """/livez fails after a long silence that nobody announced, and not while a wait lasts."""
    cycle(status, rest=86400)
    clock.now += 86400 + PATIENCE - 1
    assert not status.stuck()
    clock.now += 2
    assert "nothing happened" in status.stuck()[0]
    cycle(status)
    assert not status.stuck()
    status(events.RequestRetried("one", Unavailable("away"), 3, 300.0))
    clock.now += 300 + PATIENCE - 1
    assert not status.stuck()
    clock.now += 2
    assert status.stuck()
    status(events.SourceStopped("one", "give up"))
    clock.now += 1e6
    assert not status.stuck()


def test_what_it_waits_for(status: Status, clock: Clock) -> None:
    """/status says what fails, how often and when it is tried again, until it works."""
    cycle(status)
    status(events.RequestRetried("one", Unavailable("away"), 2, 10.0))
    report = Report("logs", Outcome(Kind.RETRY, "busy"), 3, 100, 0.1, 5, 20.0)
    status(events.ExportAttempted("one", report))
    clock.now += 4
    (source,) = status.report()["sources"]
    assert source["waits_for"] == [
        "alloy: away; attempt 2, next in 6 s",
        "logs: busy; attempt 5, next in 16 s",
    ]
    assert status.report()["ready"] is True
    status(events.CheckpointWriteFailed("one", "the disk is full", 2.0))
    assert status.not_ready() == ["source one: checkpoint: the disk is full"]
    status(events.Requested("one", 200, None))
    at = events.Position(high=4_000_000, start=0, before=5_000_000, last=True, now=5_000_000)
    status(events.Settled(source="one", counts=events.Counts(received=1), position=at))
    assert len(status.waiting()) == 1
    cycle(status)
    assert not status.waiting()


def test_a_port_in_use(place: Place) -> None:
    """A health port that is taken is a warning with the remedy; receiving goes on."""
    records = place.fill(5)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        process = place.start("run", "--since", "60d", OTEL_ALLOY_HEALTH_ENDPOINT=endpoint)
        assert place.otlp.wait_for(lambda otlp: otlp.span_count == 5, 60)
        process.terminate()
        ended = place.end(process)
    assert ended.code == 0
    assert f"WARNING no health port: cannot listen on {endpoint}" in ended.err
    assert "OTEL_ALLOY_HEALTH_ENDPOINT" in ended.err
    place.assert_exactly_once(place.ended(records))


def test_the_command_serves(place: Place) -> None:
    """`run` serves its health where it says; `run --once`, and an empty setting, open no port."""
    place.fill(5)
    off = place.start("run", "--since", "60d", OTEL_ALLOY_HEALTH_ENDPOINT="")
    assert place.otlp.wait_for(lambda otlp: otlp.span_count == 5, 60)
    off.terminate()
    assert "health" not in place.end(off).err
    assert "health" not in place.once(OTEL_ALLOY_HEALTH_ENDPOINT="127.0.0.1:0").err
    process = place.start("run", "--log-format", "json", OTEL_ALLOY_HEALTH_ENDPOINT="127.0.0.1:0")
    assert process.stderr is not None
    line = json.loads(process.stderr.readline())
    url = line["message"].removeprefix("health: ").partition("/ ")[0]
    assert get(url, "/livez") == (200, "live\n")
    assert json.loads(get(url, "/status")[1])["sources"][0]["source"] == "default"
    process.terminate()
    assert place.end(process).code == 0


@contextmanager
def manager(folder: Path, kind: str) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket, and what NOTIFY_SOCKET says of it."""
    name = f"{folder}/notify" if kind == "path" else f"@otel-alloy-{os.getpid()}-{id(folder)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(60)
        listening.bind(name.replace("@", "\0"))
        yield listening, name


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd(place: Place, kind: str) -> None:
    """systemd is told READY=1 once Alloy answers, WATCHDOG=1 while the loop turns, also where the
    collector is away, and STOPPING=1 at the end; words come as STATUS=."""
    if kind == "abstract" and sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's")
    place.fill(5)
    place.judge = lambda received: Answer(connection="drop")
    with manager(place.folder, kind) as (listening, name):
        process = place.start(
            *("run", "--since", "60d", "--shutdown-timeout", "1s"),
            NOTIFY_SOCKET=name,
            WATCHDOG_USEC="400000",
        )
        messages: list[str] = []

        def until(wanted: str) -> None:
            while not any(wanted in message for message in messages):
                messages.append(listening.recv(4096).decode())

        until("READY=1")
        until("WATCHDOG=1")
        until("STATUS=source default: ")
        process.send_signal(signal.SIGTERM)
        until("STOPPING=1")
        assert place.end(process).code == 1  # a batch was on its way


def test_systemd_and_a_refused_key(place: Place) -> None:
    """A service whose key is refused never becomes ready, so that starting it fails."""
    place.alloy.configure(api_key="another")
    with manager(place.folder, "path") as (listening, name):
        assert place.command("run", NOTIFY_SOCKET=name).code == 3
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                assert b"READY" not in listening.recv(4096)


def test_systemd_watchdog_of_a_stuck_loop(
    tmp_path: Path, status: Status, clock: Clock, runtime: Runtime
) -> None:
    """The watchdog is not fed where the loop is stuck, and not by a process it is not meant for."""
    with manager(tmp_path, "path") as (listening, name):
        listening.setblocking(False)
        environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3600000000"}
        for pid, fed in ((str(os.getpid()), True), ("1", False)):
            systemd = Systemd(environment | {"WATCHDOG_PID": pid}, status, runtime)
            systemd.tick()
            assert (listening.recv(4096) == b"WATCHDOG=1") is fed
            if fed:
                listening.recv(4096)  # STATUS=
                clock.now += PATIENCE + 1
                systemd.tick()
                with pytest.raises(BlockingIOError):
                    assert b"WATCHDOG" not in listening.recv(4096)


@pytest.mark.parametrize("listening", ["127.0.0.1", "0.0.0.0", "[::]"])
def test_the_probe_of_containers(status: Status, clock: Clock, listening: str) -> None:
    """It gets the answer of the health port wherever that listens, and its words."""
    if not socket.has_ipv6 and listening == "[::]":
        pytest.skip("no IPv6 here")
    with closing(served(status, f"{listening}:0")) as server:
        endpoint = f"{listening}:{server.url.rpartition(':')[2]}"
        assert probe.ask(endpoint, "/livez") == (True, "live")
        assert probe.ask(endpoint, "/elsewhere")[0] is False
        clock.now += PATIENCE + 1
        lives, words = probe.ask(endpoint, "/livez")
    assert not lives and words.startswith("not live\n")
    away, why = probe.ask(endpoint, "/livez")
    assert not away and why == f"{endpoint} does not answer: Connection refused"
