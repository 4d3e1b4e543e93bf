"""What createdAt is the time of, told from a sample, and what it means for the overlap."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_alloy.alloy.models import read_page
from otel_alloy.alloy.timestamps import to_text
from otel_alloy.check.finding import Finding
from otel_alloy.check.times import times_finding

NOW = 1_760_000_000_000
SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
FINISHED = "executionFinished"


def found(
    *records: dict[str, Any],
    overlap: int = 2 * MINUTE,
    most: int = 24 * HOUR,
    separate: bool = True,
) -> Finding:
    body = json.dumps({"notifications": [{"_id": str(i)} | r for i, r in enumerate(records)]})
    return times_finding(read_page(body.encode()).records, NOW, overlap, most, separate)


def end(created: int, begun: int, ended: int, **fields: Any) -> dict[str, Any]:
    """An end; the times in ms before now."""
    times = {"createdAt": created, "startedAt": begun, "completedAt": ended}
    return {"message": FINISHED, **{k: to_text(NOW - t) for k, t in times.items()}, **fields}


def test_the_end() -> None:
    """createdAt 0.1 s after the end: said so with the median, and there is nothing to do."""
    ends = [end(9900 + i, 9 * MINUTE, 10_000 + i) for i in range(5)]
    told = found(*ends)
    assert told.ok is True and not told.remedy
    assert told.answer == (
        "createdAt is the time of the end (100 ms after it, median): the overlap need only cover "
        "how late records become visible"
    )
    assert told.facts["created_at"] == "end"
    assert (told.facts["after_end_seconds"], told.facts["late_seconds"]) == (0.1, 0)


def test_the_start() -> None:
    """createdAt the start of records that tell the end: how late they become visible, what finds
    them, and the overlap that covers them."""
    ends = [end(HOUR, HOUR, HOUR - d * SECOND) for d in (5, 20, 200, 432)]
    told = found(*ends)
    assert told.ok is None
    assert told.answer == (
        "createdAt is the time of the start, although the record tells the end: an execution "
        "becomes visible up to 7 min 12 s after its createdAt; the overlap of 2 min 0 s finds "
        "those that take less, the audit the others"
    )
    assert told.remedy == "set overlap to at least 678s, to which `run` raises it itself"
    assert told.facts["created_at"] == "start"
    assert (told.facts["late"], told.facts["beyond_overlap"]) == (4, 2)
    assert told.facts["overlap_wanted_seconds"] == 432 * 1.5 + 30
    assert "changed in place" in found(*ends, separate=False).remedy
    covered = found(*ends, overlap=HOUR)
    assert "the overlap of 1 h 0 min covers that" in covered.answer
    assert covered.ok is None and not covered.remedy
    assert found(*ends, most=5 * MINUTE).facts["overlap_wanted_seconds"] == 300


@pytest.mark.parametrize(
    ("created", "kind", "words"),
    [
        ((30, 30, 30), "between", "createdAt lies between start and end"),
        ((60, 60, 10, 10), "mixed", "2 of 4 ends have a createdAt from before the end"),
        ((10,) * 30 + (40,), "mixed", "1 of 31 ends has a createdAt from before the end"),
    ],
)
def test_neither(created: tuple[int, ...], kind: str, words: str) -> None:
    """Neither start nor end, or some of each: what is late is said with its number."""
    told = found(*(end(c * SECOND, 60 * SECOND, 10 * SECOND) for c in created))
    assert told.ok is None
    assert told.facts["created_at"] == kind
    assert told.answer.startswith(words)


def test_too_short_or_none() -> None:
    """Where no execution took long, or none has ended, it is said that nothing can be told."""
    assert found().facts["created_at"] == "unknown"
    assert "cannot be told" in found({"message": "executionStarted"}).answer
    short = found(*(end(10 * SECOND, 10 * SECOND, 9 * SECOND) for _ in range(20)))
    assert short.ok is True
    assert short.facts["created_at"] == "unknown"
    assert "long enough" in short.answer


def test_odd_times() -> None:
    """Times that are missing, unreadable, contradictory or in the future say nothing of the
    overlap; other forms than Alloy's count as well as its own."""
    good = [end(9900, MINUTE, 10_000, createdAt=f) for f in (NOW - 9900, str(NOW - 9900))]
    good.append(end(9900, MINUTE, 10_000, completedAt=(NOW - 10_000) / 1000))
    odd = [
        end(HOUR, HOUR, 0, completedAt=None),
        end(HOUR, HOUR, 0, completedAt="Invalid Date"),
        end(HOUR, HOUR, 0, createdAt=[]),
        end(HOUR, HOUR, 0, completedAt="2199-01-01T00:00:00Z"),
        end(HOUR, HOUR, 2 * HOUR),
    ]
    told = found(*good, *odd, {"message": "executionStarted"})
    assert told.facts["created_at"] == "end"
    assert (told.facts["undated"], told.facts["odd"], told.facts["late"]) == (3, 2, 0)
    assert told.answer.endswith("; 5 of 8 ends have no times to compare")


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=30),
    st.floats(),
    st.integers(),
    st.integers(0, 2**42).map(to_text),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@given(st.lists(st.tuples(ODD, ODD, ODD), max_size=8), st.booleans())
def test_anything(times: list[tuple[object, object, object]], separate: bool) -> None:
    """Whatever the times are, there is one finding, with numbers that are JSON."""
    told = found(
        *(
            {"message": FINISHED, "createdAt": c, "startedAt": s, "completedAt": e}
            for c, s, e in times
        ),
        separate=separate,
    )
    json.dumps(told.facts, allow_nan=False)
    assert told.facts["ended"] == len(times)
    assert told.ok is not False
