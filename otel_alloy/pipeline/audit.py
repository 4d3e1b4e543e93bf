"""Closed stretches of createdAt, counted by the API and held against what is settled.

The overlap finds what becomes visible soon; the audit finds the rest, whatever its reason. At
several ages after its end each stretch is counted: one request for all that are due together. Where
the count differs from what is settled, the stretch is halved until the difference is small enough
to be read; what is not settled yet is delivered, and the count is taken once more.

What to ask and what an answer means is decided here. How what is missing is found is in
`search.py`; what was found is kept by the store. Times are Unix ms by Alloy's clock.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Protocol

from otel_alloy.alloy.cursor import Window
from otel_alloy.checkpoint.store import AuditResult
from otel_alloy.pipeline.pace import Share
from otel_alloy.pipeline.search import Counted, Search
from otel_alloy.settings.models import SourceSettings

BY_HAND = 0
"""The age of a result that somebody asked for."""


class AuditStore(Protocol):
    """What an audit remembers; see `Store`."""

    def audited_to(self, source: str) -> dict[int, int]: ...

    def removes(self, source: str) -> bool: ...

    def write_audit(self, source: str, result: AuditResult) -> None: ...


@dataclass(frozen=True, slots=True)
class AuditPolicy:
    """When and how: the ages (ms) at which a stretch is looked at, the length of one (ms), and
    whether to read where nothing counts, and at the last age."""

    ages: tuple[int, ...]
    bucket: int
    by_reading: bool = False

    @classmethod
    def of(cls, settings: SourceSettings) -> AuditPolicy:
        """As a source's settings want it."""
        return cls(
            tuple(sorted(int(age * 1000) for age in set(settings.audit))),
            int(settings.audit_bucket * 1000),
            settings.audit_by_reading,
        )


class Auditor:
    """Audits one source, a few requests at a time. `known_from`: nothing before it is audited, as
    what was settled there is not known any more."""

    def __init__(
        self, name: str, source: Counted, store: AuditStore, policy: AuditPolicy, search: Search
    ) -> None:
        self._name = name
        self._source = source
        self._store = store
        self._policy = policy
        self._search = search
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

    def work(self, known_from: int, read_to: int, now: int, share: Share) -> None:
        """Does what is due, as far as `share` is free. `read_to`: everything that can be seen
        before it was read, so that what is missing is really missing. Raises what asking and
        settling raise; what was not finished is begun again then."""
        while share.is_free():
            if self._work is None:
                due = self._due(known_from, read_to, now)
                if due is None:
                    return
                self._work = self._audit(*due, now)
            work, self._work = self._work, None  # an exception ends it
            if next(work, self) is not self:
                self._work = work
                share.spend(1)

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
        settled = self._search.known(window).count(window.start, window.before)
        yield
        result = AuditResult(age, window.start, window.before, now, count, settled)
        if self._has_to_read(age, count):
            recovered = yield from self._search.by_reading(window)
            if count is not None:
                count = self._source.count(window)
                yield
            result = replace(result, api=count, recovered=recovered)
        elif count is not None and count != settled:
            recovered = yield from self._search.by_count(window, count)
            count = self._source.count(window)
            yield
            result = replace(result, api=count, recovered=recovered)
        settled = self._search.known(window).count(window.start, window.before)
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
