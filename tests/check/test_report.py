"""`otel-alloy check --report`: which way each unknown fell, in a file that can be shown to anybody:
no value of a record and no setting is in it."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as quick
from hypothesis import strategies as st

from otel_alloy.alloy.models import Page, read_page
from otel_alloy.alloy.query import Query
from otel_alloy.alloy.retry import RequestBudget
from otel_alloy.alloy.timestamps import to_ms, to_text
from otel_alloy.check import check
from otel_alloy.check.alloy import alloy_findings
from otel_alloy.check.observed import Observed, Remembered, step
from otel_alloy.check.report import Report
from otel_alloy.check.unknowns import unknowns
from otel_alloy.checkpoint.store import AuditResult, Progress, Settlement, open_store
from otel_alloy.errors import RequestRefused, Throttled
from otel_alloy.pipeline.visibility import VisibilityLag
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.models import Settings

if TYPE_CHECKING:
    from conftest import Place

NUMBERS = (
    *("1a", "1b", "1c", "2a", "2b", "3a", "3b", "3c", "4", "5a", "5b", "5c", "5d", "5e"),
    *("6a", "6b", "6c", "7", "8"),
)


def reported(place: Place, **changes: Any) -> dict[str, dict[str, Any]]:
    """The unknowns of the first source by their number, asked in this process."""
    report = Report()
    list(check(place.settings(since=None, **changes), system_runtime(), report=report))
    return by_number(report.as_object()["sources"][0]["unknowns"])


def by_number(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    assert tuple(one["unknown"] for one in found) == NUMBERS
    for one in found:
        assert one["answer"] and one["question"]
        assert ("would_tell" in one) == (one["answer"] == "not known yet")
    return {one["unknown"]: one for one in found}


def answers(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {number: one["answer"] for number, one in found.items()}


def test_the_file(place: Place) -> None:
    """A whole JSON file that its owner alone may read, in place of what was there; the findings and
    the exit code are those of `check` without it; no checkpoint is made and nothing left over."""
    place.fill(200)
    report = place.folder / "report.json"
    report.write_text("old")
    done = place.command("check", "--report", "report.json")
    assert done.code == 0, done.err
    assert done.out.startswith("ok ")
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    told = json.loads(report.read_text())
    (source,) = told["sources"]
    assert source["source"] == 1 and source["checkpoint"] is False
    assert source["ended_early_by"] is None
    assert source["requests"] == len(place.alloy.requests) <= 10
    by_number(source["unknowns"])
    assert [path.name for path in place.folder.iterdir()] == ["report.json"]
    assert place.otlp.span_count == 0


def test_standard_output(place: Place) -> None:
    """`-` is standard output, which has the report alone; the findings are on standard error. With
    --json, which wants it too, that is a mistake; so is a folder that cannot be written to."""
    place.fill(5)
    done = place.command("check", "--report", "-")
    assert done.code == 0, done.err
    by_number(json.loads(done.out)["sources"][0]["unknowns"])
    assert "ok    Alloy (default): API key" in done.err
    assert place.command("check", "--report", "-", "--json").code == 2
    nowhere = place.command("check", "--report", "not/there.json")
    assert nowhere.code == 1
    assert "--report" in nowhere.err and "No such file" in nowhere.err
    assert "Traceback" not in nowhere.err
    pipe = place.command("check", "--json", "--report", "/dev/stdout")
    assert pipe.code == 0 and '"unknowns"' in pipe.out
    assert Path("/dev/stdout").exists()


def test_as_described(place: Place) -> None:
    """Of an API that does what the vendor says."""
    place.fill(700, tied=20)
    assert answers(reported(place)) == {
        "1a": "two records",
        "1b": "nothing changes in place: an end is a record of its own",
        "1c": "its end",
        "2a": "not known yet",
        "2b": "not known yet",
        "3a": "all are there",
        "3b": "none",
        "3c": "as described",
        "4": "compared as a date",
        "5a": "at least 1,000 at once",
        "5b": "an empty page",
        "5c": "sorted as asked",
        "5d": "the same each time",
        "5e": "not known yet",
        "6a": "what matches the filters",
        "6b": "rounded down",
        "6c": "not known yet",
        "7": "not known yet",
        "8": "no",
    }


@pytest.mark.parametrize(
    ("knobs", "number", "answer"),
    [
        ({"envelope": True}, "8", "yes"),
        ({"ignore_filters": True}, "4", "ignored"),
        ({"created_at_filter": "nothing"}, "4", "matches nothing"),
        ({"max_limit": 30}, "5a", "cut to 30"),
        ({"max_limit": 250, "over_limit": "refuse"}, "5a", "refused above some number"),
        ({"skip_past_end": "refuse"}, "5b", "refused"),
        ({"ignore_skip": True}, "5b", "records come"),
        ({"ignore_sort_order": True}, "5c", "sortOrder is ignored"),
        ({"ties": "shuffled"}, "5d", "another one each time"),
        ({"total_items": "all"}, "6a", "not what matches the filters"),
        ({"total_items": "missing"}, "6a", "it is not told"),
        ({"current_page": "constant"}, "6b", "always 1"),
        ({"current_page": "fraction"}, "6b", "not told as a whole number"),
    ],
)
def test_the_other_way(place: Place, knobs: dict[str, Any], number: str, answer: str) -> None:
    """Of an API that does otherwise."""
    place.fill(200, tied=40)
    place.alloy.configure(**knobs)
    assert reported(place)[number]["answer"] == answer


def test_records_of_another_shape(place: Place) -> None:
    """Ends with the createdAt of their start, second ends, fields that are missing, messages and
    forms of time that are not described: with how many there are."""
    place.fill(300, lifecycle="terminal", created_at="start", error_rate=0.3, second_terminal=0.1)
    first, second, third = list(place.alloy.store.records())[:3]
    place.alloy.store.change(first["_id"], message="executionPaused", user=None)
    place.alloy.store.change(second["_id"], completedAt=to_ms(second["completedAt"]))
    place.alloy.store.change(third["_id"], data={"executionId": third["data"]["executionId"]})
    found = reported(place)
    assert found["1c"]["answer"] == "its start"
    assert found["1c"]["evidence"]["visible after createdAt"].startswith("up to ")
    assert found["2a"]["answer"] == "happens"
    assert found["3a"]["answer"].startswith("missing or odd: ")
    types = found["3a"]["evidence"]["types"]
    assert types["data.executionUuid"]["missing"] == types["user"]["null"] == 1
    most = found["3a"]["evidence"]["records"]
    assert found["3b"]["answer"] == f"1 of {most} records"
    assert found["3c"]["answer"] == "others too"
    assert found["3c"]["evidence"]["completedAt"]["a number"] == 1
    assert found["5e"]["answer"] == "perhaps: ends are created before their end"


def test_what_time_tells(place: Place) -> None:
    """What the checkpoint has seen is filled in: lateness, changes in place, second ends, starts
    without an end, deletions; a source that it does not know is as one without a checkpoint."""
    place.fill(50)
    counts = [0] * len(VisibilityLag().counts)
    counts[0], counts[9] = 90, 10
    lag = VisibilityLag(counts, largest=400_000, turned=1)
    with closing(open_store(f"sqlite:///{place.storage}")) as store:
        store.load("default", "")
        for _ in range(2):
            counted = {"in_place": 2, "in_place_moved": 1, "ended_again": 3, "incomplete": 4}
            store.settle("default", Settlement(Progress(), counted=counted, visibility=lag.text()))
        for result in (
            AuditResult(600_000, 0, 10, 100, 50, 50, 5),
            AuditResult(3_600_000, 0, 10, 200, 47, 50, 0),
            AuditResult(3_600_000, 10, 20, 200, 9, 7, 0),
        ):
            store.write_audit("default", result)
        assert store.counted("default")["ended_again"] == 6
        assert store.counted("other") == {}
    found = reported(place)
    assert found["1a"]["answer"] == "one record that changes in place"
    assert found["1b"]["answer"] == "sometimes"
    assert found["1b"]["evidence"]["of these with another createdAt"] == 2
    assert found["2a"]["answer"] == found["2b"]["answer"] == "happens"
    assert found["2b"]["evidence"] == {"by the checkpoint": 8}
    assert found["5e"]["answer"] == "10 of 100"
    assert found["5e"]["evidence"]["records, by how late"] == {"none": 90, "up to 10 min": 10}
    assert found["5e"]["evidence"]["largest lately"] == "up to 10 min"
    assert found["5e"]["evidence"]["found by the audit only"] == 5
    assert found["6c"]["answer"] == "yes"
    hour = found["6c"]["evidence"]["up to 1 h after their end"]
    assert (hour["removed"], hour["missing"], hour["stretches"]) == (3, 2, 2)


@pytest.mark.parametrize(
    ("lifecycle", "first", "second"),
    [
        ("two_records", "two records", "nothing changes in place: an end is a record of its own"),
        ("in_place", "one record that changes in place", "no"),
    ],
)
def test_what_run_has_seen(place: Place, lifecycle: str, first: str, second: str) -> None:
    """How a start becomes an end is told by a `run` that saw both."""
    place.fill(1, days=0.5, lifecycle=lifecycle)
    (record, *more) = list(place.alloy.store.records())
    begun = {"message": "executionStarted", "completedAt": None}
    if not more:
        place.alloy.store.change(record["_id"], **begun)
    settings: dict[str, Any] = {"overlap": 86_400}
    place.receive(**settings)
    if not more:
        place.alloy.store.change(record["_id"], **{name: record[name] for name in begun})
        place.receive(**settings)
    found = reported(place)
    assert (found["1a"]["answer"], found["1b"]["answer"]) == (first, second)


def test_a_failing_api(place: Place) -> None:
    """Where a request fails, what was not reached is not known yet; a 429 tells of the limit."""
    place.fill(50)
    place.alloy.script(None, None, "429:7")
    found = reported(place)
    assert found["7"]["answer"] == "429 after 3 requests; it says how long to wait"
    assert found["4"]["answer"] == "compared as a date"
    assert found["6a"]["answer"] == found["8"]["answer"] == "not known yet"


def test_steps_of_time() -> None:
    """Lengths of time are told in steps only."""
    told = [step(seconds) for seconds in (0, 0.2, 61, 432, 10_000, 86_400, 1e9)]
    assert told == [
        *("none", "up to 1 s", "up to 2 min", "up to 10 min", "up to 3 h", "up to 24 h"),
        "more than 24 h",
    ]


# No value -----------------------------------------------------------------------------------------

MARK = "zqx"
NUMBER = 73_519_000_000
"""No number of the report comes near."""
words = st.text(max_size=6).map(lambda text: MARK + text)
names = st.one_of(
    words,
    st.sampled_from(("Ada Lovelace-", "ada@example.com", "X-", "executionFinished")).map(
        lambda text: text + MARK
    ),
)
moments = st.integers(1_700_000_000_000, 1_750_000_000_000).map(to_text)
numbers = st.integers(NUMBER, NUMBER + 10**6)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), names, numbers, moments),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
    max_leaves=3,
)
fields = (
    *("_id", "startedAt", "completedAt", "createdAt", "customVersion", "workflowVersion"),
    *("teamId", "forgeWorkflowId", "workflowId", "userId"),
)


@st.composite
def records(draw: st.DrawFn) -> Any:
    """Records in the vendor's shape or any other, each value with a mark."""
    record: dict[str, Any] = {
        name: draw(anything | names) for name in fields if draw(st.booleans())
    }
    record["message"] = draw(
        st.sampled_from(("executionStarted", "executionFinished", "executionError")) | anything
    )
    for name in ("startedAt", "completedAt", "createdAt"):
        if draw(st.booleans()):
            record[name] = draw(moments)
    inner = {"executionId": draw(names), "executionUuid": draw(names | st.none())}
    record["data"] = draw(st.just(inner) | anything)
    record["user"] = draw(st.just({"email": draw(names), "fullName": draw(names)}) | anything)
    integration = {"_id": draw(names), "name": draw(names), "blockId": draw(anything)}
    workflow = {"name": draw(names), "integrationId": draw(st.just(integration) | anything)}
    record["forgeWorkflow"] = draw(st.just(workflow) | anything)
    record.update(draw(st.dictionaries(names, anything, max_size=2)))
    return draw(st.just(record) | anything)


