"""A query of executions, straight from the API: reads, joins and converts as `run` does.

What `tail`, `summary` and `check --explain` share. What it gives are the facts that `run` exports,
so names, times, outcomes and the privacy settings are the same; why executions failed is asked for
on demand. All that is remembered goes with the process: no checkpoint is opened, nothing is sent,
and nothing printed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from otel_alloy.alloy.clock import future_words
from otel_alloy.alloy.cursor import Filter, Reading, UnorderedApi, Window, window_start
from otel_alloy.alloy.events import RequestRetried
from otel_alloy.alloy.models import TERMINAL, Record
from otel_alloy.checkpoint.private import PrivateStore
from otel_alloy.errors import (
    AlloyReceiverError,
    ConfigurationError,
    RequestRefused,
    Unreachable,
)
from otel_alloy.mapping.convert import Role, Unconvertible
from otel_alloy.mapping.facts import ExecutionFacts
from otel_alloy.pipeline.batch import Batch
from otel_alloy.pipeline.events import Unreached
from otel_alloy.pipeline.explain import Explainer
from otel_alloy.pipeline.factory import (
    Budgets,
    open_client,
    open_converter,
    open_mask,
    open_source,
)
from otel_alloy.pipeline.open_executions import UNANSWERED
from otel_alloy.pipeline.tracker import ExecutionTracker
from otel_alloy.runtime import Runtime
from otel_alloy.settings.models import Settings, SourceSettings

_ASKED_AT_ONCE = 2
_GIVEN_UP_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which executions to show: of a workflow (a part of its name in any case, or its id), of a
    user (the id), only failed ones. What is not given matches all."""

    workflow: str | None = None
    user: str | None = None
    errors: bool = False

    def __call__(self, one: ExecutionFacts) -> bool:
        """Whether this one is wanted."""
        if self.errors and one.outcome != "error":
            return False
        if self.user is not None and one.user_id != self.user:
            return False
        if self.workflow is None or self.workflow == one.workflow_id:
            return True
        return self.workflow.casefold() in one.workflow.casefold()


@dataclass(frozen=True, slots=True)
class Part:
    """Executions of one page. `position`: createdAt (Unix ms) up to which the window is read; None
    where the API is read newest first. `again`: further ends of executions that were shown."""

    executions: list[ExecutionFacts]
    again: list[ExecutionFacts]
    position: int | None


@dataclass(frozen=True, slots=True)
class NotExplained:
    """A question about blocks and reasons failed; what it was about is shown without."""

    source: str
    error: AlloyReceiverError


Told = RequestRetried | Unreached | NotExplained


