"""`otel-alloy backfill`: a range of history in slices, by several workers, beside `run`."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from otel_alloy.alloy.retry import RequestBudget
from otel_alloy.alloy.timestamps import to_ms
from otel_alloy.checkpoint.slices import StoredSlices
from otel_alloy.checkpoint.store import Settlement, Slice, open_slices, open_store
from otel_alloy.errors import (
    AccessRefused,
    AlloyReceiverError,
    CheckpointError,
    ConfigurationError,
    Throttled,
)
from otel_alloy.mapping import semconv
from otel_alloy.pipeline.backfill import Backfill, Range
from otel_alloy.pipeline.events import (
    Advanced,
    BackfillCounted,
    Counts,
    Planned,
    Position,
    RequestRetried,
    Settled,
)
from otel_alloy.pipeline.slice_worker import Shared
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.models import parse_moment
from otel_alloy.terminal.progress import BackfillView
from otel_alloy.testing.otlp_endpoint import Answer, Received
from otel_alloy.testing.simulator import Record, iso

if TYPE_CHECKING:
    from conftest import Place

PAGE = 30
HOUR, DAY = 3600.0, 86400.0
COUNTS = Counts(received=100, executions=50, spans=50, log_records=50, requests=4)
POSITION = Position(high=1, start=0, before=2, last=False)


def backfill(
    place: Place,
    begin: str = "60d",
    end: str | None = "5m",
    *,
    observe: Callable[[object], None] | None = None,
    stop: Callable[[Backfill], None] | None = None,
    settings: dict[str, Any] | None = None,
    **changes: Any,
) -> bool:
    """One backfill of the library, in this process."""
    chosen = place.settings(since=None, **(settings or {}))
    work = Backfill(
        chosen,
        chosen.sources,
        Range(parse_moment(begin), None if end is None else parse_moment(end), f"{begin} {end}"),
        observe=observe,
        **changes,
    )
    if stop is not None:
        stop(work)
    return work.run()


def record(place: Place, execution: str, message: str, ago: float, **fields: Any) -> Record:
    """A record whose createdAt lies so many seconds back."""
    created = iso(round((place.now - ago) * 1000))
    return {
        "_id": f"{execution}-{message}",
        "message": message,
        "data": {"executionId": execution, "executionUuid": f"uuid-of-{execution}"},
        "startedAt": created,
        "completedAt": None if message == "executionStarted" else created,
        "createdAt": created,
    } | fields


def assert_no_more_than_a_batch_twice(place: Place, records: list[Record], batches: int) -> None:
    """Fails unless each end arrived, what came twice is the same twice, and is at most `batches`
    batches."""
    executions = set(place.ended(records))
    for kind in ("traces", "logs"):
        assert set(place.sent(kind)) == executions
        sent = place.bytes_sent(kind)
        assert len(sent) == len(executions)
        assert sum(sent.values()) - len(sent) <= batches * (100 + 2 * PAGE)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_each_execution_once_with_the_bytes_of_run(place: Place, workers: int) -> None:
    """2,000 executions with their starts, 400 ends in one millisecond: each end arrives once as
    span and as log record, and every one has the bytes that `run` makes of it."""
    records = place.fill(2000, tied=400)
    place.alloy.configure(max_limit=PAGE)
    done = place.command("backfill", "--from", "60d", "--to", "5m", "--workers", str(workers))
    assert done.code == 0, done.err
    assert done.out.startswith("2000 executions: 2000 spans and 2000 log records"), done.out
    place.assert_exactly_once(place.ended(records))
    ours = {kind: place.bytes_sent(kind) for kind in ("traces", "logs")}
    place.once(OTEL_ALLOY_STORAGE=f"sqlite:///{place.folder / 'other.db'}")
    for kind in ("traces", "logs"):
        theirs = place.bytes_sent(kind) - ours[kind]
        assert theirs == ours[kind]


@pytest.mark.parametrize(
    "knobs",
    [
        pytest.param({"ignore_filters": True}, id="ignores-filters"),
        pytest.param({"created_at_filter": "nothing"}, id="filter-matches-nothing"),
        pytest.param({"ignore_sort_order": True}, id="ignores-sort-order"),
        pytest.param({"ignore_sort_order": True, "ignore_filters": True}, id="ignores-both"),
        pytest.param({"total_items": "all", "current_page": "constant"}, id="pagination-lies"),
        pytest.param({"over_limit": "refuse"}, id="limit-is-refused"),
    ],
)
def test_from_any_api(
    place: Place, knobs: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The same from an API that departs from its description; where it has to be read newest
    first, that is said once."""
    records = place.fill(1000)
    place.alloy.configure(**({"max_limit": PAGE} | knobs))
    with caplog.at_level(logging.INFO, "otel_alloy"):
        assert backfill(place, workers=3)
    place.assert_exactly_once(place.ended(records))
    told = [m for m in caplog.messages if "newest first" in m]
    assert len(told) == bool(
        {"ignore_filters", "ignore_sort_order", "created_at_filter"} & {*knobs}
    )
    if {"ignore_filters", "created_at_filter"} & {*knobs}:
        assert any("in 1 slices" in m for m in caplog.messages)


