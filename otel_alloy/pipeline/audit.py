"""Closed stretches of createdAt, counted by the API and held against what is settled.

The overlap finds what becomes visible soon; the audit finds the rest, whatever its reason. At
several ages after its end each stretch is counted: one request for all that are due together. Where
the count differs from what is settled, the stretch is halved until the difference is small enough
to be read; what is not settled yet is delivered, and the count is taken once more.

What to ask and what an answer means is decided here. Delivering is the `recover` that is handed in;
what was found is kept by the store. Times are Unix ms by Alloy's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from otel_alloy.alloy.cursor import Reading, Window
from otel_alloy.alloy.models import BadRecord, Record
from otel_alloy.checkpoint.known import Known
from otel_alloy.checkpoint.store import AuditResult
from otel_alloy.errors import Unreachable
from otel_alloy.settings.models import SourceSettings

BY_HAND = 0
"""The age of a result that somebody asked for."""
_SMALLEST_MS = 1000


class Counted(Protocol):
    """What an audit needs of a source."""

    def count(self, window: Window) -> int | None: ...

    def read(self, window: Window, *, sure: bool = True) -> Iterable[Reading]: ...


class AuditStore(Protocol):
    """What an audit remembers; see `Store`."""

    def known(self, source: str, start: int, before: int) -> Known: ...

    def audited_to(self, source: str) -> dict[int, int]: ...

    def removes(self, source: str) -> bool: ...

    def write_audit(self, source: str, result: AuditResult) -> None: ...


Recover = Callable[[Window, Sequence[Record], Sequence[BadRecord]], None]
"""Delivers and settles records that were missing. Raises what settling raises."""


@dataclass(frozen=True, slots=True)
class AuditPolicy:
    """When and how: the ages (ms) at which a stretch is looked at, the length of one (ms), how many
    records are read rather than halved once more, and whether to read where nothing counts, and
    at the last age."""

    ages: tuple[int, ...]
    bucket: int
    page: int
    by_reading: bool = False

    @classmethod
    def of(cls, settings: SourceSettings) -> AuditPolicy:
        """As a source's settings want it."""
        return cls(
            tuple(sorted(int(age * 1000) for age in set(settings.audit))),
            int(settings.audit_bucket * 1000),
            settings.page_size,
            settings.audit_by_reading,
        )


class Auditor:
    """Audits one source, a few requests at a time. `known_from`: nothing before it is audited, as
    what was settled there is not known any more."""

    def __init__(
        self, name: str, source: Counted, store: AuditStore, policy: AuditPolicy, recover: Recover
    ) -> None:
        self._name = name
        self._source = source
        self._store = store
        self._policy = policy
        self._recover = recover
        self._audited = store.audited_to(name) if policy.ages else {}
        self._work: Generator[None, None, None] | None = None
        self._results: list[AuditResult] = []

    def audited_to(self, age: int) -> int | None:
        """Up to where all stretches were audited at this age; None before the first."""
        return self._audited.get(age)

    @property
    def needed_from(self) -> int | None:
        """What was settled before this is needed by no audit to come; None where nothing is."""
        return min((self._audited.get(age, 0) for age in self._policy.ages), default=None)

    def take_results(self) -> list[AuditResult]:
        """What was found since this was last asked."""
        found, self._results = self._results, []
        return found

    def work(self, known_from: int, read_to: int, now: int, requests: int) -> None:
        """Spends up to `requests` on what is due. `read_to`: everything that can be seen before it
        was read, so that what is missing is really missing. Raises what asking and settling
        raise; what was not finished is begun again then."""
        for _ in range(requests):
            if self._work is None:
                due = self._due(known_from, read_to, now)
                if due is None:
                    return
                self._work = self._audit(*due, now)
            work, self._work = self._work, None  # an exception ends it
            if next(work, self) is not self:
                self._work = work

    def audit(self, window: Window, now: int) -> AuditResult:
        """Audits one range at once, whatever is due; what is missing is delivered."""
        for _ in self._audit(BY_HAND, window, now):
            pass
        return self._results.pop()

    def _due(self, known_from: int, read_to: int, now: int) -> tuple[int, Window] | None:
        """The age and the stretches that are to be audited next, the oldest end first."""
        bucket, found = self._policy.bucket, []
        for age in self._policy.ages:
            before = min(now - age, read_to) // bucket * bucket
            start = self._audited.get(age)
            if start is None:
                start = max(-(-known_from // bucket) * bucket, before - bucket)
            if start < before:
                found.append((before, age, Window(start, before)))
        if not found:
            return None
        _, age, window = min(found)
        return age, window

    def _audit(self, age: int, window: Window, now: int) -> Generator[None, None, None]:
        """Audits one range; a step for each request."""
        count = self._source.count(window)
        settled = self._known(window).count(window.start, window.before)
        yield
        result = AuditResult(age, window.start, window.before, now, count, settled)
        if self._has_to_read(age, count):
            recovered = yield from self._read(window)
            if count is not None:
                count = self._source.count(window)
                yield
            result = replace(result, api=count, recovered=recovered)
        elif count is not None and count != settled:
            recovered = yield from self._search(window, count)
            count = self._source.count(window)
            yield
            result = replace(result, api=count, recovered=recovered)
        settled = self._known(window).count(window.start, window.before)
        result = replace(result, settled=settled)
        self._store.write_audit(self._name, result)
        self._audited[age] = window.before
        self._results.append(result)

    def _has_to_read(self, age: int, count: int | None) -> bool:
        """Whether the count is not enough. Behind one number, a record that was deleted hides one
        that came late, so the last look reads where that is wanted, or where deletions were
        seen."""
        if count is None:
            return self._policy.by_reading
        last = age in (self._policy.ages[-1:] or (BY_HAND,))
        return last and (self._policy.by_reading or self._store.removes(self._name))

    def _search(self, window: Window, count: int) -> Generator[None, None, int]:
        """Halves what differs until it can be read; how many records were recovered."""
        recovered = 0
        pending = [(window, count)]
        while pending:
            part, told = pending.pop()
            if told == self._known(part).count(part.start, part.before):
                continue
            if told <= self._policy.page or part.before - part.start <= _SMALLEST_MS:
                recovered += yield from self._read(part)
                continue
            middle = (part.start + part.before) // 2
            first, second = Window(part.start, middle), Window(middle, part.before)
            left = self._source.count(first)
            yield
            if left is None:
                recovered += yield from self._read(part)
                continue
            pending += [(second, max(0, told - left)), (first, left)]
        return recovered

    def _read(self, window: Window) -> Generator[None, None, int]:
        """Reads a stretch and has delivered what is not settled; how many records that were. What
        cannot be reached is found by the count that follows."""
        recovered = 0
        try:
            for reading in self._source.read(window):
                known = self._known(window)
                records = [r for r in reading.records if not _is_known(known, r, r.created)]
                bad = [b for b in reading.bad if not _is_known(known, b, b.created)]
                if records or bad:
                    self._recover(window, records, bad)
                    recovered += len(records) + len(bad)
                yield
        except Unreachable:
            yield
        return recovered

    def _known(self, window: Window) -> Known:
        return self._store.known(self._name, window.start, window.before)


def _is_known(known: Known, entry: Record | BadRecord, created: int | None) -> bool:
    return created is None or (entry.identity, created) in known
