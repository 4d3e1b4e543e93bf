"""Processes that share a backfill, and commands that hold something alone, on a real PostgreSQL."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from otel_alloy.checkpoint.database import Database
from otel_alloy.checkpoint.holding import Terms
from otel_alloy.checkpoint.leases import Leases, Presence
from otel_alloy.checkpoint.migrate import migrate
from otel_alloy.checkpoint.store import (
    Plan,
    Progress,
    RejectedRecord,
    Settlement,
    Slice,
    open_shared,
    open_slices,
    open_store,
)
from otel_alloy.errors import CheckpointError, LeaseLost
from otel_alloy.mapping import semconv
from otel_alloy.terminal.replicas import lines, unowned
from otel_alloy.testing.otlp_endpoint import Answer, Received, attributes

if TYPE_CHECKING:
    from conftest import Place

pytestmark = pytest.mark.parametrize("storage", ["pgbouncer"], indirect=True)
LEASE = 3.0
PATIENCE = 60.0
WORDS = ("backfill", "--from", "60d")
BATCH, WORKERS = 40, 2


def until(done: Callable[[], object]) -> None:
    """Looks again and again."""
    begun, pause = monotonic(), threading.Event()
    while not done():
        assert monotonic() - begun < PATIENCE, "it did not come"
        pause.wait(0.05)


@dataclass
class Seen:
    """What the database shows. `expire`: ends all leases, as when nobody was there for long."""

    database: Database

    def owners(self) -> set[str | None]:
        return {one.owner for one in Leases(self.database, LEASE).board().leases if one.valid}

    def slices(self) -> list[Any]:
        return sorted(self.database.read("SELECT * FROM slice"), key=repr)

    def expire(self) -> None:
        self.database.transact(
            lambda db: db.execute("UPDATE lease SET expires_at=clock_timestamp()")
        )


@pytest.fixture
def seen(storage: str) -> Iterator[Seen]:
    with closing(open_shared(storage)) as database:
        yield Seen(database)


@pytest.fixture
def shared(place: Place, storage: str) -> Place:
    """A place whose commands keep their checkpoint in PostgreSQL."""
    place.environment |= {
        "OTEL_ALLOY_STORAGE": storage,
        "OTEL_ALLOY_LEASE": f"{LEASE:g}s",
        "OTEL_ALLOY_BATCH_SIZE": str(BATCH),
        "OTEL_EXPORTER_OTLP_TIMEOUT": "60000",
    }
    place.alloy.configure(max_limit=BATCH)
    return place


def assert_at_most_twice(place: Place, ended: list[str], batches: int) -> None:
    """Everything arrived; what did so twice is at most so many batches, with the same bytes."""
    for kind in ("traces", "logs"):
        sent, wanted = place.sent(kind), Counter(ended)
        if not sent and kind == "traces":
            continue  # off
        assert not wanted - sent and set(sent) == set(wanted)
        assert max(sent.values()) <= 2
        # A batch is full with the page that fills it.
        assert sum((sent - wanted).values()) <= batches * 2 * BATCH
        assert len(place.bytes_sent(kind)) == len(wanted)


def test_two_processes_share_the_slices(shared: Place, seen: Seen) -> None:
    """The same command twice at once: both have slices at the same time, both come to the end, and
    each execution arrives exactly once. Again it has nothing to do. A third one with another range
    is refused meanwhile, and `--restart` too."""
    records = shared.fill(1500)
    together = threading.Event()

    def judge(received: Received) -> None:
        until(lambda: together.is_set())

    shared.judge = judge
    first = shared.start(*WORDS, "--workers", str(WORKERS))
    until(lambda: len(seen.owners()) == 2)  # a process each
    second = shared.start(*WORDS, "--workers", str(WORKERS))
    until(lambda: len(seen.owners()) > 2)
    other = shared.command("backfill", "--from", "30d")
    assert other.code != 0 and "is not finished" in other.err
    anew = shared.command(*WORDS, "--restart")
    assert anew.code != 0 and "another process is working at this backfill" in anew.err
    together.set()
    for process in (first, second):
        done = shared.end(process)
        assert done.code == 0, done.err
    assert shared.command(*WORDS).out.startswith("0 executions")
    shared.assert_exactly_once(shared.ended(records))
    assert not seen.owners()


def test_killed_in_the_middle_of_a_slice(shared: Place, seen: Seen) -> None:
    """One of two is killed with SIGKILL while its batches are on their way. The other goes on from
    where those slices were settled, once their leases have expired."""
    records = shared.fill(1500)
    asked, reached, release = 0, threading.Event(), threading.Event()

    def judge(received: Received) -> None:
        nonlocal asked
        asked += 1
        if asked > 9:
            reached.set()
            assert release.wait(PATIENCE)

    shared.judge = judge
    victim = shared.start(*WORDS, "--workers", str(WORKERS))
    assert reached.wait(PATIENCE)
    gone = seen.owners()
    other = shared.start(*WORDS, "--workers", str(WORKERS))
    until(lambda: seen.owners() - gone)
    victim.kill()
    release.set()
    done = shared.end(other)
    assert done.code == 0, done.err
    assert_at_most_twice(shared, shared.ended(records), WORKERS)
    assert not any(row for row in seen.slices() if "done" not in row)


def test_paused_beyond_the_lease(shared: Place, seen: Seen) -> None:
    """One of two is paused after the endpoint has its batches and before it hears so, for longer
    than a lease. The other one finishes. When the first one wakes, it writes nothing: no slice
    moves, and it ends well, as all is done."""
    shared.environment["OTEL_ALLOY_REQUESTS_PER_MINUTE"] = "100000"  # so in one process each
    shared.environment["OTEL_TRACES_EXPORTER"] = "none"  # so that only the write is left to do
    records = shared.fill(1500)
    sleeps, held, release = threading.Event(), threading.Semaphore(0), threading.Event()
    on_their_way: set[str] = set()

    def judge(received: Received) -> None:
        if not sleeps.is_set():
            ids = (attributes(one.record.attributes) for one in received.items())
            on_their_way.update(one[semconv.EXECUTION_ID] for one in ids)
            held.release()
            assert release.wait(PATIENCE)

    shared.judge = judge
    first = shared.start(*WORDS, "--workers", str(WORKERS))
    for _ in range(WORKERS):
        assert held.acquire(timeout=PATIENCE)
    first.send_signal(signal.SIGSTOP)
    sleeps.set()
    second = shared.end(shared.start(*WORDS, "--workers", str(WORKERS)))
    assert second.code == 0, second.err
    before = seen.slices()
    assert all("done" in row for row in before)
    release.set()
    first.send_signal(signal.SIGCONT)
    done = shared.end(first)
    assert seen.slices() == before
    assert done.code == 0 and "is lost: it goes on elsewhere" in done.err, done.err
    assert_at_most_twice(shared, shared.ended(records), WORKERS)
    assert set(shared.sent("logs") - Counter(shared.ended(records))) == on_their_way


def test_processes_that_begin_at_once_have_one_plan(storage: str) -> None:
    """Of eight that write a plan after the same look exactly one does; then they claim each of its
    slices once. What one has, its death alone gives away, with a write by nobody but the next."""
    with ExitStack() as stack:
        terms = Terms(60.0)
        some = [stack.enter_context(closing(open_slices(storage, terms=terms))) for _ in range(8)]
        ready = threading.Barrier(8)

        def begin(number: int) -> tuple[bool, list[Slice]]:
            parts = [Slice(0, "s", n, n, n + 1) for n in range(number, 40)]
            ready.wait(PATIENCE)
            begun = some[number].begin("s", Plan("print", "all", number, 40, parts))
            ready.wait(PATIENCE)
            some[number].release("s")
            ready.wait(PATIENCE)
            return begun, list(iter(lambda: some[number].claim("s"), None))

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(begin, range(8)))
        assert sum(begun for begun, _ in found) == 1
        plan = some[0].plan("s")
        assert plan is not None
        claimed = Counter(piece.number for _, pieces in found for piece in pieces)
        assert claimed == Counter(piece.number for piece in plan.slices)
        with closing(open_shared(storage)) as database:
            Seen(database).expire()
        last = some[0]
        taken = list(iter(lambda: last.claim("s"), None))
        assert len(taken) == len(claimed)
        for number, (_, pieces) in enumerate(found[1:], 1):
            for piece in pieces:
                with pytest.raises(LeaseLost):
                    some[number].settle(piece, Settlement(Progress()))
                with pytest.raises(LeaseLost):
                    some[number].cut(piece, piece.start, piece.start)
        for piece in taken:
            last.settle(piece, Settlement(Progress()))
        assert not last.claimed("s")


def test_one_retry_at_a_time(shared: Place, seen: Seen) -> None:
    """A second `rejected retry` is refused while the first one's requests are on their way; each
    record is sent once. Drops of one whose lease was taken over are refused."""
    shared.fill(5)
    shared.judge = lambda received: Answer(rejected=5, message="too old")
    assert shared.once().code == 0
    held, release = threading.Event(), threading.Event()

    def judge(received: Received) -> None:
        held.set()
        assert release.wait(PATIENCE)

    shared.judge = judge
    first = shared.start("rejected", "retry")
    assert held.wait(PATIENCE)
    second = shared.command("rejected", "retry")
    assert second.code != 0 and "another process is sending" in second.err
    release.set()
    done = shared.end(first)
    assert done.code == 0 and "5 delivered" in done.out, done.err
    for kind in ("traces", "logs"):  # with what was refused before
        assert set(shared.sent(kind).values()) == {2}


def test_a_retry_that_slept_drops_nothing(storage: str) -> None:
    """Whoever lost its lease neither begins another batch nor drops a record; the words for the
    next one are those of a file."""
    with closing(open_store(storage)) as one, closing(open_store(storage)) as other:
        one.load("s", "print")
        aside = [RejectedRecord("s", "logs", "why", "ended", "{}")]
        one.settle("s", Settlement(Progress(1), rejected=aside))
        (number,) = [record.number for record in one.rejected()]
        with one.hold_rejected(Terms(LEASE)) as slept:
            with (
                pytest.raises(CheckpointError, match="another process is sending"),
                other.hold_rejected(Terms(LEASE)),
            ):
                raise AssertionError("both hold it")
            slept.going_on()
            Seen(one.shared).expire()
            with other.hold_rejected(Terms(LEASE)) as hold:
                with pytest.raises(LeaseLost):
                    slept.drop([number])
                until(lambda: _lost(slept.going_on))
                assert [record.number for record in one.rejected()] == [number]
                hold.drop([number])
        assert not one.rejected()


def _lost(act: Callable[[], None]) -> bool:
    try:
        act()
    except LeaseLost:
        return True
    return False


def test_what_is_used_is_not_migrated(storage: str, tmp_path: Any) -> None:
    """Neither from nor to a database where a replica is alive, a slice is held, or rejected
    records are sent again."""
    file = f"sqlite:///{tmp_path}/here.db"
    for url in (storage, file):
        with closing(open_store(url)) as store:
            store.load("s", "print")

    def refused(words: str) -> None:
        for origin, target in ((storage, file), (file, storage)):
            with pytest.raises(CheckpointError, match=words):
                migrate(origin, target, force=True)

    with closing(open_slices(storage)) as slices:
        slices.begin("s", Plan("print", "all", 0, 9, [Slice(0, "s", 0, 0, 9)]))
        assert slices.claim("s")
        refused("`backfill` is using")
        with closing(open_shared(storage)) as database:
            board = Leases(database, LEASE).board()
            assert "a command works at slice 1 s" in "".join(lines(board, 0))
            Seen(database).expire()
            assert not unowned(Leases(database, LEASE).board())
    with closing(open_store(storage)) as store:
        with store.hold_rejected():
            refused("`rejected retry` is using")
        Leases(store.shared, LEASE).renew("r", {}, Presence("1", None))
        refused("`run` is using")
        Leases(store.shared, LEASE).leave("r")
    migrate(storage, file, force=True)