def test_only_the_range(place: Place) -> None:
    """What was created at `from` belongs to the range, what was at `to` does not."""
    for ago in (400, 300, 200, 100):
        place.alloy.store.add(record(place, f"e{ago}", "executionFinished", ago))
    begin, end = (iso(round((place.now - ago) * 1000)) for ago in (300, 200))
    assert backfill(place, begin, end, settings={"overlap": 0})
    place.assert_exactly_once(["e300"])


@pytest.mark.parametrize("fails_at", [1, 4, 9])
def test_an_exception_in_the_middle(place: Place, fails_at: int) -> None:
    """Where a settlement cannot be written after its batch was delivered, the next backfill sends
    that batch again, byte for byte, and goes on."""
    records = place.fill(1000)
    place.alloy.configure(max_limit=PAGE)
    calls = 0

    class Failing(StoredSlices):
        def settle(self, piece: Slice, settlement: Settlement) -> int:
            nonlocal calls
            calls += 1
            if calls == fails_at:
                raise CheckpointError("torn out")
            return super().settle(piece, settlement)

    with pytest.raises(CheckpointError, match="torn out"):
        backfill(
            place,
            settings={"batch_size": 100},
            slices=lambda url: Failing(open_store(url, exclusive=False)),
        )
    assert len(place.otlp.spans()) < 1000
    assert backfill(place, settings={"batch_size": 100})
    assert_no_more_than_a_batch_twice(place, records, 2)


def test_killed(place: Place) -> None:
    """After SIGKILL the same command goes on, with the range that the first one began with although
    the clock has moved; at most one batch per worker comes twice, byte for byte."""
    records = place.fill(1000)
    place.alloy.configure(max_limit=PAGE)
    process: subprocess.Popen[str]
    started = threading.Event()
    traces = 0

    def kill_at_the_fifth(received: Received) -> None:
        nonlocal traces
        traces += received.signal == "traces"
        if traces == 5:
            assert started.wait(10)
            process.kill()
            process.wait()

    place.judge = kill_at_the_fifth
    words = ("backfill", "--from", "60d", "--batch-size", "100")
    process = place.start(*words)
    started.set()
    assert place.end(process).code == -signal.SIGKILL
    assert 0 < len(place.otlp.spans()) < 1000
    place.judge = lambda received: None
    place.now += HOUR
    place.alloy.store.add(record(place, "later", "executionFinished", 600))
    done = place.command(*words)
    assert done.out.endswith("2,000 of 2,000 records that Alloy counts were settled\n")
    assert done.code == 0, done.err
    assert "going on with" in done.err
    assert_no_more_than_a_batch_twice(place, records, 2)


