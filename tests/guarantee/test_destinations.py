"""Several destinations with independent faults: each gets each of its executions exactly once, but
for the repeats that `GUARANTEE.md` names, whatever the others do."""

from __future__ import annotations

import tempfile
from collections import deque
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from .destinations import MATCH, USERS, WORKFLOWS, Town
from .scale import scaled
from .test_state_machine import ANSWERS, FAULTS, MEMORY, TERMINAL
from .world import INCOMPLETE_AFTER, OVERLAP, Model, log_key, span_key

NAMES = st.sampled_from(sorted(MATCH))
USER, WORKFLOW = st.sampled_from(USERS), st.sampled_from(WORKFLOWS)


class Destinations(RuleBasedStateMachine):
    """Nothing lost, nothing doubled, whatever the order of events, for each of three."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self.town = Town(Path(self._folder.name))

    @initialize(
        page_size=st.integers(1, 6),
        batch_size=st.integers(1, 5),
        started_logs=st.booleans(),
        room=st.sampled_from([1500, 4000, 100_000]),
    )
    def begin(self, page_size: int, batch_size: int, started_logs: bool, room: int) -> None:
        self.town.world.close()
        self.town = Town(
            Path(self._folder.name),
            room=room,
            page_size=page_size,
            batch_size=batch_size,
            started_logs=started_logs,
        )

    # Traffic --------------------------------------------------------------------------------------

    def _execution(self, user: str, workflow: str) -> Model:
        model = self.town.world.execution()
        model.user, model.forge = user, workflow
        return model

    @rule(
        count=st.integers(1, 8),
        message=TERMINAL,
        user=USER,
        workflow=WORKFLOW,
        apart=st.sampled_from([0, 0, 0.5, 20]),
        late=st.sampled_from([0, 0, 20]),
    )
    def executions_end(
        self, count: int, message: str, user: str, workflow: str, apart: float, late: int
    ) -> None:
        for _ in range(count):
            self.town.add(self._execution(user, workflow), message, late=late)
            self.town.world.clock.wait(apart)

    @rule(user=USER, workflow=WORKFLOW)
    def an_execution_starts(self, user: str, workflow: str) -> None:
        self.town.add(self._execution(user, workflow), "executionStarted")

    @rule(index=st.integers(0, 99), message=TERMINAL)
    def a_started_one_ends(self, index: int, message: str) -> None:
        world = self.town.world
        oldest = world.now - (INCOMPLETE_AFTER - 2 * OVERLAP) * 1000
        running = [
            m
            for m in world.executions
            if set(m.records) == {"executionStarted"} and (m.start_created or 0) > oldest
        ]
        if running:
            self.town.add(running[index % len(running)], message)

    @rule(index=st.integers(0, 99))
    def a_record_is_deleted(self, index: int) -> None:
        found = [m for m in self.town.world.executions if len(m.records) == 1]
        if found:
            model = found[index % len(found)]
            self.town.world.remove(model, *model.records)

    @rule(seconds=st.sampled_from([0.001, 1, 10, OVERLAP + 1, 700]))
    def time_passes(self, seconds: float) -> None:
        self.town.world.clock.wait(seconds)

    # The process ----------------------------------------------------------------------------------

    @rule(
        faults=FAULTS,
        traces=ANSWERS,
        disk_full=st.sampled_from([0, 0, 0, 1]),
        dies_in=st.none() | st.integers(0, 24),
    )
    def a_cycle(
        self, faults: list[str | None], traces: list[str], disk_full: int, dies_in: int | None
    ) -> None:
        world = self.town.world
        world.faults, world.traces.script = deque(faults), deque(traces)
        world.disk_full = disk_full
        self.town.cycle(dies_in=dies_in)
        world.disk_full = 0
        self.town.check()

    @rule(
        steps=st.integers(1, 6),
        wait=st.booleans(),
        faults=FAULTS,
        full=st.sampled_from([0, 0, 0, 1, 3]),
        dies_in=st.none() | st.integers(0, 40),
    )
    def deliveries(
        self, steps: int, wait: bool, faults: list[str | None], full: int, dies_in: int | None
    ) -> None:
        """`wait`: for as long as nothing is due; else something else comes before that."""
        self.town.world.faults, self.town.outbox_full = deque(faults), full
        self.town.deliver(steps, wait=wait, dies_in=dies_in)
        self.town.check()

    @rule()
    def a_restart(self) -> None:
        self.town.world.restart()

    # Destinations ---------------------------------------------------------------------------------

    @rule(name=NAMES, traces=ANSWERS, logs=ANSWERS, slow=st.sampled_from([0, 0, 3]))
    def a_destination_answers(
        self, name: str, traces: list[str], logs: list[str], slow: float
    ) -> None:
        far = self.town.fars[name]
        far.traces.endpoint.script, far.logs.endpoint.script = deque(traces), deque(logs)
        far.traces.slow = far.logs.slow = slow

    @rule(name=NAMES, seconds=st.sampled_from([30, 900, 10_000]))
    def a_destination_is_dead(self, name: str, seconds: float) -> None:
        self.town.fars[name].end_away_until = self.town.world.clock.now + seconds

    @rule(name=NAMES, index=st.integers(0, 99), signals=st.sampled_from(["span", "log", "both"]))
    def an_execution_is_poison(self, name: str, index: int, signals: str) -> None:
        """One destination will refuse this one, alone or in company, and the others will not."""
        far = self.town.fars[name]
        found = [
            m
            for m in self.town.world.executions
            if len(m.records) == 1 and "executionStarted" not in m.records
            and span_key(m.uuid) not in far.taken
        ]  # fmt: skip
        if found and len(far.poison) < 6:
            model = found[index % len(found)]
            ((message, record),) = model.records.items()
            poison = {"span": span_key(model.uuid), "log": log_key(record, message)}
            far.poison |= set(poison.values()) if signals == "both" else {poison[signals]}
            far.may_be_set_aside.add(record)

    @rule(name=NAMES, paused=st.booleans())
    def a_pause(self, name: str, paused: bool) -> None:
        self.town.pause(name, paused)
        self.town.check()

    @rule(name=NAMES, limit=st.sampled_from([0, 0, 60, 600]))
    def settings_change(self, name: str, limit: int) -> None:
        """What a destination gets stays the same, and it is served anew."""
        self.town.change(name, {"requests_per_minute": limit})
        self.town.check()

    @rule(name=NAMES)
    def a_destination_goes(self, name: str) -> None:
        self.town.change(name, None)
        self.town.check()

    @rule(name=NAMES)
    def a_file_is_wrong(self, name: str) -> None:
        self.town.change(name, {}, wrong=True)
        self.town.check()

    @precondition(lambda self: self.town.world.cycles > 2)
    @rule()
    def calm(self) -> None:
        """When every fault ends, each has all that is its own, and nothing is sent again."""
        self.town.calm()

    def teardown(self) -> None:
        try:
            self.town.calm()
        finally:
            self.town.world.close()
            self._folder.cleanup()


Destinations.TestCase.settings = settings(
    max_examples=scaled(40, 2000),
    stateful_step_count=scaled(30, 60),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
TestDestinations = Destinations.TestCase


# Scripted ---------------------------------------------------------------------------------------


def some(town: Town, *, count: int = 1) -> None:
    """Executions of everybody."""
    for user in USERS:
        for forge in WORKFLOWS:
            for message in ("executionFinished", "executionError"):
                for _ in range(count):
                    model = town.world.execution()
                    model.user, model.forge = user, forge
                    town.add(model, message)
                town.world.clock.wait(1)


def test_what_was_taken_is_not_sent_again_while_the_disk_is_full(tmp_path: Path) -> None:
    """Acknowledged, and no room to write it down: more of the same destination comes meanwhile and
    waits; when there is room, that follows, and nothing came twice."""
    town = Town(tmp_path)
    some(town)
    town.cycle()
    town.outbox_full = 9
    town.deliver(2, wait=False)
    some(town)
    town.cycle()
    town.deliver(1, wait=False)
    town.outbox_full = 0
    town.deliver(40)
    town.check()
    town.calm()
    assert not any(far.allowed for far in town.fars.values())
    town.world.close()
