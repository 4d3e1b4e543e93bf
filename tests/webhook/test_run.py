"""`otel-alloy run` with Alloy's error webhook, over real sockets: every failed execution arrives
with its reason, whichever of the two came first, and nothing of a customer's payload anywhere."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

pytest.importorskip("uvicorn", reason="the extra `webhook` is not installed")

from otel_alloy.alloy.timestamps import to_ms
from otel_alloy.checkpoint.sqlite import SqliteStore
from otel_alloy.checkpoint.store import open_store
from otel_alloy.mapping import semconv
from otel_alloy.observability.logging import masked as masked_log
from otel_alloy.pipeline.kept_report import KeptReport
from otel_alloy.privacy import masked
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.models import Settings
from otel_alloy.testing.otlp_endpoint import attributes
from otel_alloy.testing.simulator import (
    PAYLOAD_CANARY,
    REASON_CANARY,
    Config,
    Record,
    Simulator,
    Traffic,
    failure_of,
    generate,
    uuid_of,
)
from otel_alloy.webhook.reception import KEPT_MS, keeper, open_listener
from otel_alloy.webhook.report import ErrorReport

from .ports import SECONDS, free_port, until

if TYPE_CHECKING:
    from conftest import Place

SECRET = "secret-canary-of-the-webhook"


class Webhook:
    """An Alloy that posts its errors to `otel-alloy run`."""

    def __init__(self, place: Place, **knobs: Any) -> None:
        self.place = place
        self.port = free_port()
        self.later = 0.0
        place.alloy.stop()
        url = f"http://127.0.0.1:{self.port}/alloy/errors/{SECRET}"
        place.alloy = Simulator(
            Config(error_webhook_url=url, error_webhook_retries=12, **knobs),
            clock=lambda: time.time() + self.later,
        )
        place.alloy.start()
        place.environment |= {
            "ALLOY_ENDPOINT": place.alloy.endpoint,
            "OTEL_ALLOY_ENRICH": "failed",
            "OTEL_ALLOY_ENRICH_TIMEOUT": "120s",  # /errors is asked after half of it
            "OTEL_ALLOY_COLLECTION_INTERVAL": "1s",
            "OTEL_ALLOY_WEBHOOK_LISTEN": f"127.0.0.1:{self.port}",
            "OTEL_ALLOY_WEBHOOK_SECRET": SECRET,
        }
        now = time.time()
        self.records = list(
            generate(
                40,
                start=now - 120,
                end=now - 5,
                traffic=Traffic(error_rate=0.5, colliding=0.5, lifecycle="terminal"),
            )
        )
        self.failed: dict[str, Record] = {
            str(uuid_of(r)): r for r in self.records if failure_of(r) is not None
        }
        self.written: list[str] = []

    def fails(self) -> None:
        """The executions become visible."""
        for record in self.records:
            self.place.alloy.store.add(record)

    def kept(self) -> set[str]:
        """The executions whose report was acknowledged."""
        return {str(r.uuid) for r in self.place.alloy.reports if r.status == 204}

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """`run` until it is told to end, or has been killed."""
        process = self.place.start("run")
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        done = self.place.end(process)
        assert done.code in (0, -signal.SIGKILL), done.err
        self.written += [done.out, done.err]

    def all_arrive(self) -> None:
        """Until each execution that ended has."""
        ended = len(self.place.ended(self.records))
        assert self.place.otlp.wait_for(lambda otlp: otlp.log_record_count >= ended, SECONDS)
        assert self.place.otlp.wait_for(lambda otlp: len(self.reasons()) >= len(self.failed), 5)

    def reasons(self) -> dict[str, tuple[dict[str, Any], dict[str, Any], str]]:
        """Of each failed execution the attributes of span and log record, and the description."""
        logs = {
            a[semconv.EXECUTION_UUID]: a
            for a in (attributes(r.attributes) for r in self.place.otlp.log_records())
        }
        spans = [
            (attributes(span.attributes), span.status.message)
            for span in self.place.otlp.spans()
            if span.status.code == span.status.STATUS_CODE_ERROR and not span.parent_span_id
        ]
        return {
            a[semconv.EXECUTION_UUID]: (a, logs.get(a[semconv.EXECUTION_UUID], {}), words)
            for a, words in spans
        }

    def assert_told(self) -> None:
        """Each failure has its own reason and block, from the webhook; nothing else is known of it
        anywhere."""
        ended = Counter(self.place.ended(self.records))
        assert self.place.sent("logs") == ended
        spans = [
            attributes(s.attributes)
            for s in self.place.otlp.spans()
            if s.kind == s.SPAN_KIND_SERVER
        ]
        assert Counter(a[semconv.EXECUTION_ID] for a in spans) == ended
        told = self.reasons()
        assert set(told) == set(self.failed)
        for uuid, (span, log, words) in told.items():
            failure = failure_of(self.failed[uuid])
            assert failure is not None
            reason = masked(failure.reason, "mask")
            assert words == log["exception.message"] == reason
            for a in (span, log):
                assert a["runalloy.reason.source"] == "webhook"
                assert a["runalloy.block.id"] == failure.block.id
        self.assert_nothing_leaks()

    def assert_nothing_leaks(self) -> None:
        """No payload, no personal part of a reason and no secret in what was sent, printed, or
        stored; a reason is not even printed."""
        sent = b"".join(request.body for request in self.place.otlp.requests)
        stored = b"".join(
            file.read_bytes() for file in self.place.folder.iterdir() if file.is_file()
        )
        printed = "".join(self.written).encode()
        for canary in (PAYLOAD_CANARY, REASON_CANARY, SECRET):
            for text in (sent, stored, printed):
                assert canary.encode() not in text
        assert b"listening on" in printed
        assert b"rror: " not in printed


def post(port: int, body: dict[str, Any], **headers: str) -> int:
    """The status of a report's answer, 0 where there is none."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        try:
            connection.request("POST", f"/alloy/errors/{SECRET}", json.dumps(body), headers)
            return connection.getresponse().status
        except OSError:
            return 0