def test_sigterm(place: Place) -> None:
    """SIGTERM settles what is in flight: the exit code says that it is not finished, and the same
    command sends the rest and nothing twice."""
    records = place.fill(1000)
    place.alloy.configure(max_limit=PAGE)
    process: subprocess.Popen[str]
    started = threading.Event()

    def ask(received: Received) -> None:
        assert started.wait(10)
        process.terminate()

    place.judge = ask
    words = ("backfill", "--from", "60d", "--to", "5m", "--batch-size", "100")
    process = place.start(*words)
    started.set()
    done = place.end(process)
    assert done.code == 1, done.err
    assert "the same command goes on from here" in done.err
    assert 0 < len(place.otlp.spans()) < 1000
    place.judge = lambda received: None
    done = place.command(*words)
    assert done.code == 0, done.err
    place.assert_exactly_once(place.ended(records))


def test_beside_a_running_run(place: Place) -> None:
    """Beside a `run` on the same file: what `run` remembers is not touched, it goes on, the
    backfill ends where it began, and keeps to half of the budget while it is there."""
    records = place.fill(1000)
    place.alloy.store.add(record(place, "live", "executionFinished", 100))
    run = place.start("run", "--collection-interval", "1s", "--initial-lookback", "200s")
    assert place.otlp.wait_for(lambda otlp: otlp.log_record_count == 1)
    storage = f"sqlite:///{place.storage}"
    store = open_store(storage, exclusive=False)
    done = place.command("backfill", "--from", "60d", OTEL_ALLOY_REQUESTS_PER_MINUTE="9001")
    assert done.code == 0, done.err
    assert "keeps to 4500 requests a minute" in done.err
    before = store.sources()["default"]
    place.now += 5
    place.alloy.store.add(record(place, "newer", "executionFinished", 1))
    assert place.otlp.wait_for(lambda otlp: "newer" in place.sent("logs"))
    run.terminate()
    assert place.end(run).code == 0
    after = store.sources()["default"]
    store.close()
    assert before.high is not None
    assert after.high is not None
    assert after.high > before.high
    assert after.begin == before.begin
    place.assert_exactly_once([*place.ended(records), "live", "newer"])


