"""Threads: all work is done, by no more of them than allowed, and they end when there is none."""

from __future__ import annotations

import threading
from collections import Counter

from otel_alloy.destinations.crew import Crew
from otel_alloy.runtime import system_runtime


def test_all_work_is_done_by_at_most_so_many_threads() -> None:
    """What is refused because all are busy can be given again; nothing is lost or done twice."""
    done: Counter[int] = Counter()
    lock = threading.Lock()
    names: set[str] = set()
    ended = threading.Semaphore(0)
    crew = Crew("crew", 4, system_runtime(), idle=0.001)

    def work(number: int) -> None:
        with lock:
            done[number] += 1
            names.add(str(threading.get_ident()))
        ended.release()

    for number in range(2000):
        while not crew.begin(lambda number=number: work(number)):  # type: ignore[misc]
            threading.Event().wait(0.0005)
    for _ in range(2000):
        assert ended.acquire(timeout=20)
    assert len(done) == 2000 and set(done.values()) == {1}


def test_no_more_than_allowed_are_busy() -> None:
    """The one too many is told so, and has its turn when another has ended."""
    crew, release, entered = Crew("crew", 2, system_runtime()), threading.Event(), []
    begun = threading.Semaphore(0)

    def work() -> None:
        entered.append(1)
        begun.release()
        release.wait(20)
        begun.release()

    assert crew.begin(work) and crew.begin(work)
    assert begun.acquire(timeout=20) and begun.acquire(timeout=20)
    assert not crew.begin(work)
    release.set()
    assert begun.acquire(timeout=20) and begun.acquire(timeout=20)
    while not crew.begin(work):
        threading.Event().wait(0.001)
    assert begun.acquire(timeout=20)
