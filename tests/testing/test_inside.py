"""What the stand-in says of the inside of executions, and what its error webhook posts."""

from __future__ import annotations

import json
import queue
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import pytest

from otel_alloy.http_server import Handler, Server
from otel_alloy.testing.simulator import (
    PAYLOAD_CANARY,
    REASON_CANARY,
    Config,
    LogStore,
    Record,
    Simulator,
    Traffic,
    blocks_of,
    failure_of,
    generate,
    iso,
    millis,
    uuid_of,
)

NOW = 1_760_000_000.0
VERSION = {"x-api-version": "2025-09", "Authorization": "bearer k"}


class Clock:
    """Stands still until it is moved."""

    now = NOW

    def __call__(self) -> float:
        return self.now


def records(executions: int = 300, **traffic: Any) -> list[Record]:
    usual: dict[str, Any] = {"error_rate": 0.3, "users": 4, "lifecycle": "terminal"}
    made = Traffic(**usual | traffic)
    return list(generate(executions, start=NOW - 3600, end=NOW - 60, traffic=made))


@contextmanager
def serving(log: list[Record], **knobs: Any) -> Iterator[Simulator]:
    with Simulator(Config(**knobs), clock=Clock()) as simulator:
        for record in log:
            simulator.store.add(record)
        yield simulator


def get(simulator: Simulator, path: str, **params: object) -> tuple[int, Any]:
    url = f"{simulator.endpoint}/workflows/{path}?{urlencode(params)}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=VERSION)) as got:
            return got.status, json.loads(got.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or b"null")


def entries(simulator: Simulator, record: Record, operation: str, **params: object) -> list[Any]:
    path = f"{record['workflowId']}/{operation}"
    status, body = get(simulator, path, userId=record["userId"], **params)
    assert status == 200, body
    found: list[Any] = body["data"]
    return found


def test_steps_page_through_a_users_executions_of_a_workflow() -> None:
    """Each execution of the user's copy stands on one page, newest first or oldest first; every
    block ran for longer than 0 ms and inside its execution."""
    log = records(500)
    chosen = Counter((r["workflowId"], r["userId"]) for r in log).most_common(1)[0][0]
    own = [r for r in log if (r["workflowId"], r["userId"]) == chosen]
    assert len(own) > 30
    with serving(log) as simulator:
        pages = [entries(simulator, own[0], "logs", limit=7, page=n) for n in range(1, 99)]
        found = [entry for page in pages for entry in page]
        assert [entry["executionId"] for entry in found] == [
            uuid_of(r) for r in sorted(own, key=lambda r: str(r["completedAt"]), reverse=True)
        ]
        oldest = entries(simulator, own[0], "logs", order="asc", limit=1)
        assert oldest == found[-1:]
        assert len(entries(simulator, own[0], "logs")) == 10
    for entry in found:
        for result in entry["results"]:
            begin, end = millis(result["startedAt"]), millis(result["stoppedAt"])
            assert begin is not None and end is not None
            assert (millis(entry["startedAt"]) or 0) <= begin < end
            assert (
                end <= (millis(entry["stoppedAt"]) or 0) or entry["startedAt"] == entry["stoppedAt"]
            )


def test_what_is_said_of_a_failure_agrees() -> None:
    """Steps end with the block that failed; errors name its app, its time and its reason; most
    failures of a workflow are in one of its blocks."""
    log = records(2000)
    failed = [r for r in log if failure_of(r)]
    where: dict[str, Counter[str]] = {}
    with serving(log) as simulator:
        for record in failed[:40]:
            failure = failure_of(record)
            assert failure is not None
            errors = entries(simulator, record, "errors")
            assert {
                "workflowId": record["workflowId"],
                "block": failure.block.type.removeprefix("alloy."),
                "errorOccurredAt": iso(failure.at),
                "message": failure.reason,
            } in errors
    for record in failed:
        failure = failure_of(record)
        assert failure is not None
        assert record["startedAt"] <= iso(failure.at) <= record["completedAt"]
        assert REASON_CANARY in failure.reason
        where.setdefault(record["forgeWorkflowId"], Counter())[failure.block.id] += 1
    assert all(c.most_common(1)[0][1] / c.total() > 0.6 for c in where.values() if c.total() > 20)