def test_processes(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Spread over processes, all arrives once; what the children tell is heard here: their events
    and their log; and so is the error that ends one, by its type."""
    records = place.fill(50) + place.fill(1000, days=0.5, seed=5)
    place.now += HOUR
    place.alloy.configure(max_limit=PAGE)
    events: list[object] = []
    busy = iter([Answer(status=503)] * 4)
    place.judge = lambda received: next(busy, None)
    assert backfill(
        place,
        workers=3,
        processes=2,
        dense_pages=10,
        observe=events.append,
        settings={"batch_size": 100},
    )
    place.assert_exactly_once(place.ended(records))
    settled = [event for event in events if isinstance(event, Settled)]
    assert sum(event.counts.spans for event in settled) == len(place.ended(records))
    assert any("trying again in" in message for message in caplog.messages)

    def refuse(received: Received) -> None:
        place.alloy.configure(api_key="another")

    place.judge = refuse
    with pytest.raises(AccessRefused):
        backfill(place, workers=3, processes=2, restart=True, settings={"batch_size": 10})


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds children in /proc")
def test_a_process_of_several_is_killed(place: Place) -> None:
    """Where a child dies by itself the backfill ends with an error, the other child too, and the
    next one goes on; at most one batch per worker comes twice."""
    records = place.fill(1000)
    place.alloy.configure(max_limit=PAGE)

    def kill_a_child(received: Received) -> None:
        for child in children()[:1]:
            with contextlib.suppress(ProcessLookupError):  # another request has just killed it
                os.kill(child, signal.SIGKILL)

    place.judge = kill_a_child
    with pytest.raises(AlloyReceiverError, match="ended by itself"):
        backfill(place, processes=2, settings={"batch_size": 100})
    assert not children()
    place.judge = lambda received: None
    assert backfill(place, processes=2, settings={"batch_size": 100})
    assert_no_more_than_a_batch_twice(place, records, 2)


def children() -> list[int]:
    """Processes that this one started for a backfill, and that still run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            ours = int(parent) == os.getpid() and state != "Z"
            if ours and b"otel_alloy.pipeline.worker_process" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def test_two_backfills_exclude_each_other(place: Place) -> None:
    """A second backfill on a store is refused, with exit code 1; `run` is not."""
    place.fill(10)
    holder = open_slices(f"sqlite:///{place.storage}")
    try:
        assert not holder.run_is_active()
        done = place.command("backfill", "--from", "60d")
        assert (done.code, "another backfill" in done.err) == (1, True), done.err
        place.once()
    finally:
        holder.close()
    owner = open_store(f"sqlite:///{place.storage}")
    slices = open_slices(f"sqlite:///{place.storage}")
    assert slices.run_is_active()
    owner.close()
    assert not slices.run_is_active()
    slices.close()


def test_dense_slices_are_split(place: Place) -> None:
    """Where nearly all lies in one slice, its rest is halved for the others, and all arrives
    once."""
    records = place.fill(50) + place.fill(3000, days=0.5, seed=5)
    place.now += HOUR
    place.alloy.configure(max_limit=PAGE)
    assert backfill(place, workers=3, dense_pages=10, settings={"batch_size": 100})
    place.assert_exactly_once(place.ended(records))
    slices = open_slices(f"sqlite:///{place.storage}")
    assert isinstance(slices, StoredSlices)
    read = slices._database.read
    rows = read("SELECT start, before, state FROM slice ORDER BY before")
    left = [
        read(f"SELECT count(*) FROM {t}")[0][0]
        for t in ("seen", "open_execution", "ended_execution")
    ]
    slices.close()
    assert len(rows) > 12
    assert {state for _, _, state in rows} == {"done"}
    assert left == [0, 0, 0], "what done slices knew is forgotten"


@pytest.mark.parametrize("apart", ["within-the-overlap", "later"])
def test_a_second_end_in_another_slice(place: Place, apart: str) -> None:
    """A second end is one more log record and no second span, also where the first one lies in the
    slice before, up to an overlap earlier. Later than that it is taken for a first one: its span
    comes with the same ids."""
    middle = 60 * DAY / 2  # two workers: eight slices, so an edge is in the middle
    first = middle + (30 if apart == "within-the-overlap" else 300)
    place.alloy.store.add(record(place, "again", "executionError", first))
    place.alloy.store.add(record(place, "again", "executionFinished", middle - 30))
    begin, end = (iso(round((place.now - ago) * 1000)) for ago in (60 * DAY, 0))
    assert backfill(place, begin, end, settings={"overlap": 120})
    spans = place.otlp.spans()
    assert len(spans) == (1 if apart == "within-the-overlap" else 2)
    assert len({span.span_id for span in spans}) == 1
    assert [log.event_name for log in place.otlp.log_records()].count(semconv.EVENT_FINISHED) == 1
    assert place.otlp.log_record_count == 2


def test_starts_without_an_end(place: Place) -> None:
    """An execution that has not ended in the range is not told as incomplete; one whose start lies
    in another slice than its end is delivered by its end alone."""
    place.alloy.store.add(record(place, "open", "executionStarted", 40 * DAY))
    place.alloy.store.add(record(place, "long", "executionStarted", 40 * DAY))
    started = iso(round((place.now - 40 * DAY) * 1000))
    place.alloy.store.add(record(place, "long", "executionFinished", 2 * DAY, startedAt=started))
    assert backfill(place)
    place.assert_exactly_once(["long"])
    (span,) = place.otlp.spans()
    assert span.end_time_unix_nano - span.start_time_unix_nano == 38 * DAY * 10**9


def test_set_aside(place: Place) -> None:
    """A record that nobody takes is set aside under its source's name, once."""
    place.alloy.store.add(record(place, "good", "executionFinished", DAY))
    place.alloy.store.add(record(place, "bad", "executionFinished", DAY) | {"message": None})
    assert place.command("backfill", "--from", "60d").code == 0
    (row,) = place.rejected()
    assert row["source"] == "default"
    place.assert_exactly_once(["good"])


def test_a_source_that_fails_does_not_stop_the_others(place: Place) -> None:
    """Where Alloy refuses the key of the first source, the second one is delivered all the same;
    the exit code is that of the refusal."""
    records = place.fill(20)
    config = place.folder / "settings.yaml"
    config.write_text("sources: [{name: a, api_key: wrong}, {name: b}]")
    place.alloy.configure(api_key=place.environment["ALLOY_API_KEY"])
    done = place.command("backfill", "--from", "60d", "--to", "5m", "--config", str(config))
    assert done.code == 3, done.err
    assert "source a:" in done.err
    place.assert_exactly_once(place.ended(records))


def test_records_that_alloy_does_not_give(place: Place) -> None:
    """Where Alloy counts records in the range that no request brings, a backfill delivers the rest
    that it can, exits with 1 and their number, and goes on from there when they are given."""
    records = place.fill(300)
    moments = sorted(to_ms(r["createdAt"]) or 0 for r in records)
    place.alloy.configure(hidden=(moments[300], moments[310]))
    words = ("backfill", "--from", "60d", "--to", "5m", "--workers", "2")
    done = place.command(*words)
    assert done.code == 1, done.err
    assert re.search(r"Alloy has \d+ records created .* that no request brings", done.err), done.err
    assert 0 < place.otlp.span_count < len(place.ended(records))
    place.alloy.configure(hidden=None)
    assert place.command(*words).code == 0
    place.assert_exactly_once(place.ended(records))


def test_the_count_in_the_end(place: Place) -> None:
    """A backfill ends with how many of the records that Alloy counts in the range are settled, also
    when it was done before; where Alloy deleted some since, it says so."""
    records = place.fill(1000)
    words = ("backfill", "--from", "2025-08-01T00:00:00Z", "--to", "2025-10-09T08:50:00Z")
    for _ in range(2):
        done = place.command(*words)
        assert done.code == 0, done.err
        last = done.out.splitlines()[-1]
        assert last == "2,000 of 2,000 records that Alloy counts were settled"
    for each in records[:3]:
        place.alloy.store.remove(each["_id"])
    done = place.command(*words)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == (
        "1,997 of 1,997 records that Alloy counts were settled, and 3 that it does not count any "
        "more"
    )


def test_what_is_missing_in_the_end(place: Place) -> None:
    """A record that becomes visible only after its slice was read is missing: a backfill says how
    many there are and what to do, and exits with 1; --restart has them."""
    records = place.fill(300)
    missed = record(place, "missed", "executionFinished", 59 * DAY)

    lock = threading.Lock()

    def at_the_first(received: Received) -> Answer | None:
        if lock.acquire(blocking=False):  # and never released
            place.alloy.store.add(missed)
        return None

    place.judge = at_the_first
    words = ("backfill", "--from", "60d", "--to", "5m", "--workers", "1")
    done = place.command(*words)
    assert done.code == 1
    assert done.out.splitlines()[-1].startswith("600 of 601 records that Alloy counts were settled")
    assert done.out.endswith("; 1 is missing\n")
    assert "--restart" in done.err
    assert "missed" not in place.sent("traces")
    done = place.command(*words, "--restart")
    assert done.code == 0, done.err
    assert done.out.endswith("601 of 601 records that Alloy counts were settled\n")
    assert set(place.sent("traces")) == {*place.ended(records), "missed"}


@pytest.mark.parametrize("knobs", [{"total_items": "all"}, {"ignore_filters": True}])
def test_where_alloy_does_not_count(place: Place, knobs: dict[str, Any]) -> None:
    """Where Alloy counts something else, a backfill says that nothing can be held against it, and
    how many records it settled; that is no failure."""
    place.fill(100)
    place.alloy.configure(**knobs)
    done = place.command("backfill", "--from", "60d", "--to", "5m")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].startswith("200 records were settled; this API does not count")


