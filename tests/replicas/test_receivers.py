"""Receivers that share sources in a real PostgreSQL: who works at what, and what arrives."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from otel_alloy.alloy.timestamps import to_text
from otel_alloy.checkpoint.leases import Leases
from otel_alloy.checkpoint.store import open_shared, open_store
from otel_alloy.mapping import semconv
from otel_alloy.pipeline.events import CycleEnded, LeasesLooked, LeaseTaken
from otel_alloy.pipeline.receiver import Receiver
from otel_alloy.testing.otlp_endpoint import Answer, OtlpEndpoint, Received, attributes
from otel_alloy.testing.simulator import Record, iso

if TYPE_CHECKING:
    from conftest import Place

pytestmark = pytest.mark.parametrize("storage", ["pgbouncer"], indirect=True)
LEASE = 3.0
PATIENCE = 60.0


class Replica:
    """A receiver at work in threads of this process, and what it tells."""

    def __init__(self, place: Place, **settings: Any) -> None:
        self.mine: frozenset[str] = frozenset()
        self.unowned: tuple[str, ...] = ()
        self.takeovers: list[str] = []
        self.cycles: Counter[str] = Counter()
        self.told = threading.Condition()
        given = {"collection_interval": 1, "lease": LEASE, "audit": "off", **settings}
        self.receiver = Receiver(place.settings(**given), observe=self._see)
        self._thread = threading.Thread(target=self.receiver.run, daemon=True)
        self._thread.start()

    def _see(self, event: object) -> None:
        with self.told:
            match event:
                case LeasesLooked():
                    self.mine, self.unowned = event.mine, event.unowned
                case LeaseTaken(takeover=True):
                    self.takeovers.append(event.unit)
                case CycleEnded():
                    self.cycles[event.source] += 1
            self.told.notify_all()

    def until(self, done: Callable[[], bool]) -> None:
        """Waits for what it tells."""
        with self.told:
            assert self.told.wait_for(done, PATIENCE), (self.mine, self.unowned)

    def stop(self) -> None:
        self.receiver.stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def sources(number: int) -> list[dict[str, str]]:
    """So many, each of which gets all executions."""
    return [{"name": f"s{n}", "api_key": f"key-{n}"} for n in range(number)]


@contextmanager
def replicas(place: Place, number: int, **settings: Any) -> Iterator[list[Replica]]:
    some = [Replica(place, **settings) for _ in range(number)]
    try:
        yield some
    finally:
        for one in some:
            one.stop()


def test_three_replicas_share_and_hand_over(place: Place, storage: str) -> None:
    """Three replicas come to have three of nine sources each, and every execution is delivered
    once. When two of them end, the last one has all within a lease time, without a takeover: they
    were handed over. Nothing is delivered again for it."""
    records = place.fill(30)
    with replicas(place, 3, storage=storage, sources=sources(9)) as some:
        for one in some:
            one.until(lambda one=one: len(one.mine) == 3)  # type: ignore[misc]
        assert frozenset().union(*(one.mine for one in some)) == {f"source s{n}" for n in range(9)}
        for one in some:
            one.until(lambda one=one: all(one.cycles[u[7:]] for u in one.mine))  # type: ignore[misc]
        some[0].stop()
        some[1].stop()
        begun = monotonic()
        some[2].until(lambda: len(some[2].mine) == 9)
        assert monotonic() - begun < LEASE
        some[2].until(lambda: all(some[2].cycles[f"s{n}"] for n in range(9)))
        assert not any(one.takeovers for one in some)
    place.assert_exactly_once(place.ended(records) * 9)


class Processes:
    """Replicas as processes of their own, and what the database shows of them."""

    def __init__(self, place: Place, storage: str, number: int) -> None:
        self._place = place
        self.names = {f"s{n}" for n in range(number)}
        (place.folder / "settings.json").write_text(json.dumps({"sources": sources(number)}))
        place.environment |= {
            "OTEL_ALLOY_STORAGE": storage,
            "OTEL_ALLOY_LEASE": f"{LEASE:g}s",
            "OTEL_ALLOY_COLLECTION_INTERVAL": "1s",
            "OTEL_ALLOY_AUDIT": "off",
            "OTEL_ALLOY_CONFIG": "settings.json",
        }
        self._database = open_shared(storage)
        self._leases = Leases(self._database, LEASE)
        self.called: dict[int, str] = {}
        self.running: list[subprocess.Popen[str]] = []

    def start(self) -> subprocess.Popen[str]:
        """Another one; it is waited for until it takes part."""
        known = {one.name for one in self._leases.board().replicas}
        process = self._place.start("run", "--since", "60d")
        self.running.append(process)
        until(lambda: {one.name for one in self._leases.board().replicas} - known)
        (self.called[process.pid],) = {one.name for one in self._leases.board().replicas} - known
        return process

    def owners(self) -> dict[str, str]:
        """Who validly holds each source."""
        board = self._leases.board()
        return {one.unit[7:]: one.owner for one in board.leases if one.valid and one.owner}

    def alive(self, process: subprocess.Popen[str]) -> bool:
        """Whether a replica is heard."""
        name = self.called[process.pid]
        return any(one.alive for one in self._leases.board().replicas if one.name == name)

    def epochs(self) -> dict[str, int]:
        return {one.unit[7:]: one.epoch for one in self._leases.board().leases}

    def spread(self) -> bool:
        """Whether all sources have owners, and these have about as many."""
        counts = Counter(self.owners().values())
        live = [one for one in self._leases.board().replicas if one.alive]
        most, least = max(counts.values(), default=0), min(counts.values(), default=0)
        return (
            sum(counts.values()) == len(self.names)
            and len(counts) == len(live)
            and (most - least <= 1)
        )

    def high(self) -> dict[str, int]:
        """How far each source is settled."""
        with closing(open_store(self._place.environment["OTEL_ALLOY_STORAGE"])) as store:
            return {name: progress.high or 0 for name, progress in store.sources().items()}

    def close(self) -> None:
        """Kills all of them."""
        for process in self.running:
            process.kill()
        self._database.close()


def later(place: Place, number: int, name: str = "later") -> list[Record]:
    """Executions that have ended just now, a minute later than the last."""
    place.now += 60
    found = []
    for n in range(number):
        created = iso(round((place.now - 1 - n / 100) * 1000))
        found.append(
            {
                "_id": f"{name}-{n}",
                "message": "executionFinished",
                "userId": "user-1",
                "data": {"executionId": f"e-{name}-{n}", "executionUuid": f"uuid-{name}-{n}"},
                "startedAt": created,
                "completedAt": created,
                "createdAt": created,
            }
        )
    return found


def arrived(endpoint: OtlpEndpoint) -> Counter[str]:
    """How often each execution arrived as a span."""
    return Counter(
        attributes(item.record.attributes)[semconv.EXECUTION_ID]
        for item in endpoint.items("traces")
    )


def until(done: Callable[[], object], within: float = PATIENCE) -> float:
    """Looks again and again; how long it took, s."""
    begun, pause = monotonic(), threading.Event()
    while not done():
        assert monotonic() - begun < within, "it did not come"
        pause.wait(0.05)
    return monotonic() - begun


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_a_replica_that_goes_is_replaced(place: Place, storage: str, fault: signal.Signals) -> None:
    """One of three replicas is killed, paused for longer than a lease, or asked to end, while
    executions keep coming. Within one lease time and what a look may be late others have its
    sources, of which each gets the next epoch. Every execution arrives; what arrives twice does so
    byte for byte, and is at most one batch of each source that was taken over. No cursor goes
    back; who was paused goes on as one of three."""
    records = place.fill(60)
    with closing(Processes(place, storage, 6)) as some:
        victim, *_ = [some.start() for _ in range(3)]
        until(some.spread)
        until(lambda: place.otlp.span_count >= 6 * len(place.ended(records)))
        before, high = some.owners(), some.high()
        shown = json.loads(place.command("replicas", "--json").out)
        assert Counter(len(one["leases"]) for one in shown["replicas"]) == {2: 3}
        assert all(
            lease["epoch"] and lease["expires_in"] > 0
            for one in shown["replicas"]
            for lease in one["leases"]
        )
        assert shown["unowned"] == []
        assert place.command("replicas").out.count(" held, ") == 3
        gone = some.called[victim.pid]
        more = later(place, 40)
        victim.send_signal(fault)
        for record in more:
            place.alloy.store.add(record)
        took = until(lambda: gone not in some.owners().values() and len(some.owners()) == 6)
        assert took < LEASE * 1.4
        moved = {name for name, owner in before.items() if owner == gone}
        assert moved and all(some.epochs()[name] >= 2 for name in moved)
        if fault is signal.SIGSTOP:
            victim.send_signal(signal.SIGCONT)
            until(lambda: gone in some.owners().values() and some.spread())
        elif fault is signal.SIGTERM:
            assert place.end(victim).code == 0
        wanted = Counter(place.ended([*records, *more]) * 6)
        until(lambda: not wanted - place.sent("traces") and not wanted - place.sent("logs"))
        assert all(some.high()[name] >= high[name] for name in some.names)
    for kind in ("traces", "logs"):
        again = place.sent(kind) - wanted
        assert sum(again.values()) <= len(moved) * len(place.ended(more))
        assert len(place.bytes_sent(kind)) == len(wanted)


@pytest.mark.parametrize("hears", [None, Answer(status=503)], ids=["delivered", "busy"])
def test_a_replica_that_slept_in_the_middle_of_a_batch(
    place: Place, storage: str, hears: Answer | None
) -> None:
    """A replica is paused after the endpoint has its batch and before it `hears` of it. Another one
    delivers that batch and more. When the first one wakes, it neither writes nor sends again: the
    cursor stays, that one batch came twice with the same bytes at most, and nothing else did. When
    it is stopped then, nothing of its own is on its way: exit code 0."""
    records = place.fill(20)
    sleeps, release, held = threading.Event(), threading.Event(), threading.Event()

    def judge(received: Received) -> Answer | None:
        if sleeps.is_set() and not held.is_set():
            held.set()
            assert release.wait(PATIENCE)
            return hears
        return None

    place.judge = judge
    with closing(Processes(place, storage, 1)) as some:
        first = some.start()
        until(lambda: place.otlp.span_count >= len(place.ended(records)))
        until(lambda: some.high().get("s0"))
        other = some.start()
        sleeps.set()
        batch = later(place, 10)
        for record in batch:
            place.alloy.store.add(record)
        assert held.wait(PATIENCE)
        first.send_signal(signal.SIGSTOP)
        until(lambda: some.owners() == {"s0": some.called[other.pid]})
        until(lambda: all(place.sent("traces")[id] for id in place.ended(batch)))
        more = later(place, 10, "more")
        for record in more:
            place.alloy.store.add(record)
        wanted = Counter(place.ended([*records, *batch, *more]))
        until(lambda: not wanted - place.sent("traces") and not wanted - place.sent("logs"))
        newest = max(str(record["createdAt"]) for record in more)
        until(lambda: to_text(some.high()["s0"]) == newest)
        first.send_signal(signal.SIGCONT)
        release.set()
        until(lambda: some.alive(first))
        first.send_signal(signal.SIGTERM)  # what it was at has come to an end then
        assert place.end(first).code == 0
        assert to_text(some.high()["s0"]) == newest
        assert some.epochs() == {"s0": 2}
    for kind in ("traces", "logs"):
        again = place.sent(kind) - wanted
        assert set(again) <= set(place.ended(batch)) and set(again.values()) <= {1}
        assert len(place.bytes_sent(kind)) == len(wanted)
    assert hears or place.sent("traces") != wanted or place.sent("logs") != wanted


def test_destinations_are_shared_too(place: Place, storage: str) -> None:
    """Two replicas share four destinations and one source: what the source's replica puts into the
    outbox is found and delivered by whoever has the destination; when one ends, the other delivers
    to all. Each destination gets every execution once."""
    records = place.fill(30)
    units = {f"destination d{n}" for n in range(4)}
    with ExitStack() as stack:
        ends = [stack.enter_context(OtlpEndpoint()) for _ in range(4)]
        destinations = {
            f"d{n}": {"match": {"user.id": "*"}, "otlp": {"endpoint": end.http_endpoint}}
            for n, end in enumerate(ends)
        }

        def all_have(wanted: Counter[str]) -> bool:
            return all(arrived(end) == wanted for end in ends)

        with replicas(place, 2, storage=storage, destinations=destinations) as some:
            for one in some:
                one.until(lambda one=one: len(one.mine & units) == 2)  # type: ignore[misc]
            until(lambda: all_have(Counter(place.ended(records))))
            some[0].stop()
            some[1].until(lambda: units < some[1].mine)
            more = later(place, 10)
            for record in more:
                place.alloy.store.add(record)
            wanted = Counter(place.ended([*records, *more]))
            until(lambda: all_have(wanted))
        assert all_have(wanted)
    place.assert_exactly_once(wanted)


def test_a_key_that_is_refused_ends_the_process(place: Place, storage: str) -> None:
    """With every source refused the process ends as it does with a file, and gives all back."""
    place.alloy.configure(api_key="another")
    place.environment["OTEL_ALLOY_STORAGE"] = storage
    assert place.command("run").code == 3
    shown = json.loads(place.command("replicas", "--json").out)
    assert shown["replicas"] == [] and shown["unowned"] == ["source default"]


def test_once_waits_for_nothing_that_another_has(place: Place, storage: str) -> None:
    """`run --once` beside a replica that has the source ends by itself and delivers nothing again;
    alone it delivers everything there is."""
    records = place.fill(20)
    place.receive(storage=storage)
    place.assert_exactly_once(place.ended(records))
    with replicas(place, 1, storage=storage) as (one,):
        one.until(lambda: one.cycles["default"] > 0)
        place.receive(storage=storage)
    place.assert_exactly_once(place.ended(records))