def test_reports_before_notifications_twice_and_over_a_restart(place: Place) -> None:
    """While Alloy gives no executions, reports come, each twice, and are kept; `run` is killed
    without a warning, and the next one merges them with their executions."""
    alloy = Webhook(place, error_webhook_twice=1.0)
    place.alloy.configure(outage="503")
    alloy.fails()
    with alloy.running() as process:
        until(lambda: alloy.kept() == set(alloy.failed))
        process.kill()
    assert not place.otlp.requests
    with alloy.running():
        until(
            lambda: (
                len([r for r in place.alloy.reports if r.status == 204]) >= 2 * len(alloy.failed)
            )
        )
        place.alloy.configure(outage=None)
        alloy.all_arrive()
    alloy.assert_told()


def test_reports_after_notifications(place: Place) -> None:
    """Executions wait for their report, also over a kill, and have it when it comes."""
    alloy = Webhook(place, error_webhook_late=20.0)
    alloy.fails()

    def waiting() -> bool:
        if not place.storage.exists():
            return False
        with closing(open_store(f"sqlite:///{place.storage}", exclusive=False)) as store:
            return {w.uuid for w in store.waiting("default").values()} == set(alloy.failed)

    with alloy.running() as process:
        until(waiting)
        process.kill()
    assert not alloy.reasons() and not alloy.kept()
    with alloy.running():
        alloy.later = 20.0
        alloy.all_arrive()
    alloy.assert_told()


def test_a_listener_that_is_away_for_a_while(place: Place) -> None:
    """What Alloy could not post it posts again, and it is merged as ever."""
    alloy = Webhook(place)
    alloy.fails()
    until(lambda: any(r.status == 0 for r in place.alloy.reports))
    with alloy.running():
        alloy.all_arrive()
    alloy.assert_told()


def test_status_tells_of_the_webhook(place: Place) -> None:
    """`/status` has the address, the last report and what became of all; `--once` opens nothing."""
    alloy = Webhook(place)
    health = free_port()
    place.environment["OTEL_ALLOY_HEALTH_ENDPOINT"] = f"127.0.0.1:{health}"

    def status() -> dict[str, Any]:
        with closing(http.client.HTTPConnection("127.0.0.1", health, timeout=60)) as connection:
            connection.request("GET", "/status")
            told: dict[str, Any] = json.load(connection.getresponse())
            return told

    with alloy.running():
        until(lambda: post(alloy.port, {}) == 400)
        assert status()["webhook"]["last_report"] is None
        for _ in range(2):
            assert post(alloy.port, {"executionId": "of-nobody"}) == 204
        assert post(alloy.port, {"executionId": "x"}, **{"X-Alloy-ExecutionUuid": "u"}) == 204
        told = status()["webhook"]
        assert told["listening"] == f"127.0.0.1:{alloy.port}"
        assert told["answers"] == {"unreadable": 1, "kept": 2, "known": 1}
        assert abs(_seconds(told["last_report"]) - time.time()) < SECONDS
    done = place.once()
    assert "webhook" not in done.err
    with closing(sqlite3.connect(place.storage)) as db:
        keys = [row[0] for row in db.execute("SELECT uuid FROM reason ORDER BY uuid")]
    assert keys == ["of-nobody", "u"]