@pytest.mark.parametrize("failed", ["error", "status", "absent"])
@pytest.mark.parametrize("ids", ["connectorId", "blockId"])
def test_both_ages_of_steps(ids: Any, failed: Any) -> None:
    """Blocks are named by either name, and a failure shows in each of three ways; a canary stands
    wherever a customer's data can."""
    record = next(r for r in records(200) if (f := failure_of(r)) and f.status)
    failure = failure_of(record)
    assert failure is not None
    with serving([record], block_ids=ids, failed_block=failed, payload_bytes=46_000) as simulator:
        (entry,) = entries(simulator, record, "logs")
    assert ("finished" in entry) == (ids == "connectorId") != ("status" in entry)
    names = [result[ids] for result in entry["results"]]
    assert (failure.block.id in names) == (failed != "absent")
    last = entry["results"][-1]
    item = last["data"][0][0] if ids == "connectorId" else last["data"][0]
    if failed != "absent":
        assert item["statusCode"] == failure.status
    assert ("error" in last) == (failed == "error")
    text = json.dumps(item)
    assert len(text) > 46_000
    assert PAYLOAD_CANARY in json.dumps(entry["inputs"])
    fields = ("json", "headers", "meta", "binary")
    assert all(PAYLOAD_CANARY in json.dumps(item[name]) for name in fields)


def test_how_blocks_are_called() -> None:
    """Both ages list the same blocks; all copies of a workflow have the same."""
    log = records()
    record = log[0]
    expected = [(block.id, block.name) for block in blocks_of(record)]
    with serving(log) as simulator:
        _, body = get(simulator, record["workflowId"], userId=record["userId"])
        assert [(b["id"], b["name"]) for b in body["data"]["blocks"]] == expected
        assert body["data"]["version"] == record["workflowVersion"]
        simulator.configure(block_names="connectors")
        _, body = get(simulator, record["workflowId"], userId=record["userId"])
        listed = body["data"]["connectors"]
        assert [(b["connectorId"], b["connectorName"]) for b in listed] == expected
    assert (
        len({blocks_of(r) for r in log if r["forgeWorkflowId"] == record["forgeWorkflowId"]}) == 1
    )