@pytest.mark.parametrize("fails_at", [0, 2, 7])
@pytest.mark.parametrize("written", [True, False])
def test_each_record_counts_once(place: Place, fails_at: int, written: bool) -> None:
    """Whatever a record goes through, it counts once: slices that are halved, warm-ups, records
    set aside, those without a readable end, batches that are sent again after a crash before or
    after their settlement, records that change in place while they are read."""
    records = place.fill(600, tied=40)
    place.alloy.store.add(record(place, "aside", "executionFinished", 8 * HOUR) | {"message": None})
    place.alloy.store.add(record(place, "outside", "executionFinished", 5 * HOUR))
    place.alloy.configure(max_limit=PAGE)
    before = iso(round((place.now - 6 * HOUR) * 1000))
    changed: list[str] = []
    calls = 0

    class Failing(StoredSlices):
        def settle(self, piece: Slice, settlement: Settlement) -> int:
            nonlocal calls
            position = settlement.progress.position
            calls += position is not None
            number = -1 if position is None else calls
            for (record_id, message), created in settlement.known.items():
                again = number == fails_at and created == position
                if again and message != "executionError":
                    place.alloy.store.change(record_id, message="executionError")
                    changed.append(record_id)
            if number == fails_at and not written:
                raise CheckpointError("torn out")
            new = super().settle(piece, settlement)
            if number == fails_at:
                raise CheckpointError("torn out")
            return new

    counted: list[object] = []

    def once() -> None:
        backfill(
            place,
            "2025-08-11T00:00:00Z",
            before,
            workers=3,
            dense_pages=2,
            settings={"batch_size": 10, "overlap": 6 * HOUR},
            slices=lambda url: Failing(open_store(url, exclusive=False)),
            observe=lambda event: (
                counted.append(event) if isinstance(event, BackfillCounted) else None
            ),
        )

    if fails_at:
        with pytest.raises(CheckpointError, match="torn out"):
            once()
        assert not counted
    once()
    start = iso(to_ms("2025-08-11T00:00:00Z") or 0)
    inside = [r for r in records if start <= r["createdAt"] < before]
    assert counted == [BackfillCounted("default", len(inside) + 1, len(inside) + 1)]
    assert bool(changed) is bool(fails_at)