def _seconds(text: str) -> float:
    return (to_ms(text) or 0) / 1000


def test_where_nothing_can_listen(place: Place) -> None:
    """A port in use ends `run` with 1 and the remedy, before anything is read."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = place.command(
            "run", OTEL_ALLOY_WEBHOOK_LISTEN=address, OTEL_ALLOY_WEBHOOK_SECRET=SECRET
        )
    assert done.code == 1
    assert f"cannot listen on {address} (Address already in use); end what" in done.err
    assert "Traceback" not in done.err and SECRET not in done.err
    assert not place.alloy.requests


def test_without_the_extra(place: Place) -> None:
    """Where the extra is not installed, that is a mistake with its remedy, exit code 2."""
    program = (
        "import sys\n"
        "sys.modules['uvicorn'] = None\n"  # as if it were not there
        "from otel_alloy.cli import main\n"
        "sys.argv = ['otel-alloy', 'run']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=place.environment
        | {"OTEL_ALLOY_WEBHOOK_LISTEN": "127.0.0.1:0", "OTEL_ALLOY_WEBHOOK_SECRET": SECRET},
        cwd=place.folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert "needs uvicorn" in done.stderr and "pip install starlette uvicorn" in done.stderr
    assert "Traceback" not in done.stderr


def report(**changes: Any) -> ErrorReport:
    values = dict.fromkeys(ErrorReport.__dataclass_fields__) | changes
    return ErrorReport(**values)


def test_what_is_kept_and_for_how_long(tmp_path: Path) -> None:
    """The first report of an execution is kept for a day of our clock, without anything but message
    and block; one without a uuid goes by its executionId."""
    now = [1_760_000_000_000]
    with closing(open_store(f"sqlite:///{tmp_path}/checkpoint.db", exclusive=False)) as store:
        keep = keeper(store, lambda: now[0])
        first = report(
            uuid="u",
            execution="e",
            user="somebody",
            block="b",
            block_name="B",
            type="alloy.shopify",
            message="no",
        )
        assert keep(first)
        assert not keep(report(uuid="u", message="other"))
        assert keep(report(execution="e", message="by its id"))
        kept = store.reasons(["u", "e"])
        assert KeptReport.read(kept["u"]) == KeptReport("no", "b", "B", "alloy.shopify")
        assert set(kept) == {"u", "e"} and "somebody" not in kept["u"]
        now[0] += KEPT_MS
        assert not keep(report(uuid="u"))
        now[0] += 1
        assert keep(report(uuid="v"))
        assert set(store.reasons(["u", "v", "e"])) == {"v"}


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"message": 1}', '{"other": "x"}'])
def test_what_is_no_report_of_ours_tells_nothing(text: str) -> None:
    """Whatever another program wrote into the file is no reason, and no error."""
    assert KeptReport.read(text) is None


def test_a_full_disk_is_told_and_not_acknowledged(tmp_path: Path) -> None:
    """503 while the checkpoint cannot be written, and 204 for the same report afterwards."""
    settings = Settings.model_validate(
        {
            "api_key": "k",
            "webhook": {"listen": "127.0.0.1:0", "secret": SECRET},
            "environment": {},
        }
    )
    with closing(SqliteStore(tmp_path / "checkpoint.db", exclusive=False)) as store:
        with open_listener(settings, store, system_runtime()) as listener:
            port = int(listener.address.rpartition(":")[2])
            pages = store._db.execute("PRAGMA page_count").fetchone()[0]
            store._db.execute(f"PRAGMA max_page_count={pages}")
            bodies = [{"executionId": f"e{n}", "error": "word " * 200} for n in range(20)]
            answers = [post(port, body) for body in bodies]
            assert answers[-1] == 503
            store._db.execute("PRAGMA max_page_count=1000000")
            assert post(port, bodies[-1]) == 204
        assert listener.counts()["failed"] >= 1


def test_no_line_of_the_log_has_the_secret() -> None:
    """Whoever logs an address of the webhook, its secret is masked, also as it stands in a URL."""
    secret = "Schlüssel/of the webhook"
    settings = Settings.model_validate(
        {"api_key": "key", "webhook": {"secret": secret}, "environment": {}}
    )
    mask = masked_log(settings)
    assert (
        mask(f"POST /alloy/errors/{quote(secret, safe='')} failed")
        == "POST /alloy/errors/*** failed"
    )
    assert mask(f"X-Webhook-Secret: {secret}") == "X-Webhook-Secret: ***"
