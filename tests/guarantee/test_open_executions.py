"""Executions that started and have not ended: asked for and given up beside what is new, never
instead of it, and settled as it goes."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from otel_alloy.checkpoint.sqlite import SqliteStore
from otel_alloy.checkpoint.store import Open, Progress, Settlement
from otel_alloy.errors import AccessRefused, RequestRefused, Throttled, Unavailable
from otel_alloy.pipeline.open_executions import REQUEST_SHARE, TIME_SHARE
from otel_alloy.settings.models import Settings
from otel_alloy.testing.otlp_endpoint import OtlpEndpoint, Received
from otel_alloy.testing.simulator import Config, Simulator, iso

from .scale import scaled
from .test_crashes import BATCH, COMMAND, at_least, environment, integrity
from .world import INCOMPLETE_AFTER, OVERLAP, START, Model, World, log_key

INTERVAL = 30
OPEN = 300
FALLBACKS = {
    "filter honoured": Config(),
    "filter ignored": Config(created_at_filter="ignored", max_limit=20),
    "filter matches nothing": Config(created_at_filter="nothing", max_limit=20),
    "order ignored": Config(ignore_sort_order=True, max_limit=20),
    "counts everything": Config(total_items="all"),
}


def with_open(world: World, count: int = OPEN) -> list[Model]:
    """So many executions start, and nothing else of them lies in any window to come."""
    models = [world.execution() for _ in range(count)]
    for model in models:
        world.add(model, "executionStarted")
        world.clock.wait(0.01)
    world.clock.wait(1)
    world.cycle()
    world.clock.wait(3 * OVERLAP)
    world.add(world.execution(), "executionFinished")
    world.clock.wait(1)
    world.refuse = lambda execution: Throttled("not yet")
    world.cycle()
    world.refuse = lambda execution: None
    world.clock.wait(2 * OVERLAP)
    world.questions.clear()
    return models


def of(model: Model) -> str:
    return f"id-{model.uuid}"


def ended(world: World, model: Model) -> bool:
    return log_key(model.records["executionFinished"], "executionFinished") in world.taken


def cycles_with_something_new(world: World, until: Callable[[], bool], most: int) -> list[int]:
    """Cycles, in each of which an execution ends that has to be delivered by then, until that is
    so; how many questions each one asked."""
    asked: list[int] = []
    while not until():
        assert len(asked) < most, "too many cycles"
        begun, known = world.clock.now, len(world.questions)
        new = world.execution()
        world.add(new, "executionFinished")
        world.clock.wait(0.001)
        assert world.cycle()
        assert ended(world, new), "a new execution has to wait"
        asked.append(len(world.questions) - known)
        world.clock.wait(max(0.0, INTERVAL - (world.clock.now - begun)))
    world.check()
    return asked


@pytest.mark.parametrize("kind", FALLBACKS)
@pytest.mark.parametrize("in_memory", [10_000, 0])
def test_questions_keep_to_a_share_of_the_requests(
    tmp_path: Path, kind: str, in_memory: int
) -> None:
    """Hundreds of executions that ended in place are due at once: each cycle asks for a share of
    what its interval may, what is new does not wait for them, all of them are found, and nobody is
    asked for twice before everybody was once. In all the ways in which an API can be read."""
    settings = {"requests_per_minute": 60, "incomplete_after": 12 * 3600}
    world = World(tmp_path, FALLBACKS[kind], in_memory, **settings)
    models = with_open(world)
    for model in models:
        world.change(model, "executionFinished", renewed=False)
    asked = cycles_with_something_new(
        world, lambda: all(ended(world, model) for model in models), most=100
    )
    share = int(REQUEST_SHARE * INTERVAL)
    assert max(asked) <= share and asked.count(share) >= OPEN // share - 1
    assert world.questions == [of(model) for model in models]
    world.close()


@pytest.mark.parametrize("seconds", [0.05, 1.0, 20.0])
def test_questions_keep_to_a_share_of_the_time(tmp_path: Path, seconds: float) -> None:
    """Without a request budget it is time that ends the work of a cycle: a quarter of the interval
    and the request that was under way. At least one is asked for, however slow the API is."""
    world = World(tmp_path, incomplete_after=12 * 3600)
    models = with_open(world, 40 if seconds > 1 else OPEN)
    for model in models:
        world.change(model, "executionFinished", renewed=False)
    world.request_seconds = seconds
    asked = cycles_with_something_new(
        world, lambda: all(ended(world, model) for model in models), most=100
    )
    share = TIME_SHARE * INTERVAL
    assert max(asked) <= share / seconds + 1 and min(asked[:-1], default=1) >= 1
    assert world.questions == [of(model) for model in models]
    world.close()


def test_those_that_stay_open_are_asked_for_in_turn(tmp_path: Path) -> None:
    """None of them ends: each cycle asks for its share, round and round, each one at twice its age,
    and each once more at the very end."""
    world = World(tmp_path, requests_per_minute=60, incomplete_after=4 * 3600)
    models = with_open(world, 100)
    asked = cycles_with_something_new(
        world,
        lambda: world.poller is not None and world.poller.tracker.state.open_count == 0,
        most=1000,
    )
    assert max(asked) <= int(REQUEST_SHARE * INTERVAL)
    times = Counter(world.questions)
    assert set(times) == {of(model) for model in models}
    assert max(times.values()) <= min(times.values()) + 2
    assert world.questions[:100] == [of(model) for model in models]
    spans = [key for key in world.taken if key[0] == "span"]
    assert len(spans) == len(set(spans)) == len(world.executions)
    world.close()


REFUSALS: dict[str, Callable[[], Exception]] = {
    "unavailable": lambda: Unavailable("500"),
    "throttled": lambda: Throttled("429", after=20.0),
    "refused": lambda: RequestRefused("400"),
    "forbidden": lambda: AccessRefused("403"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_questions_that_fail_hold_up_nothing(tmp_path: Path, kind: str) -> None:
    """Only the question for one execution is refused, whatever the answer: the process goes on,
    what is new arrives in each cycle, and the page size stays. When it is answered again, all that
    ended in place is found."""
    world = World(tmp_path, incomplete_after=12 * 3600)
    models = with_open(world, 30)
    for model in models:
        world.change(model, "executionFinished", renewed=False)
    world.refuse = lambda execution: REFUSALS[kind]()
    until = world.clock.now + 3600
    asked = cycles_with_something_new(world, lambda: world.clock.now > until, most=200)
    assert set(asked) <= {0, 1} and sum(asked) >= 10
    assert not any(ended(world, model) for model in models) and world.refused == 0
    world.refuse = lambda execution: None
    cycles_with_something_new(world, lambda: all(ended(world, model) for model in models), most=200)
    world.close()


def test_one_that_cannot_be_asked_for_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """The API fails for one executionId: the others are found, it is given up in the end."""
    world = World(tmp_path)
    bad, *others = with_open(world, 20)
    for model in others:
        world.change(model, "executionFinished", renewed=False)
    world.refuse = lambda execution: Unavailable("500") if execution == of(bad) else None
    cycles_with_something_new(world, lambda: all(ended(world, model) for model in others), most=30)
    assert world.poller is not None and world.poller.tracker.state.open_count == 1
    state = world.poller.tracker.state
    cycles_with_something_new(world, lambda: state.open_count == 0, most=300)
    identity = f"{bad.records['executionStarted']}:incomplete"
    given_up = ("log", identity, "runalloy.workflow.execution.incomplete")
    assert world.taken[given_up] == 1
    assert world.questions.count(of(bad)) < 60
    world.close()


def test_where_no_question_is_answered_they_are_given_up_nevertheless(tmp_path: Path) -> None:
    """What cannot be asked for at all does not pile up: after `incomplete_after` without an answer
    it is given up as where the API cannot be asked."""
    world = World(tmp_path)
    with_open(world, 50)
    world.refuse = lambda execution: RequestRefused("400")
    state = world.poller.tracker.state if world.poller else None
    assert state is not None
    cycles_with_something_new(world, lambda: state.open_count == 0, most=300)
    assert world.clock.now - START < 2.5 * INCOMPLETE_AFTER
    world.close()


def test_records_that_cannot_be_reached_hold_up_no_open_execution(tmp_path: Path) -> None:
    """Where Alloy counts records that it does not give, the window is never read to its end; open
    executions are looked after all the same."""
    world = World(tmp_path, incomplete_after=12 * 3600)
    models = with_open(world, 20)
    hidden = world.now + 1000
    world.clock.wait(2)
    world.log.config = Config(hidden=(hidden, hidden + 1))
    record = world.execution()
    world.add(record, "executionFinished", created=hidden)
    for model in models:
        world.change(model, "executionFinished", renewed=False)
    for _ in range(3):
        world.unreachable_cycle()
        world.clock.wait(INTERVAL)
    assert all(ended(world, model) for model in models)
    world.close()


@pytest.mark.parametrize("config", [Config(), Config(ignore_filters=True)], ids=["asked", "not"])
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_a_death_repeats_at_most_one_batch(tmp_path: Path, config: Config, batch_size: int) -> None:
    """The process dies at every step while 40 executions are given up, or found to have ended: what
    is sent again is never more than `batch_size` of each signal, with the same bytes."""
    for ends in (False, True):
        folder = tmp_path / str(ends)
        folder.mkdir()
        world = World(folder, config, batch_size=batch_size)
        models = with_open(world, 40)
        world.clock.wait(2 * INCOMPLETE_AFTER)
        for model in models if ends and not config.ignore_filters else ():
            world.change(model, "executionFinished", renewed=False)
        for dies_in in range(1, 400, scaled(2, 1)):
            before = Counter(world.taken)
            world.cycle(dies_in=dies_in)
            repeated: Counter[str] = Counter()
            for key, count in world.taken.items():
                repeated[key[0]] += count - before[key] if before[key] else 0
            assert max(repeated.values(), default=0) <= batch_size
            world.clock.wait(1)
        world.quiesce()
        world.check()
        world.check_memory()
        assert len([key for key in world.taken if key[0] == "span"]) == 41
        assert world.crashes >= (3 if batch_size > 40 else 6)
        world.close()


class Ears:
    """Notes for each process what it sends that an earlier one had sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first: dict[tuple[str, bytes], int] = {}
        self.process = 0
        self.repeats: Counter[tuple[int, str]] = Counter()
        self.distinct: Counter[str] = Counter()
        self.largest = 0

    def __call__(self, request: Received) -> None:
        with self._lock:
            items = [item.record.SerializeToString() for item in request.items()]
            self.largest = max(self.largest, len(items))
            for item in items:
                key = (request.signal, item)
                if key not in self._first:
                    self._first[key] = self.process
                    self.distinct[request.signal] += 1
                elif self._first[key] != self.process:
                    self.repeats[self.process, request.signal] += 1