def test_the_count_of_an_earlier_version(place: Place) -> None:
    """Where an earlier version began the backfill, and counted nothing, nothing is called
    missing."""
    place.fill(100)
    bounds = ("2025-08-01T00:00:00Z", "2025-10-09T08:50:00Z")
    assert backfill(place, *bounds)
    with contextlib.closing(sqlite3.connect(place.storage)) as db, db:
        db.execute("UPDATE slice SET records=NULL")
    counted: list[object] = []
    assert backfill(place, *bounds, observe=counted.append)
    assert counted[-1] == BackfillCounted("default", None, 200)
    view = BackfillView(Console(file=io.StringIO()), time.monotonic)
    view(counted[-1])
    assert view.missing == 0
    assert "an earlier version" in view.counted()[0]


def test_the_same_and_another_range(place: Place) -> None:
    """A finished range is not delivered again unless with --restart; another range is refused
    while one is unfinished, with exit code 2 and the words that go on with it."""
    records = place.fill(300)
    place.alloy.configure(max_limit=PAGE)
    words = ["backfill", "--from", "2025-08-01T00:00:00Z", "--to", "2025-10-09T08:00:00Z"]
    for _ in range(2):
        done = place.command(*words)
        assert done.code == 0, done.err
        place.assert_exactly_once(place.ended(records))
    assert "is done; --restart" in done.err
    place.judge = lambda received: Answer(status=503)
    process = place.start(*words, "--restart")
    known = place.otlp.request_count
    assert place.otlp.wait_for(lambda otlp: otlp.request_count > known)
    process.terminate()
    assert place.end(process).code == 1
    place.judge = lambda received: None
    refused = place.command("backfill", "--from", "1d")
    assert refused.code == 2
    assert "`--from 2025-08-01T00:00:00Z --to 2025-10-09T08:00:00Z`" in refused.err
    assert place.command(*words).code == 0
    assert set(place.sent("traces").values()) == {2}
    assert place.command("backfill", "--from", "1m").code == 2, "the overlap leaves nothing"


