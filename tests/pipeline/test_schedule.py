"""Many sources in one process: who has a turn and a thread, who rests, and how all of it ends."""

from __future__ import annotations

import gc
import itertools
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from otel_alloy.pipeline.events import CycleEnded, Requested
from otel_alloy.pipeline.receiver import Receiver
from otel_alloy.pipeline.schedule import Schedule, Turns, parts, rest_after
from otel_alloy.runtime import Task, system_runtime
from otel_alloy.testing.otlp_endpoint import Received

if TYPE_CHECKING:
    from conftest import Place

PATIENCE = 60.0
DAY = 86_400.0
MANY = 50


def ended(threads: Iterable[threading.Thread]) -> bool:
    """Whether these end in time."""
    for thread in threads:
        thread.join(PATIENCE)
        if thread.is_alive():
            return False
    return True


def of_sources() -> list[threading.Thread]:
    """The threads that work for a source."""
    return [t for t in threading.enumerate() if t.name.startswith("otel-alloy")]


def connections(place: Place) -> int:
    """How many connections this process has to Alloy or the OTLP endpoint."""
    ends = {urlsplit(url).port for url in (place.alloy.endpoint, place.otlp.http_endpoint)}
    found = 0
    for one in gc.get_objects():
        if isinstance(one, socket.socket) and one.fileno() >= 0:
            with suppress(OSError):  # it is not connected
                found += one.getpeername()[1:2] in {(end,) for end in ends}
    return found


@contextmanager
def running(receiver: Receiver) -> Iterator[threading.Thread]:
    """A receiver at work, stopped in the end."""
    thread = threading.Thread(target=receiver.run, name="the receiver")
    thread.start()
    try:
        yield thread
    finally:
        receiver.stop()
        assert ended([thread])


class Noted:
    """A watcher of many sources, that can be waited for."""

    def __init__(self) -> None:
        self.rests: dict[str, float] = {}
        self.asked: set[str] = set()
        self.all_rest = threading.Event()

    def __call__(self, event: object) -> None:
        if isinstance(event, Requested):
            self.asked.add(event.source)
        if isinstance(event, CycleEnded):
            self.rests[event.source] = event.rest
            if len(self.rests) == MANY:
                self.all_rest.set()


def many(place: Place, **changes: object) -> tuple[Receiver, Noted]:
    """A receiver of fifty sources, each with a key of its own."""
    noted = Noted()
    sources = [{"name": f"s{n:02}", "api_key": f"key-{n}"} for n in range(MANY)]
    settings = place.settings(sources=sources, collection_interval=DAY, audit="off", **changes)
    return Receiver(settings, observe=noted), noted


def test_who_rests_holds_no_thread_and_all_rest_spread(place: Place) -> None:
    """Fifty sources are all asked at the start, and their next cycles lie evenly over the interval;
    until then no thread and no connection is theirs, and stopping does not wait for any of them."""
    records = place.fill(3)
    receiver, noted = many(place)
    with running(receiver) as thread:
        assert noted.all_rest.wait(PATIENCE)
        assert ended(of_sources())
        assert not of_sources() and thread.is_alive()
        assert place.otlp.span_count == MANY * len(place.ended(records))
        assert not connections(place)
        assert len(noted.asked) == MANY
        for number, rest in enumerate(sorted(noted.rests.values()), start=1):
            assert 0 <= DAY * number / MANY - rest < PATIENCE
    assert not of_sources()


def test_a_source_that_hangs_holds_up_no_other() -> None:
    """While one turn does not come back, others come and go; each of them at its time, and none
    twice at once."""
    hang, runtime = threading.Event(), system_runtime()
    schedule = Schedule(runtime)
    turns, at_once = {"one": 0, "two": 0}, {"one": 0, "two": 0}

    def take(name: str) -> float | None:
        at_once[name] += 1
        assert at_once[name] == 1
        turns[name] += 1
        at_once[name] -= 1
        if min(turns.values()) >= 20:
            hang.set()
        return 0.0 if turns[name] < 20 else None

    def hanging() -> float | None:
        assert hang.wait(PATIENCE)
        return None

    everybody = [
        Turns("hangs", hanging),
        *(Turns(name, partial(take, name)) for name in turns),
    ]
    assert schedule.run(everybody, 0.0)
    assert turns == {"one": 20, "two": 20} and hang.is_set()


@pytest.mark.parametrize("taken", [0.0, 4.0, 29.0])
def test_sources_that_are_slow_at_the_start_are_spread_all_the_same(taken: float) -> None:
    """However long the first turns take, as long as it is less than an interval, the second ones
    begin in places of their own; a turn that took longer is followed at once by the next."""
    begin = [
        round((taken + rest_after(taken, 30.0, part)) % 30.0, 6) % 30.0 for part in parts(MANY)
    ]
    assert sorted(begin) == [round(0.6 * n, 6) for n in range(MANY)]
    assert rest_after(10.0, 30.0) == 20.0
    assert rest_after(31.0, 30.0) == rest_after(31.0, 30.0, 0.5) == 0.0


@pytest.mark.parametrize(("patience", "all_ended"), [(0.0, False), (PATIENCE, True)])
def test_stop_wakes_who_rests_and_waits_for_who_is_busy(patience: float, all_ended: bool) -> None:
    """After `stop` no turn begins, those that go on are waited for, and no longer than that."""
    runtime = system_runtime()
    schedule = Schedule(runtime)
    begun, release = threading.Event(), threading.Event()
    taken: list[str] = []
    results: list[bool] = []

    def busy() -> float | None:
        taken.append("busy")
        begun.set()
        assert release.wait(PATIENCE)
        return 0.0

    def rests() -> float | None:
        taken.append("rests")
        return DAY

    def run() -> None:
        results.append(schedule.run([Turns("busy", busy), Turns("rests", rests)], patience))

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(PATIENCE)
    runtime.stop()
    schedule.wake()
    if all_ended:
        release.set()
    assert ended([thread])
    release.set()
    assert results == [all_ended]
    assert taken.count("busy") == 1 and taken.count("rests") <= 1


def test_a_machine_that_gives_no_thread_delays_a_turn() -> None:
    """Where no thread can be had at the moment, the turn is taken when one can."""
    machine = system_runtime()
    refusals = iter([True, True])

    def spawn(function: Callable[[], None], name: str) -> Task:
        if next(refusals, False):
            raise RuntimeError("can't start new thread")
        return machine.spawn(function, name)

    runtime = replace(machine, spawn=spawn, monotonic=itertools.count().__next__)
    taken: list[str] = []

    def take() -> float | None:
        taken.append("a turn")
        return None

    assert Schedule(runtime).run([Turns("one", take)], 0.0)
    assert taken == ["a turn"]


def test_a_receiver_that_is_stopped_while_it_delivers(place: Place) -> None:
    """What is in flight when the end is asked for is settled; the sources that rest are not waited
    for."""
    records = place.fill(20)
    arrived, release = threading.Event(), threading.Event()

    def judge(received: Received) -> None:
        arrived.set()
        assert release.wait(PATIENCE)

    place.judge = judge
    receiver = Receiver(place.settings(collection_interval=DAY))
    with running(receiver):
        assert arrived.wait(PATIENCE)
        receiver.stop()
        release.set()
    place.judge = lambda received: None
    place.receive()
    place.assert_exactly_once(place.ended(records))