def test_what_is_refused() -> None:
    """A parent's id, another user, an unknown operation: 404; no user, no version, a page that is
    too large: 400 or 422."""
    record = records(1)[0]
    own, user = record["workflowId"], record["userId"]
    with serving([record]) as simulator:
        for path, params, status in [
            (f"{record['forgeWorkflowId']}/logs", {"userId": user}, 404),
            (f"{own}/logs", {"userId": "x"}, 404),
            (f"{own}/steps", {"userId": user}, 404),
            (own, {}, 400),
            (f"{own}/logs", {"userId": user, "limit": 31}, 400),
            (f"{own}/logs", {"userId": user, "page": 0}, 422),
            (f"{own}/errors", {"userId": user}, 200),
        ]:
            assert get(simulator, path, **params)[0] == status, path
        url = f"{simulator.endpoint}/workflows/{own}?userId={user}"
        plain = urllib.request.Request(url, headers={"Authorization": "bearer k"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(plain)
        with refused.value as error:
            assert error.code == 400


def test_lateness_and_misbehaviour() -> None:
    """Steps and errors appear late, miss their uuid, or are not to be had; `/logs` is not touched
    by that."""
    log = records(40, error_rate=1.0)
    record = max(log, key=lambda r: str(r["completedAt"]))
    age = NOW - (millis(record["completedAt"]) or 0) / 1000
    with serving(log) as simulator:
        for late, expected in ((age, True), (age + 1, False)):
            simulator.configure(inside_late=late)
            found = entries(simulator, record, "logs", limit=30)
            assert (uuid_of(record) in [e["executionId"] for e in found]) == expected
        simulator.configure(inside_late=10**6)
        assert entries(simulator, record, "errors") == []
        simulator.configure(inside_late=0.0, steps_without_uuid=1.0)
        assert "executionId" not in entries(simulator, record, "logs")[0]
        user, path = record["userId"], f"{record['workflowId']}/logs"
        for fault, status in (("404", 404), ("429:2", 429), ('shape:{"data":[]}', 200)):
            simulator.configure(inside_faults={fault: 1.0})
            assert get(simulator, path, userId=user)[0] == status
        logs = urllib.request.Request(f"{simulator.endpoint}/logs", headers=VERSION)
        with urllib.request.urlopen(logs) as got:
            assert len(json.loads(got.read())["notifications"]) == 10


def test_colliding_failures() -> None:
    """Two executions of one workflow and user start together and fail in the same block, each for
    a reason of its own; without the knob the log stays as it was."""
    log = records(400, colliding=0.5)
    assert len(log) == 400
    groups: dict[object, list[Record]] = {}
    for record in log:
        groups.setdefault((record["workflowId"], record["userId"], record["startedAt"]), []).append(
            record
        )
    pairs = [group for group in groups.values() if len(group) == 2]
    assert len(pairs) > 20
    for one, other in pairs:
        first, second = failure_of(one), failure_of(other)
        assert first is not None and second is not None
        assert first.block == second.block
        assert first.reason != second.reason
    assert records(400, colliding=0.0) == records(400)


# The error webhook --------------------------------------------------------------------------------


class _Receiver(Handler):
    server: Server[tuple[queue.Queue[Any], list[int]]]

    def do_POST(self) -> None:
        """Takes a report, with the next status of a list; with 200 where it is used up."""
        got, statuses = self.server.owner
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = statuses.pop(0) if statuses else 200
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
        got.put((status, dict(self.headers), json.loads(body)))


@contextmanager
def receiver(*statuses: int) -> Iterator[tuple[str, queue.Queue[Any]]]:
    got: queue.Queue[Any] = queue.Queue()
    server = Server(("127.0.0.1", 0), _Receiver, (got, list(statuses)))
    thread = server.start("receiver")
    try:
        yield server.url, got
    finally:
        server.stop()
        thread.join()


def test_the_error_webhook_posts_each_failure_once() -> None:
    """Its headers and body are those that the vendor documents, with a header of the receiver's."""
    log = records(60)
    failed = {uuid_of(r): r for r in log if failure_of(r)}
    with (
        receiver() as (url, got),
        serving(log, error_webhook_url=url, error_webhook_headers={"X-Secret": "s"}),
    ):
        posted = [got.get(timeout=60) for _ in failed]
        assert got.empty()
    for _, headers, body in posted:
        lower = {name.lower(): value for name, value in headers.items()}
        record = failed.pop(lower["x-alloy-executionuuid"])
        failure = failure_of(record)
        assert failure is not None
        assert lower["x-alloy-workflowid"] == record["workflowId"] == body["workflowId"]
        assert lower["x-alloy-userid"] == record["userId"]
        assert lower["x-alloy-blockname"] == failure.block.name
        assert lower["x-alloy-blocktype"] == failure.block.type == body["blockType"]
        assert lower["x-secret"] == "s"
        assert body["executionId"] == record["data"]["executionId"]
        assert (body["blockId"], body["error"]) == (failure.block.id, failure.reason)
        assert body["createdAt"] == iso(failure.at)


def test_the_error_webhook_comes_again_twice_or_never() -> None:
    """What is not answered with 2xx is posted again; shares are posted twice, or are lost."""
    log = records(30, error_rate=1.0)
    with (
        receiver(503, 500) as (url, got),
        serving(log[:1], error_webhook_url=url, error_webhook_retries=2),
    ):
        assert [got.get(timeout=60)[0] for _ in range(3)] == [503, 500, 200]
    nowhere = "http://127.0.0.1:1"
    for config, least, most in (
        (Config(error_webhook_url=nowhere, error_webhook_twice=1.0), 60, 60),
        (Config(error_webhook_url=nowhere, error_webhook_lost=0.5), 8, 22),
    ):
        store = LogStore(config, clock=Clock())
        for record in log:
            store.add(record)
        store.advance()
        assert least <= len(store.reports) <= most


def test_the_error_webhook_can_be_late() -> None:
    """It comes when the simulator's clock has gone on by so much."""
    log = records(3, error_rate=1.0)
    with (
        receiver() as (url, got),
        serving(log, error_webhook_url=url, error_webhook_late=60) as alloy,
    ):
        assert alloy.store.advance() and not alloy.store.reports
        clock = alloy.clock
        assert isinstance(clock, Clock)
        clock.now += 60
        assert all(got.get(timeout=60) for _ in log)