def test_the_same_words_later(place: Place) -> None:
    """The same command again delivers only what has come since, with what the overlap before it
    tells; other words that reach into the same time deliver it again, and say so."""
    place.alloy.store.add(record(place, "first", "executionFinished", 5 * DAY))
    place.alloy.store.add(record(place, "again", "executionError", 90))
    words = ("backfill", "--from", "60d")
    assert place.command(*words, OTEL_ALLOY_OVERLAP="60s").code == 0
    place.assert_exactly_once(["first", "again"])
    place.now += 65
    place.alloy.store.add(record(place, "again", "executionFinished", 63))
    done = place.command(*words, OTEL_ALLOY_OVERLAP="60s")
    assert done.out.startswith("1 executions: 0 spans and 1 log records"), done.out
    assert place.sent("traces") == {"first": 1, "again": 1}
    assert place.sent("logs") == {"first": 1, "again": 2}
    done = place.command("backfill", "--from", "6d", OTEL_ALLOY_OVERLAP="60s")
    assert "is delivered again, with the same bytes" in done.err
    assert place.sent("traces") == {"first": 2, "again": 2}


def test_where_run_has_just_begun(place: Place) -> None:
    """What lies before a `run` that began within the last overlap is waited for, so that nothing
    falls between the two; a `run` that has settled nothing yet is not guessed at."""
    place.now = time.time()
    place.alloy.clock = place.alloy.store._clock = time.time
    storage = f"sqlite:///{place.storage}"
    with contextlib.closing(open_store(storage)) as run:
        run.load("default", place.settings().sources[0].fingerprint)
        with pytest.raises(ConfigurationError, match="give --to"):
            backfill(place, "1h", None)
    place.receive(since="0s", overlap=1)
    began = open_store(storage, exclusive=False)
    begin = began.sources()["default"].begin
    began.close()
    assert begin is not None
    created = iso(begin - 1)
    place.alloy.store.add(record(place, "between", "executionFinished", 0) | {"createdAt": created})
    assert backfill(place, "1h", None, settings={"overlap": 1})
    place.assert_exactly_once(["between"])


def test_starts_do_not_pile_up(place: Place) -> None:
    """Executions that never ended are forgotten after incomplete_after, so that the checkpoint does
    not grow with them."""
    for hour in range(300, 0, -1):
        place.alloy.store.add(record(place, f"open-{hour}", "executionStarted", hour * HOUR))
        place.alloy.store.add(record(place, f"done-{hour}", "executionFinished", hour * HOUR))
    most = 0

    class Looking(StoredSlices):
        def settle(self, piece: Slice, settlement: Settlement) -> int:
            nonlocal most
            new = super().settle(piece, settlement)
            most = max(most, *self._database.read("SELECT count(*) FROM open_execution")[0])
            return new

    assert backfill(
        place,
        workers=1,
        settings={"batch_size": 10, "page_size": 10},
        slices=lambda url: Looking(open_store(url, exclusive=False)),
    )
    place.assert_exactly_once(f"done-{hour}" for hour in range(1, 301))
    assert 0 < most < 60


@pytest.mark.parametrize("active", [False, True])
def test_throttled(place: Place, active: bool) -> None:
    """A 429 holds all workers for as long as Alloy says, and twice as long beside a `run`, which
    so comes first."""
    owner = open_store(f"sqlite:///{place.storage}") if active else None
    runtime = replace(system_runtime(), monotonic=lambda: 100.0)
    slices = open_slices(f"sqlite:///{place.storage}")
    source = place.settings(requests_per_minute=0).sources[0]
    shared = Shared(source, slices, 2, RequestBudget(0, runtime), runtime)
    shared.on_event(RequestRetried(source.name, Throttled("429", after=3.0), 1, 3.0))
    waits = [shared.budget.take() for _ in range(2)]
    shared.slices.close()
    if owner is not None:
        owner.close()
    assert waits == [6.0 if active else 3.0] * 2


