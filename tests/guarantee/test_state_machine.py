"""Any interleaving of traffic, faults at both ends and crashes, against the real receiver loop."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from otel_alloy.testing.simulator import Config

from .scale import scaled
from .world import INCOMPLETE_AFTER, OVERLAP, Model, World, log_key, span_key

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Thousands of transactions need not wait for a disk."""
TERMINAL = st.sampled_from(["executionFinished", "executionError"])
ANSWERS = st.lists(
    st.sampled_from(["ok", "ok", "lost", "busy", "unexpected", "partial", "large"]), max_size=4
)
FAULTS = st.lists(
    st.sampled_from(
        [None, None, "unavailable", "throttled", "shape", "refused", "denied", "challenged"]
    ),
    max_size=4,
)


class Guarantee(RuleBasedStateMachine):
    """Nothing lost, nothing doubled, whatever the order of events."""

    config = Config()

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self.world = World(Path(self._folder.name))

    @initialize(
        page_size=st.integers(1, 6),
        batch_size=st.integers(1, 5),
        started_logs=st.booleans(),
        envelope=st.booleans(),
        clamp=st.sampled_from([None, None, 2, 3]),
        in_place=st.booleans(),
        total=st.sampled_from(["filtered", "all"]),
        told=st.sampled_from(["asked", "given"]),
        in_memory=st.sampled_from([10_000, 0, 3]),
    )
    def begin(
        self,
        page_size: int,
        batch_size: int,
        started_logs: bool,
        envelope: bool,
        clamp: int | None,
        in_place: bool,
        total: Literal["filtered", "all"],
        told: Literal["asked", "given"],
        in_memory: int,
    ) -> None:
        self.in_place = in_place
        self.world.close()
        self.world = World(
            Path(self._folder.name),
            replace(
                self.config, envelope=envelope, max_limit=clamp, total_items=total, page_size=told
            ),
            in_memory=in_memory,
            page_size=page_size,
            batch_size=batch_size,
            started_logs=started_logs,
        )

    # Traffic --------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 8), message=TERMINAL, late=st.sampled_from([0, 0, 1, 20, 59]))
    def executions_end(self, count: int, message: str, late: int) -> None:
        """`count` executions end in the same millisecond; `late` seconds until they show."""
        for _ in range(count):
            self.world.add(self.world.execution(), message, late=late)

    @rule(count=st.integers(2, 12), message=TERMINAL)
    def executions_end_one_after_the_other(self, count: int, message: str) -> None:
        for _ in range(count):
            self.world.clock.wait(0.5)
            self.world.add(self.world.execution(), message)

    @rule(late=st.sampled_from([0, 0, 30]))
    def an_execution_starts(self, late: int) -> None:
        self.world.add(self.world.execution(), "executionStarted", late=late)

    def _pick(self, index: int, test: Callable[[Model], bool]) -> Model | None:
        found = [m for m in self.world.executions if test(m)]
        return found[index % len(found)] if found else None

    def _running(self, index: int) -> Model | None:
        """An execution that started and whose end would not be too late."""
        oldest = self.world.now - (INCOMPLETE_AFTER - 2 * OVERLAP) * 1000
        return self._pick(
            index,
            lambda m: (
                set(m.records) == {"executionStarted"}
                and (m.start_created or 0) > oldest
                and self._visible(m.records["executionStarted"])
            ),
        )

    def _visible(self, record_id: str) -> bool:
        return any(r["_id"] == record_id for r in self.world.log.records())

    @rule(index=st.integers(0, 99), message=TERMINAL, late=st.sampled_from([0, 30]))
    def a_started_one_ends_in_a_record_of_its_own(
        self, index: int, message: str, late: int
    ) -> None:
        if not self.in_place and (model := self._running(index)):
            self.world.add(model, message, late=late)

    @rule(index=st.integers(0, 99), message=TERMINAL, renewed=st.booleans())
    def a_started_one_ends_in_place(self, index: int, message: str, renewed: bool) -> None:
        if self.in_place and (model := self._running(index)):
            self.world.change(model, message, renewed=renewed)

    @rule(index=st.integers(0, 99), late=st.sampled_from([0, 30]))
    def a_failed_one_finishes_after_all(self, index: int, late: int) -> None:
        newest = self.world.now - (INCOMPLETE_AFTER - OVERLAP) * 1000
        found = self._pick(
            index,
            lambda m: (
                "executionError" in m.records
                and "executionFinished" not in m.records
                and self.world.wanted.get(log_key(m.records["executionError"], "executionError"), 0)
                > newest
                # A crash in between may turn the two round if the first was not seen yet.
                and span_key(m.uuid) in self.world.done
            ),
        )
        if found is not None:
            self.world.add(found, "executionFinished", late=late)

    @rule(index=st.integers(0, 99))
    def an_unknown_message_comes(self, index: int) -> None:
        if (model := self._running(index)) is not None:
            self.world.add(model, "executionPaused")
            del model.records["executionPaused"]

    @rule(index=st.integers(0, 99))
    def a_record_is_deleted(self, index: int) -> None:
        if (model := self._pick(index, lambda m: bool(m.records))) is not None:
            self.world.remove(model, sorted(model.records)[index % len(model.records)])

    @rule(seconds=st.sampled_from([0.001, 1, 10, OVERLAP - 1, OVERLAP + 1, 3 * OVERLAP]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.wait(seconds)

    @rule(clamp=st.sampled_from([None, 1, 2, 3, 5]), over=st.sampled_from(["clamp", "refuse"]))
    def the_api_changes_its_page_size(self, clamp: int | None, over: str) -> None:
        self.world.log.config = replace(
            self.world.log.config,
            max_limit=clamp,
            over_limit="refuse" if over == "refuse" else "clamp",
        )

    @rule(hours=st.sampled_from([0, 0, 5, 25, -1, -30]))
    def the_apis_clock_jumps(self, hours: int) -> None:
        """What it says of the time is wrong, or right again; records are created as before."""
        self.world.jump(hours * 3600)

    # The process ----------------------------------------------------------------------------------

    @rule()
    def a_cycle(self) -> None:
        alive = self.world.cycle()
        self.world.check()
        if alive:
            self.world.check_memory()

    @rule(
        faults=FAULTS,
        traces=ANSWERS,
        logs=ANSWERS,
        arrivals=st.lists(st.integers(0, 4), max_size=4),
        pauses=st.lists(st.booleans(), max_size=6),
        ahead=st.integers(0, 2),
        early=st.booleans(),
        disk_full=st.sampled_from([0, 0, 1, 3]),
        dies_in=st.none() | st.integers(0, 24),
    )
    def a_bad_cycle(
        self,
        faults: list[str | None],
        traces: list[str],
        logs: list[str],
        arrivals: list[int],
        pauses: list[bool],
        ahead: int,
        early: bool,
        disk_full: int,
        dies_in: int | None,
    ) -> None:
        """Faults at both ends, records that arrive between two pages, and death at any step."""
        world = self.world
        world.faults = deque(faults)
        world.traces.script, world.logs.script = deque(traces), deque(logs)
        world.meanwhile = deque([self._arrival(count) for count in arrivals])
        world.pauses, world.ahead, world.disk_full = deque(pauses), ahead, disk_full
        self.world.traces_first = early
        alive = world.cycle(dies_in=dies_in)
        world.disk_full = 0
        world.check()
        if alive:
            world.check_memory()

    def _arrival(self, count: int) -> Callable[[], None]:
        def arrive() -> None:
            self.world.clock.wait(0.01)
            for _ in range(count):
                self.world.add(self.world.execution(), "executionFinished")

        return arrive

    @rule(index=st.integers(0, 99), signal=st.sampled_from(["span", "log"]))
    def an_execution_is_poison(self, index: int, signal: str) -> None:
        """The endpoint will refuse this one, alone or in company."""
        model = self._pick(
            index,
            lambda m: (
                len(m.records) == 1
                and "executionStarted" not in m.records
                and span_key(m.uuid) not in self.world.taken
            ),
        )
        if model is not None and len(self.world.poison) < 3:
            ((message, record_id),) = model.records.items()
            if log_key(record_id, message) not in self.world.taken:
                self.world.poison |= {span_key(model.uuid), log_key(record_id, message)}

    @rule()
    def a_restart(self) -> None:
        self.world.restart()

    @precondition(lambda self: self.world.cycles > 2)
    @rule()
    def calm(self) -> None:
        """When every fault ends, all is delivered and nothing is sent twice."""
        self.world.check_all_delivered()

    def teardown(self) -> None:
        try:
            self.world.check_all_delivered()
        finally:
            self.world.close()
            self._folder.cleanup()


class FilterIgnored(Guarantee):
    """The same where the API ignores filters on createdAt."""

    config = Config(created_at_filter="ignored")


class FilterMatchesNothing(Guarantee):
    """The same where a filter on createdAt matches nothing."""

    config = Config(created_at_filter="nothing")


class OrderIgnored(Guarantee):
    """The same where the API always answers newest first."""

    config = Config(ignore_sort_order=True)


_budget = settings(
    max_examples=scaled(40, 2000),
    stateful_step_count=scaled(30, 60),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
Guarantee.TestCase.settings = _budget
FilterIgnored.TestCase.settings = _budget
FilterMatchesNothing.TestCase.settings = _budget
OrderIgnored.TestCase.settings = _budget

TestFilterHonoured = Guarantee.TestCase
TestFilterIgnored = FilterIgnored.TestCase
TestFilterMatchesNothing = FilterMatchesNothing.TestCase
TestOrderIgnored = OrderIgnored.TestCase