def fill(folder: Path, variables: dict[str, str], count: int) -> None:
    """A checkpoint with so many executions that should have been given up long ago."""
    settings = Settings.model_validate(
        {"api_key": "canary-key-7731", "endpoint": variables["ALLOY_ENDPOINT"], "environment": {}}
    )
    source = settings.sources[0]
    (folder / "state").mkdir()
    store = SqliteStore(folder / "state" / "checkpoint.db")
    store.load(source.name, source.fingerprint)
    now = int(time.time() * 1000)
    opened = {}
    for n in range(count):
        created = now - 3 * 86_400_000 + n
        record = (
            f'{{"_id":"s{n}","message":"executionStarted","createdAt":"{iso(created)}",'
            f'"data":{{"executionId":"e{n}","executionUuid":"u{n}"}}}}'
        )
        opened[f"e{n}"] = Open(record, created, 120_000, None)
    store.settle(source.name, Settlement(Progress(high=now - 60_000), opened=opened))
    store.close()


@pytest.mark.timeout(scaled(300, 3600))
@pytest.mark.parametrize("kind", ["asked", "not asked"])
def test_killed_while_executions_are_given_up(tmp_path: Path, kind: str) -> None:
    """SIGKILL again and again while thousands of executions are given up, with the real command:
    each process repeats at most one batch of each signal, all arrive, the file stays sound."""
    kills = scaled(3, 100)
    count = kills * 4 * BATCH
    chance, ears = random.Random(7), Ears()
    with (
        Simulator(Config(ignore_filters=kind == "not asked")) as alloy,
        OtlpEndpoint(ears, store=False) as otlp,
    ):
        for n in range(2):
            alloy.store.add({"_id": f"x{n}", "message": "executionFinished",
                             "data": {"executionId": f"x{n}"},
                             "createdAt": iso(round(time.time() * 1000) - 2000)})  # fmt: skip
        variables = environment(tmp_path, alloy.endpoint, otlp.http_endpoint)
        fill(tmp_path, variables, count)
        for number in range(kills):
            ears.process = number
            process = subprocess.Popen([COMMAND, "run"], env=variables, stderr=subprocess.PIPE)
            least = otlp.request_count + chance.randint(1, 12)
            otlp.wait_for(partial(at_least, least), 30)
            process.send_signal(signal.SIGKILL)
            _, errors = process.communicate()
            assert process.returncode == -signal.SIGKILL, errors.decode()
            assert b"canary" not in errors
        ears.process = kills
        process = subprocess.Popen([COMMAND, "run"], env=variables, stderr=subprocess.DEVNULL)
        try:
            assert otlp.wait_for(
                lambda end: all(ears.distinct[s] >= count + 2 for s in ("traces", "logs")),
                scaled(120, 900),
            )
        finally:
            process.terminate()
            process.wait(30)
    assert integrity(tmp_path) == "ok"
    worst = max(ears.repeats.values(), default=0)
    print(f"{kind}: {kills} kills, {count} given up: at most {worst} repeats of a signal by one "
          f"process, {sum(ears.repeats.values())} in all; batches of {BATCH}")  # fmt: skip
    assert ears.largest <= BATCH and worst <= BATCH
    assert ears.distinct["traces"] == ears.distinct["logs"] == count + 2