class ExecutionQuery:
    """Reads one source. A context manager; for one thread.

    `overlap`: seconds that `follow` reads again each time, for records that appear late. `report`
    is told of requests that have to be sent again, of records that Alloy does not give, and of
    questions about blocks that fail; reading goes on then. `budgets`: where other queries share
    them. `hold_at_most`: after so many seconds a refusal that came after good answers is raised;
    None: it is waited for.
    """

    def __init__(
        self,
        settings: Settings,
        source: SourceSettings,
        *,
        overlap: float,
        runtime: Runtime,
        report: Callable[[Told], None],
        budgets: Budgets | None = None,
        hold_at_most: float | None = None,
    ) -> None:
        self.settings = source
        self.unreadable = 0
        """Records that are no notification, or have neither identity nor time."""
        self.records = 0
        """Records that have a createdAt and were read for the first time."""
        self.unreachable: int | None = 0
        """Records that Alloy counted and did not give, when it was last read; None where some are
        missing and cannot be counted."""

        def observe(event: object) -> None:
            if isinstance(event, RequestRetried):
                report(event)

        self._report = report
        self._told: Unreached | None = None
        self._overlap = int(overlap * 1000)
        self._runtime = runtime
        budgets = budgets or Budgets(settings, runtime)
        connect = partial(open_client, source, runtime, settings.network)
        self._source = open_source(source, runtime, observe, budgets.of(source), connect)
        if hold_at_most is not None:
            self._source.hold_at_most(hold_at_most)
        self._converter = open_converter(settings, runtime)
        self._store = PrivateStore()
        self._explainer: Explainer | None = None
        if source.enrich != "off":
            self._explainer = Explainer(
                self._source,
                self._store,
                open_mask(settings),
                self._converter.explained,
                runtime,
                lambda error: report(NotExplained(source.name, error)),
            )
        self._tracker = ExecutionTracker(
            source.name,
            self._store.load(source.name),
            overlap_ms=self._overlap,
            incomplete_after_ms=int(source.incomplete_after * 1000),
        )
        self._high: int | None = None

    def __enter__(self) -> ExecutionQuery:
        return self

    def __exit__(self, *error: object) -> None:
        self._source.close()
        self._store.close()

    @property
    def requests(self) -> int:
        """How many requests were sent."""
        return self._source.requests

    @property
    def explains(self) -> bool:
        """Whether it is to be asked why executions failed."""
        return self._explainer is not None

    @property
    def running(self) -> int:
        """How many executions have started and not ended, as far as was read."""
        return self._tracker.state.open_count

    @property
    def newest_first(self) -> bool:
        """Whether the API has to be read from the newest record down."""
        return self._source.newest_first

    def window(self, since: float) -> Window:
        """The window from `since` until now: Unix ms (int), or how many seconds ago (float). Asks
        the API for its clock and what it makes of filters: two requests, the first time. Raises
        ConfigurationError where it would begin in the future."""
        self._learn()
        latest = self._source.look_beyond()
        if isinstance(since, int) and self._source.is_ahead(since):
            words = future_words("--since", since, latest)
            raise ConfigurationError([f"{words}; give one that has passed"])
        start = since if isinstance(since, int) else self._source.earliest() - since * 1000
        start = max(1, int(start))
        return Window(start, max(latest, start + 1))

    def count(self, window: Window) -> int | None:
        """How many records of a window Alloy counts (one request, up to three the first time);
        None where it cannot be relied on for that."""
        try:
            return self._source.count(window)
        except RequestRefused:
            return None

    def read(self, window: Window) -> Iterator[Part]:
        """What ended in the window, page by page. An end that is repeated when the window has to be
        read in another way is given once."""
        for reading in self._readings(window):
            batch = self._tracker.batch()
            self._tracker.take(batch, reading.records, reading.bad, self._runtime.now_ms())
            for record in reading.records:
                if record.created is not None:
                    self._high = max(self._high or 0, record.created)
            yield self._part(batch, reading.position)

    def pages(self, window: Window) -> Iterator[list[Record]]:
        """The records of a window as they come, page by page; some of them again where the window
        has to be read in another way."""
        for reading in self._readings(window):
            yield reading.records

    def _readings(self, window: Window) -> Iterator[Reading]:
        self.unreachable = 0
        try:
            try:
                yield from self._source.read(window)
            except UnorderedApi:
                yield from self._source.read(window)
        except Unreachable as error:
            self.unreachable = error.count
            name = self.settings.name
            told = Unreached(name, error.count, error.moment, error.problem, 0.0)
            if told != self._told:
                self._report(told)
            self._told = told

    def follow(self, window: Window) -> Iterator[Part]:
        """What ended in the window; then what has ended of that which was running for long, found
        by its id, as its record may have changed in place."""
        yield from self.read(window)
        tracker, now = self._tracker, self._source.now()
        batch = tracker.batch()
        tracker.advance(batch, self._high)
        yield self._part(batch, None)
        batch = tracker.batch()
        now = self._source.certain()
        idle = self.newest_first or tracker.separate
        for execution in [] if idle else tracker.due(now, _ASKED_AT_ONCE):
            try:
                records = self._source.execution(execution)
            except UNANSWERED:
                tracker.unanswered(batch, execution, now)
                break
            ends = [r for r in records if r.notification.message in TERMINAL]
            tracker.take(batch, ends, [], self._runtime.now_ms())
            tracker.asked(batch, execution, now)
        yield self._part(batch, None)
        batch = tracker.batch()
        tracker.give_up(batch, now, _GIVEN_UP_AT_ONCE)
        yield self._part(batch, None)

    def explained(
        self, ended: Sequence[ExecutionFacts], seconds: float, requests: int | None = None
    ) -> Sequence[ExecutionFacts]:
        """The same executions, the failed ones with block and reason where those are to be asked
        for and can be had within so many seconds and requests (None: what the budget allows)."""
        if self._explainer is None:
            return ended
        return self._explainer.explain(ended, seconds, requests)

    def next_window(self, before: Window) -> Window:
        """The window after `before`, which was followed to its end."""
        self._learn()
        start = before.start
        if self._high is not None:
            start = max(start, window_start(self._high, self._overlap, False))
        return Window(start, max(self._source.look_beyond(), start + 1))

    def _learn(self) -> None:
        """As long as it is not known what the API makes of filters, finds out."""
        if self._source.filter is Filter.UNKNOWN:
            self._source.probe()

    def _part(self, batch: Batch, position: int | None) -> Part:
        self._store.settle(self.settings.name, batch.settlement)
        self._tracker.settled(batch)
        self.records += len({record_id for record_id, _ in batch.settlement.known})
        part = Part([], [], position)
        self.unreadable += len(batch.settlement.rejected)
        for execution in batch.executions:
            again = execution.role is Role.ENDED_AGAIN
            if again:  # has facts only here: `run` sends a log record of it
                execution = replace(execution, role=Role.ENDED)
            try:
                facts = self._converter.facts(execution)
            except Unconvertible:
                self.unreadable += 1
                continue
            if facts is not None:
                if self._explainer is not None:
                    self._explainer.note(facts)
                (part.again if again else part.executions).append(facts)
        return part


def chosen_sources(settings: Settings, name: str | None) -> Sequence[SourceSettings]:
    """The source of that name, or all. Raises ConfigurationError where there is none."""
    chosen = [s for s in settings.sources if name in (None, s.name)]
    if not chosen:
        known = ", ".join(s.name for s in settings.sources)
        raise ConfigurationError([f"--source: there is no source {name!r}; known are {known}"])
    return chosen


def report_words(event: Told) -> str:
    """What to tell people when a request has to be sent again, or cannot bring what there is."""
    if isinstance(event, NotExplained):
        words = "cannot ask why executions failed"
        return f"source {event.source}: {words}: {event.error}; they are shown without"
    if isinstance(event, Unreached):
        return f"source {event.source}: {event.reason}: they are left out"
    if event.held:
        return f"source {event.source}: {event.error}; held: trying again in {event.wait:.1f} s"
    if event.smaller:
        return f"source {event.source}: {event.error}; trying half the page size"
    return f"source {event.source}: {event.error}; trying again in {event.wait:.1f} s"
