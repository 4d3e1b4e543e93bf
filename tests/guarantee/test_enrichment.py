"""Executions that wait for their blocks and their reason: nothing is late, lost, doubled or wrong.

The clock is the world's own; the API's answers are the simulator's.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_alloy.errors import AccessRefused, RequestRefused, Stop, Throttled, Unavailable
from otel_alloy.testing.simulator import Config
from otel_alloy.testing.simulator.inside import PAYLOAD_CANARY, REASON_CANARY, failure_of
from otel_alloy.testing.simulator.records import Record

from .scale import scaled
from .test_state_machine import MEMORY
from .world import World, span_key

ENRICHED: dict[str, Any] = {
    "enrich": "failed",
    "requests_per_minute": 0,
    "collection_interval": 5,
    "adaptive": False,
    "audit": [],
}
TIMEOUT = 30


def attributes(item: Span | LogRecord) -> dict[str, Any]:
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in item.attributes}


def spans(world: World) -> dict[str, Span]:
    """All that were sent, by id."""
    found = (Span.FromString(next(iter(c))) for k, c in world.bytes.items() if k[0] == "span")
    return {span.span_id.hex(): span for span in found}


def logs(world: World) -> list[LogRecord]:
    return [LogRecord.FromString(next(iter(c))) for k, c in world.bytes.items() if k[0] == "log"]


def records(world: World) -> dict[str, Record]:
    """The terminal records by uuid."""
    found = {}
    for model in world.executions:
        for record in world.log.of_workflow(model.workflow, "u"):
            found[record["data"]["executionUuid"]] = record
    return found


def run(world: World, seconds: float) -> None:
    until = world.clock.now + seconds
    while world.clock.now < until:
        world.cycle()
        world.clock.wait(5)


def fail(world: World, workflow: str = "copy", late: float = 0.0) -> str:
    model = world.execution()
    model.workflow = workflow
    world.add(model, "executionError", late=late)
    return model.uuid


def test_a_failed_execution_tells_block_and_reason(tmp_path: Path) -> None:
    """Its blocks are spans below its own, the one that failed is the only one in error, and what
    the app said is the status of both; a success has none, and goes at once."""
    world = World(tmp_path, **ENRICHED)
    fine = world.execution()
    world.add(fine, "executionFinished")
    uuid = fail(world)
    world.cycle()
    assert span_key(fine.uuid) in world.taken and span_key(uuid) not in world.taken
    run(world, 25)
    sent = spans(world)
    parent = sent[span_key(uuid)[1]]
    children = [s for s in sent.values() if s.parent_span_id == parent.span_id]
    failure = failure_of(records(world)[uuid])
    assert failure is not None
    (broken,) = [s for s in children if s.status.code == 2]
    assert broken.name == failure.block.name and attributes(broken)["runalloy.block.id"]
    assert parent.status.message and parent.status.message == broken.status.message
    assert attributes(parent)["runalloy.reason.source"] == "errors"
    (log,) = [log for log in logs(world) if log.trace_id == parent.trace_id]
    assert attributes(log)["exception.message"] == parent.status.message
    assert not [
        s for s in sent.values() if s.parent_span_id == sent[span_key(fine.uuid)[1]].span_id
    ]
    world.check_all_delivered()
    world.close()


PROBLEMS = (
    lambda: Unavailable("no answer"),
    lambda: Throttled("429", after=1.0),
    lambda: RequestRefused("404"),
    lambda: AccessRefused("403"),
    lambda: Stop("no such address"),
)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_it_is_never_late(tmp_path: Path, problem: Any) -> None:
    """Whatever questions come to, the execution goes after `enrich_timeout`, without, and new ones
    are delivered meanwhile; the source goes on."""
    world = World(tmp_path, **ENRICHED)
    world.cycle()
    uuid = fail(world)
    world.inside.extend(problem() for _ in range(100))
    seen = world.clock.now
    while span_key(uuid) not in world.taken:
        fine = world.execution()
        world.add(fine, "executionFinished")
        world.cycle()
        assert span_key(fine.uuid) in world.taken
        assert world.clock.now - seen <= TIMEOUT + 10
        world.clock.wait(5)
    assert not spans(world)[span_key(uuid)[1]].status.message
    world.check_all_delivered()
    world.close()


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["failed", "failed", "fine", "again", "trouble", "restart", "full"]),
            st.sampled_from(["one", "two"]),
            st.integers(0, 40),
            st.sampled_from([0, 1, 5, 40]),
        ),
        min_size=1,
        max_size=20,
    ),
    late=st.sampled_from([0.0, 4.0, 20.0, 100.0]),
    which=st.sampled_from(["failed", "all"]),
)
@settings(max_examples=scaled(40, 500), deadline=None)
def test_whatever_happens_meanwhile(
    events: list[tuple[str, str, int, int]], late: float, which: str
) -> None:
    """Crashes at any step, restarts, full disks and failing questions: each execution is delivered,
    a repeat has the same bytes, its blocks included, and nothing waits longer than it may."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        config = Config(inside_late=late)
        world = World(Path(folder), config, **{**ENRICHED, "enrich": which})
        for what, workflow, number, pause in events:
            dies_in = None
            if what == "failed":
                fail(world, workflow)
            elif what == "fine":
                model = world.execution()
                model.workflow = workflow
                world.add(model, "executionFinished")
            elif what == "again" and world.executions:
                world.add(world.executions[-1], "executionFinished")
            elif what == "trouble":
                world.inside.extend(PROBLEMS[number % 5]() for _ in range(number % 4))
            elif what == "restart":
                world.restart()
            elif what == "full":
                world.disk_full = number % 3
            if number < 20:
                dies_in = number
            world.cycle(dies_in=dies_in)
            world.clock.wait(pause)
        world.inside.clear()
        world.disk_full = 0
        run(world, TIMEOUT + 15)
        assert not list(world.waiting())
        world.check_all_delivered()
        world.close()


def test_a_reason_is_never_anothers(tmp_path: Path) -> None:
    """10,000 executions of one user's two workflows, of which a third fails, many at the same time
    in the same block: every reason that is told is the execution's own, and no payload leaves."""
    chance = random.Random(1)
    number = scaled(600, 10_000)
    world = World(
        tmp_path, Config(inside_late=2.0, payload_bytes=500), **{**ENRICHED, "page_size": 100}
    )
    for _ in range(number):
        model = world.execution()
        model.workflow = chance.choice(["one", "two"])
        model.started = world.now - chance.choice([1, 50, 2000, 5000])
        failed = chance.random() < 0.3
        world.add(model, "executionError" if failed else "executionFinished")
        world.clock.wait(chance.choice([0.0, 0.1, 1.0, 3.0]))
        if chance.random() < 0.2:
            world.cycle()
    run(world, TIMEOUT + 15)
    sent, told = spans(world), Counter[str]()
    for uuid, record in records(world).items():
        failure = failure_of(record)
        if failure is None:
            continue
        span = sent[span_key(uuid)[1]]
        case = failure.reason.split("(request ")[1][:6]
        told["failed"] += 1
        told["block"] += "runalloy.block.id" in attributes(span)
        if span.status.message:
            told["reason"] += 1
            assert f"(request {case})" in span.status.message, "another execution's reason"
    told["requests"] = len(world.asked)
    print(dict(told))
    assert told["reason"] and told["block"] > 0.9 * told["failed"]
    everything = json.dumps([repr(c) for contents in world.bytes.values() for c in contents])
    assert PAYLOAD_CANARY not in everything and REASON_CANARY not in everything
    world.check()
    world.close()
