"""Which way each of the API's unknowns fell: what was asked, looked at and remembered, as answers.

Pure. An answer holds words, counts, shares and lengths of time in steps, and no value of a record,
so that it can be shown to anybody. What cannot be told yet says what would tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from otel_alloy.check.observed import Observed, Remembered, Unknown, step, up_to
from otel_alloy.check.shapes import shapes
from otel_alloy.checkpoint.store import AuditResult
from otel_alloy.pipeline.visibility import BOUNDS_SECONDS

_AGAIN = "check it again when there are more records"
_RUN = "a `run` of some days with this checkpoint"


def unknowns(seen: Observed, kept: Remembered | None) -> list[dict[str, Any]]:
    """All of them, in order. `kept`: None where there is no checkpoint."""
    counted = {} if kept is None else kept.counted
    found = [
        *_life(seen, counted),
        *_fields(seen),
        *_paging(seen),
        _late(seen, kept),
        *_counts(seen, kept),
        _rate(seen),
        _fact("8", "whether answers are wrapped in `data`", seen, "envelope", "envelope", _yes_no),
    ]
    return [one.as_object() for one in sorted(found, key=lambda one: one.number)]


def _yes_no(value: object) -> str | None:
    return {True: "yes", False: "no"}.get(value) if isinstance(value, bool) else None


def _fact(
    number: str,
    question: str,
    seen: Observed,
    part: str,
    fact: str,
    words: Any,
    would_tell: str = _AGAIN,
) -> Unknown:
    """An unknown that one fact of one finding answers."""
    value = seen.facts.get(part, {}).get(fact)
    return Unknown(number, question, words(value), {fact: value}, would_tell)


# 1 and 2: the life of an execution ----------------------------------------------------------------

_LIVES = {
    "separate": "two records",
    "in place": "one record that changes in place, or ends whose createdAt is that of their start",
    "in place or vanishing": "the start changes in place or vanishes",
    "ends only": "no start is kept: only ends are written, or starts change in place or vanish",
}


def _life(seen: Observed, counted: Mapping[str, int]) -> Iterator[Unknown]:
    life, times = seen.facts.get("start and end", {}), seen.facts.get("createdAt", {})
    separate, in_place = counted.get("separate", 0), counted.get("in_place", 0)
    answer = _LIVES.get(str(life.get("lifecycle")))
    if separate and in_place:
        answer = "both were seen: two records, and one record that changes in place"
    elif separate or in_place:
        answer = "two records" if separate else "one record that changes in place"
    names = ("executions", "with_both")
    evidence = {
        "in the sample": {name: life[name] for name in names if name in life},
        "changed in place, by the checkpoint": in_place,
        "two records, by the checkpoint": separate > 0,
    }
    yield Unknown("1a", "started to finished: two records, or one", answer, evidence, _RUN)
    moved = counted.get("in_place_moved", 0)
    answer = None
    if in_place:
        answer = "yes" if moved == in_place else "sometimes" if moved else "no"
    elif separate or life.get("lifecycle") == "separate":
        answer = "nothing changes in place: an end is a record of its own"
    evidence = {"changed in place": in_place, "of these with another createdAt": moved}
    yield Unknown("1b", "whether createdAt changes with it", answer, evidence, _RUN)
    kind = times.get("created_at")
    evidence = {name: times[name] for name in ("ended", "compared", "late") if name in times}
    for name in ("after_end_seconds", "after_start_seconds"):
        if isinstance(median := times.get(name), int | float):
            side = " before it" if median < 0 else ""
            evidence[name.replace("_seconds", ", median")] = step(abs(median)) + side
    if times.get("late"):
        evidence["visible after createdAt"] = step(times["late_seconds"])
    answer = None if kind in (None, "unknown") else f"its {kind}"
    if kind in ("between", "mixed"):
        answer = {"between": "neither its start nor its end", "mixed": "not always the same"}[kind]
    yield Unknown("1c", "of what moment the createdAt of an end is", answer, evidence, _AGAIN)

    twice, again = life.get("ended_twice", 0), counted.get("ended_again", 0)
    evidence = {"in the sample": twice, "executions in the sample": life.get("executions", 0)}
    evidence["by the checkpoint"] = again
    answer = "happens" if twice or again else None
    yield Unknown("2a", "a second end of one execution", answer, evidence, _RUN)
    incomplete = counted.get("incomplete", 0)
    answer = "happens" if incomplete else None
    tell = "a `run` of longer than incomplete_after with this checkpoint"
    evidence = {"by the checkpoint": incomplete}
    yield Unknown("2b", "a start that never ends", answer, evidence, tell)


# 3: fields ----------------------------------------------------------------------------------------


def _fields(seen: Observed) -> Iterator[Unknown]:
    facts = seen.facts.get("fields")
    found = shapes(seen.entries)
    answer = None
    if facts is not None and found["records"]:
        missing = ", ".join(f"{name} {count:,}" for name, count in facts["missing"].items())
        unreadable = f"{facts['unreadable']:,} cannot be read" if facts["unreadable"] else ""
        odd = "; ".join(words for words in (missing, unreadable) if words)
        answer = f"missing or odd: {odd}" if odd else "all are there"
    yield Unknown("3a", "fields that are missing, null or odd", answer, found, _AGAIN)
    other, most = found["messages"].get("other", 0), found["records"]
    answer = None if not most else f"{other:,} of {most:,} records" if other else "none"
    evidence = {"messages": found["messages"]}
    yield Unknown("3b", "a message that is not described", answer, evidence, _AGAIN)
    forms = {n: f for n, f in found["forms"].items() if n.endswith("At")}
    usual = all(form in ("as described", "none") for f in forms.values() for form in f)
    answer = None if not most else "as described" if usual else "others too"
    yield Unknown("3c", "forms of timestamps", answer, forms, _AGAIN)


# 4 and 5: filters and pages -----------------------------------------------------------------------


def _paging(seen: Observed) -> Iterator[Unknown]:
    verdicts = {
        "honoured": "compared as a date",
        "ignored": "ignored",
        "matches_nothing": "matches nothing",
    }
    yield _fact(
        "4", "the createdAt filter", seen, "createdAt filter", "filter", lambda v: verdicts.get(v)
    )
    size = seen.facts.get("page size", {})
    answer, largest = None, size.get("largest")
    if size.get("refused"):
        answer = "refused above some number"
    elif largest is not None:
        answer = "at least 1,000 at once" if largest >= 1000 else f"cut to {largest:,}"
    yield Unknown("5a", "a large limit", answer, dict(size), _AGAIN)
    words = "a look with more time" if seen.error else _AGAIN
    yield Unknown("5b", "skip past the end", seen.past_end, {}, words)
    order = seen.facts.get("sort order", {}).get("sort_order")
    sorted_by = None if "oldest record" not in seen.facts else "sorted as asked"
    answer = "sortOrder is ignored" if order else sorted_by
    yield Unknown("5c", "sortOrder", answer, {}, _AGAIN)
    stable = {True: "the same each time", False: "another one each time"}
    yield _fact(
        "5d",
        "order among equal createdAt",
        seen,
        "order of ties",
        "stable",
        lambda v: None if v is None else stable[v],
    )


def _late(seen: Observed, kept: Remembered | None) -> Unknown:
    question = "records that become visible late"
    late = seen.facts.get("createdAt", {}).get("late", 0)
    evidence: dict[str, Any] = {"ends in the sample created before their end": late}
    if kept is None or not sum(kept.lag.counts):
        answer = "perhaps: ends are created before their end" if late else None
        return Unknown("5e", question, answer, evidence, _RUN)
    names = [*(up_to(bound) for bound in BOUNDS_SECONDS), "more than 24 h"]
    pairs = zip(names, kept.lag.counts, strict=True)
    evidence["records, by how late"] = {name: count for name, count in pairs if count}
    evidence["largest lately"] = step(kept.lag.recent / 1000)
    evidence["found by the audit only"] = sum(result.recovered for result in kept.audits)
    answer = f"{kept.lag.late:,} of {sum(kept.lag.counts):,}" if kept.lag.late else "none so far"
    return Unknown("5e", question, answer, evidence, _RUN)


# 6: what is counted -------------------------------------------------------------------------------


def _counts(seen: Observed, kept: Remembered | None) -> Iterator[Unknown]:
    told = {True: "what matches the filters", False: "not what matches the filters"}
    counting = seen.facts.get("totalItems", {})
    counts = counting.get("counts_matches")
    there = counting.get("total_items") is not None
    answer = told.get(counts) if isinstance(counts, bool) else None
    if counting and not there:
        answer = "it is not told"
    yield Unknown("6a", "what totalItems counts under filters", answer, {"told": there}, _AGAIN)
    question = "currentPage where skip is no multiple of limit"
    yield Unknown("6b", question, seen.current_page, {}, _AGAIN)
    evidence: dict[str, Any] = {}
    removed = 0
    by_age: dict[int, list[AuditResult]] = {}
    for result in kept.audits if kept is not None else ():
        by_age.setdefault(result.age, []).append(result)
    for age, results in sorted(by_age.items()):
        removed += sum(result.removed for result in results)
        name = f"{step(age / 1000)} after their end" if age else "by hand"
        evidence[name] = {
            "stretches": len(results),
            "not counted": sum(result.api is None for result in results),
            "settled": sum(result.settled for result in results),
            "recovered": sum(result.recovered for result in results),
            "removed": sum(result.removed for result in results),
            "missing": sum(result.missing for result in results),
        }
    counted = any(result.api is not None for results in by_age.values() for result in results)
    answer = ("yes" if removed else "none so far") if counted else None
    yield Unknown("6c", "records that are deleted later", answer, evidence, _RUN)


# 7: the rate limit --------------------------------------------------------------------------------


def _rate(seen: Observed) -> Unknown:
    answer = None
    evidence: dict[str, Any] = {"requests sent": seen.requests, "answered 429": False}
    if seen.error == "Throttled":
        waits = "says" if seen.retry_after else "does not say"
        answer = f"429 after {seen.requests:,} requests; it {waits} how long to wait"
        evidence["answered 429"] = True
    tell = "an answer 429, which `run` logs and waits for"
    return Unknown("7", "the rate limit and its answer", answer, evidence, tell)
