"""A look at executions straight from the API: reads, joins and converts as `run` does.

What `tail` and `summary` share. What it gives is read back from the very spans that a backend would
get, so names, times, outcomes and the privacy settings are the same. All that is remembered is in
memory: no checkpoint is opened, nothing is sent, and nothing printed here.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from threading import Event

from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from otel_alloy.alloy.clock import ServerClock
from otel_alloy.alloy.models import TERMINAL, Page
from otel_alloy.alloy.query import Query
from otel_alloy.alloy.reader import Filter, Reader, UnorderedApi, Window, window_start
from otel_alloy.alloy.retry import RequestBudget, Retrying, RetryingFetch
from otel_alloy.checkpoint.store import State
from otel_alloy.errors import ConfigurationError
from otel_alloy.mapping import semconv
from otel_alloy.mapping.convert import Role, Unconvertible
from otel_alloy.pipeline.factory import converter, open_client, scope
from otel_alloy.pipeline.tracker import Batch, ExecutionTracker
from otel_alloy.settings.models import Settings, SourceSettings
from otel_alloy.terminal.render import Execution

Report = Callable[[str, Retrying], None]
"""Is told the source's name and what has to be asked again."""

_ASKED_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which executions to show: of a workflow (a part of its name in any case, or its id), of a
    user (the id), only failed ones. What is not given matches all."""

    workflow: str | None = None
    user: str | None = None
    errors: bool = False

    def __call__(self, one: Execution) -> bool:
        """Whether this one is wanted."""
        if self.errors and one.outcome != "error":
            return False
        if self.user is not None and one.attributes.get(semconv.USER_ID) != self.user:
            return False
        if self.workflow is None or self.workflow == one.attributes.get(semconv.WORKFLOW_ID):
            return True
        return self.workflow.casefold() in one.workflow.casefold()


@dataclass(frozen=True, slots=True)
class Part:
    """Executions of one page. `position`: createdAt (Unix ms) up to which the window is read; None
    where the API is read newest first. `again`: further ends of executions that were shown."""

    executions: list[Execution]
    again: list[Execution]
    position: int | None


class ExecutionQuery:
    """Reads one source. A context manager; for one thread.

    `overlap`: seconds that `follow` reads again each time, for records that appear late.
    """

    def __init__(
        self, settings: Settings, source: SourceSettings, *, overlap: float, report: Report
    ) -> None:
        self.source = source
        self.unreadable = 0
        """Records that are no notification, or have neither identity nor time."""
        self._overlap = int(overlap * 1000)
        self._clock = ServerClock()
        self._client = open_client(source)
        self._fetch = RetryingFetch(
            self._fetch_and_learn,
            RequestBudget(source.requests_per_minute, time.monotonic),
            Event().wait,  # nobody sets it: Ctrl-C interrupts
            random.random,
            lambda event: report(source.name, event),
        )
        self._reader = Reader(self._fetch, scope(source))
        self._converter = converter(settings)
        self._state = State()
        self._joiner = ExecutionTracker(
            source.name,
            self._state,
            overlap_ms=self._overlap,
            incomplete_after_ms=int(source.incomplete_after * 1000),
        )
        self._high: int | None = None

    def __enter__(self) -> ExecutionQuery:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    @property
    def requests(self) -> int:
        """How many requests were sent."""
        return self._fetch.requests

    @property
    def running(self) -> int:
        """How many executions have started and not ended, as far as was read."""
        return len(self._state.open)

    @property
    def newest_first(self) -> bool:
        """Whether the API has to be read from the newest record down."""
        return self._reader.newest_first

    def window(self, since: float) -> Window:
        """The window from `since` until now: Unix ms (int), or how many seconds ago (float). Asks
        the API for its clock and what it makes of filters: two requests, the first time."""
        self._learn()
        now = self._now()
        start = since if isinstance(since, int) else self._clock.earliest(_now_ms()) - since * 1000
        start = max(1, int(start))
        return Window(start, max(now, start + 1))

    def read(self, window: Window) -> Iterator[Part]:
        """What ended in the window, page by page. An end that is repeated when the window has to be
        read in another way is given once."""
        try:
            yield from self._read(window)
        except UnorderedApi:
            yield from self._read(window)

    def follow(self, window: Window) -> Iterator[Part]:
        """What ended in the window; then what has ended of that which was running for long, found
        by its id, as its record may have changed in place."""
        yield from self.read(window)
        batch = self._joiner.batch()
        self._joiner.advance(batch, self._high)
        now = self._now()
        for execution in [] if self.newest_first else self._joiner.due(now)[:_ASKED_AT_ONCE]:
            records = self._reader.execution(execution)
            ends = [r for r in records if r.notification.message in TERMINAL]
            self._joiner.take(batch, ends, [], _now_ms())
            if execution in self._state.open:
                self._joiner.asked(batch, execution)
        self._joiner.give_up(batch, now)
        yield self._part(batch, None)

    def next_window(self, before: Window) -> Window:
        """The window after `before`, which was followed to its end."""
        self._learn()
        start = before.start
        if self._high is not None:
            start = max(start, window_start(self._high, self._overlap, False))
        return Window(start, max(self._now(), start + 1))

    def _learn(self) -> None:
        """As long as it is not known what the API makes of filters, finds out."""
        if self._reader.filter is Filter.UNKNOWN:
            self._reader.probe()

    def _read(self, window: Window) -> Iterator[Part]:
        for reading in self._reader.read(window):
            batch = self._joiner.batch()
            self._joiner.take(batch, reading.records, reading.bad, _now_ms())
            for record in reading.records:
                if record.created is not None:
                    self._high = max(self._high or 0, record.created)
            yield self._part(batch, reading.position)

    def _part(self, batch: Batch, position: int | None) -> Part:
        part = Part([], [], position)
        self.unreadable += len(batch.settlement.set_aside)
        for execution in batch.executions:
            again = execution.role is Role.ENDED_AGAIN
            if again:  # made into a span only here: `run` sends a log record of it
                execution = replace(execution, role=Role.ENDED)
            try:
                span, _ = self._converter.convert(execution)
            except Unconvertible:
                self.unreadable += 1
                continue
            if span is not None:
                shown = Execution.of(ScopeSpans.FromString(span).spans[0])
                (part.again if again else part.executions).append(shown)
        return part

    def _now(self) -> int:
        return self._clock.now(_now_ms())

    def _fetch_and_learn(self, query: Query) -> Page:
        page = self._client.fetch(query)
        self._clock.learn(page, _now_ms())
        return page


def chosen_sources(settings: Settings, name: str | None) -> Sequence[SourceSettings]:
    """The source of that name, or all. Raises ConfigurationError where there is none."""
    chosen = [s for s in settings.sources if name in (None, s.name)]
    if not chosen:
        known = ", ".join(s.name for s in settings.sources)
        raise ConfigurationError([f"--source: there is no source {name!r}; known are {known}"])
    return chosen


def retry_words(source: str, event: Retrying) -> str:
    """What to tell people when a request has to be sent again."""
    if not event.wait:
        return f"source {source}: {event.error}; trying half the page size"
    return f"source {source}: {event.error}; trying again in {event.wait:.1f} s"


def _now_ms() -> int:
    return int(time.time() * 1000)
