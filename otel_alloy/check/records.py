"""What a sample of records tells `check`: how a start becomes an end, and which fields are missing.

Pure functions of the sample.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from otel_alloy.alloy.models import STARTED, TERMINAL, Notification, Record
from otel_alloy.alloy.timestamps import to_ms
from otel_alloy.check.finding import Finding

_SOON_MS = 1000


def life_finding(sample: Sequence[Record]) -> Finding:
    """Whether a start and an end are two records, or one that changes."""
    part = "start and end"
    tried = f"looked at {len(sample):,} records"
    messages: dict[str, list[Record]] = defaultdict(list)
    for record in sample:
        if record.notification.execution:
            messages[record.notification.execution].append(record)
    pairs = again = started = ended = in_place = 0
    for records in messages.values():
        kinds = [r.notification.message for r in records]
        ends = sum(kind in TERMINAL for kind in kinds)
        pairs += STARTED in kinds and ends > 0
        again += ends > 1
        started += STARTED in kinds
        ended += ends > 0
        in_place += any(_created_with_its_start(r.notification) for r in records)
    facts: dict[str, Any] = {
        "executions": len(messages),
        "with_both": pairs,
        "ended_twice": again,
    }
    twice = f"; {again} ended more than once, which adds a log record each" if again else ""
    if pairs:
        return Finding.of(
            part,
            tried,
            True,
            f"two records: {pairs} of {ended} ended executions also have their start{twice}",
            lifecycle="separate",
            **facts,
        )
    if in_place:
        return Finding.of(
            part,
            tried,
            None,
            f"{in_place} ends carry the createdAt of their start: one record that changes in "
            f"place, or that becomes visible only at the end{twice}",
            "`run` asks for open executions by their id, a request each; for what becomes visible "
            "late see createdAt",
            lifecycle="in place",
            **facts,
        )
    if ended and started:
        words = (
            f"{started} started, {ended} ended, none shows both: the start changes in place "
            "or vanishes"
        )
        lifecycle = "in place or vanishing"
    elif ended:
        words = "no start is kept: only ends are written, or starts change in place or vanish"
        lifecycle = "ends only"
    else:
        words, lifecycle = "no execution has ended yet; cannot be told", "unknown"
    return Finding.of(part, tried, True, words + twice, lifecycle=lifecycle, **facts)


def fields_finding(sample: Sequence[Record], unreadable: int) -> Finding:
    """What is missing in the records; `unreadable`: how many more could not be read."""
    missing: Counter[str] = Counter()
    for record in sample:
        missing.update(_missing(record.notification))
    words = ", ".join(f"{name} {count}" for name, count in missing.most_common())
    remedy = ""
    if missing["executionUuid"]:
        remedy = (
            "those without executionUuid get ids from executionId: your services, which see "
            "only the uuid, do not join their traces"
        )
    if unreadable:
        words += f"{', ' if words else ''}unreadable {unreadable}"
    return Finding.of(
        "fields",
        f"looked at {len(sample):,} records for what is missing or cannot be read",
        None if words else True,
        f"missing or odd: {words}" if words else "all there",
        remedy,
        missing=dict(missing),
        unreadable=unreadable,
    )


def _created_with_its_start(n: Notification) -> bool:
    """Whether the record of an end was created when its execution began, and not at its end."""
    start, end, created = to_ms(n.startedAt), to_ms(n.completedAt), to_ms(n.createdAt)
    if n.message not in TERMINAL or start is None or end is None or created is None:
        return False
    return end - start > 3 * _SOON_MS and abs(created - start) < _SOON_MS


def _missing(n: Notification) -> Iterator[str]:
    ended = n.message in TERMINAL
    if not ended and n.message != STARTED:
        yield "message"
    for name in ("startedAt", "completedAt", "createdAt"):
        if to_ms(getattr(n, name)) is None and (ended or name != "completedAt"):
            yield name
    if n.data is None or not n.data.executionId:
        yield "executionId"
    if n.data is None or not n.data.executionUuid:
        yield "executionUuid"
    for name in ("userId", "forgeWorkflowId", "workflowId"):
        if not getattr(n, name):
            yield name
    for name in ("user", "forgeWorkflow"):
        value = getattr(n, name)
        if value is None or isinstance(value, str):
            yield name