def test_dry_run(place: Place) -> None:
    """--dry-run tells requests and time from a handful of requests, close to what it then takes,
    and delivers nothing; where the API counts something else, it says that it cannot tell."""
    place.fill(2000)
    place.alloy.configure(max_limit=PAGE)
    words = ("backfill", "--from", "60d", "--to", "5m")
    done = place.command(*words, "--dry-run", OTEL_ALLOY_REQUESTS_PER_MINUTE="60")
    assert done.code == 0, done.err
    assert len(place.alloy.requests) <= 12
    assert place.otlp.request_count == 0
    assert "4000 records" in done.out
    assert "2 min" in done.out
    told = int(done.out.split(" requests,")[0].split()[-1])
    known = len(place.alloy.requests)
    place.command(*words)
    assert len(place.alloy.requests) - known == pytest.approx(told, rel=0.2)
    for knobs, why in (({"total_items": "all"}, "believed"), ({"ignore_filters": True}, "newest")):
        place.alloy.configure(**knobs)
        done = place.command(*words, "--dry-run", "--restart")
        assert done.code == 0, done.err
        assert why in done.out


def test_wrong_key(place: Place) -> None:
    """A key that Alloy refuses is exit code 3."""
    place.alloy.configure(api_key="another")
    assert place.command("backfill", "--from", "1d").code == 3


def test_where_it_ends(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """It ends an overlap before now and says so; a range that reaches into what `run` read is
    delivered again with a warning."""
    place.fill(20, days=1)
    place.receive(since="2h")
    with caplog.at_level(logging.INFO, "otel_alloy"):
        assert backfill(place, "1d", "0s")
    assert any("may still appear" in m for m in caplog.messages)
    assert any("delivered again, with the same bytes" in m for m in caplog.messages)
    assert len(place.bytes_sent("traces")) == 20
    with pytest.raises(ConfigurationError, match="is empty"):
        backfill(place, "1h", None)


def test_the_budget_changes() -> None:
    """After a change the new rate holds; the burst of the old one is not kept."""
    now = 0.0
    budget = RequestBudget(60, replace(system_runtime(), monotonic=lambda: now))
    budget.change(30)
    waits = [budget.take() for _ in range(60)]
    now = 60.0
    assert [wait for wait in waits if wait][:2] == [2.0, 4.0]
    assert len([wait for wait in waits if not wait]) == 30


def test_what_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Not on a terminal: a line every 30 s with share, rate, requests and time that are left."""
    now = 0.0
    view = BackfillView(Console(file=io.StringIO()), lambda: now)
    settled = Settled(source="s", counts=COUNTS, position=POSITION)
    with view, caplog.at_level(logging.INFO, "otel_alloy"):
        view(Planned("s", 1000, 400))
        for _ in range(2):
            now += 20
            view(settled)
            view(Advanced("s", 100))
    (line,) = caplog.messages
    assert line.startswith(
        "source s: 50 %, 100 executions (2/s), about 8 requests left, about 41.0 s"
    )
    assert view.sentence().startswith("100 executions: 100 spans and 100 log records delivered")


def test_a_bar_on_a_terminal() -> None:
    """On a terminal a bar shows the same."""
    out = io.StringIO()
    with BackfillView(Console(file=out, force_terminal=True, width=120), time.monotonic) as view:
        view(Planned("s", 1000, None))
        view(Settled(source="s", counts=COUNTS, position=POSITION))
        view(Advanced("s", 250))
        assert view._bar is not None
        view._bar.refresh()
    assert "25 %" in out.getvalue()
    assert "about 12 requests left" in out.getvalue()