class FakeClient:
    """Answers each request with the same records."""

    def __init__(self, found: list[Any], extra: dict[str, Any]) -> None:
        self._body = json.dumps({"notifications": found, **extra}).encode()

    def fetch(self, query: Query) -> Page:
        return read_page(self._body)

    def get(self, path: str, parameters: Mapping[str, str]) -> bytes:
        raise RequestRefused("404")

    def close(self) -> None:
        pass


@quick(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(records(), max_size=4),
    st.fixed_dictionaries(
        {"lastFetched": anything, "pagination": anything},
    ),
)
def test_no_value(found: list[Any], extra: dict[str, Any]) -> None:
    """Whatever the records hold, and wherever, none of it is in the report."""
    settings = Settings.model_validate({"api_key": MARK, "endpoint": f"https://{MARK}.example"})
    (source,) = settings.sources
    runtime, seen = system_runtime(), Observed()
    client = FakeClient(found, extra)
    list(alloy_findings(source, runtime, RequestBudget(0, runtime), client, seen))
    assert seen.error is None
    text = json.dumps(unknowns(seen, None), ensure_ascii=False)
    assert MARK not in text
    for value in _values([found, extra]):
        assert value not in text


def _values(whole: object) -> Iterator[str]:
    """All moments and numbers among the values."""
    if isinstance(whole, dict):
        for value in whole.values():
            yield from _values(value)
    elif isinstance(whole, list):
        for value in whole:
            yield from _values(value)
    elif isinstance(whole, str) and whole.endswith("Z") and whole.startswith("20"):
        yield whole
    elif isinstance(whole, int) and whole >= NUMBER:
        yield str(whole)


def test_no_value_of_the_checkpoint() -> None:
    """Of the checkpoint, too, only counts and steps of time are told."""
    lag = VisibilityLag(largest=NUMBER, turned=NUMBER)
    lag.counts[0] = 1
    audits = [AuditResult(600_000, NUMBER, NUMBER + 1, NUMBER + 2, 5, 5)]
    text = json.dumps(unknowns(Observed(), Remembered(lag, {}, audits)))
    assert str(NUMBER)[:6] not in text


def test_throttled_without_a_word() -> None:
    """A 429 that does not say how long to wait is told apart."""
    error = Throttled("429")
    seen = Observed(requests=1, error=type(error).__name__, retry_after=error.after is not None)
    assert "does not say" in by_number(unknowns(seen, None))["7"]["answer"]
