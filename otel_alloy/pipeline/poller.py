"""DRIVE: when a source is read. Windows, overlap, cycles, rests.

A window is read in the thread that has the turn (`schedule.py`); where it has several pages,
another one fetches the next page meanwhile. What becomes of the records is the business of the
tracker and the `BatchProcessor` that this holds; between two windows, `OpenExecutions` has its
share.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from otel_alloy.alloy.clock import future_words
from otel_alloy.alloy.cursor import Filter, UnorderedApi, Window, window_start
from otel_alloy.alloy.retention import find_gap
from otel_alloy.alloy.retry import HOLD_SECONDS
from otel_alloy.checkpoint.store import FROM_BEGIN, SINCE, SourceStore
from otel_alloy.errors import CheckpointAhead, ConfigurationError, Unreachable
from otel_alloy.log_throttle import LogThrottle
from otel_alloy.pipeline.batch import FullBatch, batches
from otel_alloy.pipeline.coverage import Coverage, Extent
from otel_alloy.pipeline.enrich import Enricher
from otel_alloy.pipeline.events import (
    CursorAhead,
    CycleBegan,
    CycleEnded,
    GapFound,
    Observe,
    Paced,
    Received,
    Unreached,
    tell_all,
)
from otel_alloy.pipeline.factory import Factory
from otel_alloy.pipeline.look_back import LookBack
from otel_alloy.pipeline.open_executions import OpenExecutions
from otel_alloy.pipeline.pace import Pace
from otel_alloy.pipeline.patient_store import PatientStore
from otel_alloy.pipeline.schedule import rest_after
from otel_alloy.pipeline.source_log import SourceLog
from otel_alloy.settings.models import SourceSettings

_NOTED_MS = 3_600_000
_PAGE_SIZE = "page_size"
_ENRICHING_SECONDS = 5.0
"""The longest interval while executions wait for their blocks and reason."""


class Poller:
    """Reads one source again and again, and has what it brings settled."""

    def __init__(
        self, factory: Factory, source: SourceSettings, store: SourceStore, observe: Observe
    ) -> None:
        self._factory = factory
        self._settings = source
        self._since = factory.settings.since
        self._since_at = factory.settings.places.named("since")
        self._runtime = factory.runtime
        self._log = SourceLog(source.name, LogThrottle(factory.runtime.monotonic))
        self._observe = tell_all(self._log, observe)
        learned = store.learned(source.name)
        self._source = factory.source(source, self._observe, proven_page=learned.get(_PAGE_SIZE, 0))
        self._processor = factory.processor(
            source,
            self._source,
            lambda settlement: store.settle(source.name, settlement),
            self._observe,
            self._log,
            factory.routing,
        )
        state = store.load(source.name, source.fingerprint)
        state.patience = self._processor.patiently
        self.tracker = factory.tracker(source, state)
        self._destinations = {n.removeprefix(SINCE) for n in learned if n.startswith(SINCE)}
        self._coverage = Coverage(int(source.overlap * 1000))
        self._proven_page = self._source.proven_page
        self._store = PatientStore(store, self._processor.patiently)
        self._pace = Pace(
            source.name,
            source.collection_interval,
            factory.budgets.part_of(source),
            source.adaptive,
            max(source.page_size, self._proven_page),
            self._runtime.monotonic,
        )
        self._open = OpenExecutions(
            self._source,
            source,
            self.tracker,
            factory.policy,
            self._settle,
            self._on_received,
            self._runtime,
            self._log,
        )
        self._back = LookBack(
            self._source,
            source,
            self.tracker,
            self._store,
            self._settle,
            self._observe,
            self._runtime,
            self._log,
            self._pace,
        )
        self._enricher = Enricher(
            source.name,
            self._source,
            self._store,
            factory.enriching(source),
            self.tracker,
            self._settle,
            self._pace.enrich,
            self._runtime,
            self._log,
        )
        # What nobody gets need not be asked about.
        wants = self._enricher.wants
        self.tracker.waits_for = lambda n: wants(n) and self._processor.wants(n)
        self._grew_at = self._runtime.monotonic()
        self._final = False
        self._log.exporters(factory.settings.otlp)

    @property
    def interval(self) -> float:
        """Seconds from the beginning of the last cycle to that of the next."""
        if self._enricher.waits:
            return min(self._pace.interval, _ENRICHING_SECONDS)
        return self._pace.interval

    def rest(self) -> None:
        """Closes the connections until the next cycle."""
        self._source.rest()
        self._processor.rest()

    def close(self) -> None:
        """Closes the connections."""
        self._source.close()
        self._processor.close()

    def turn(self, once: bool = False, part: float = 1.0) -> float:
        """One cycle, and for how many seconds to rest before the next one. `once`: there is no next
        one, so what would be tried again is raised. `part`: see `rest_after`."""
        if once:
            self._source.hold_at_most(HOLD_SECONDS)
        begun = self._runtime.monotonic()
        before: int | None = None
        found: Unreachable | None = None
        ahead: CheckpointAhead | None = None
        try:
            before = self.cycle(once)
        except Unreachable as error:
            if once:
                raise
            found = error
        except CheckpointAhead as error:
            if once:
                raise
            ahead = error
        taken = self._runtime.monotonic() - begun
        rest = 0.0 if once else rest_after(taken, self.interval, part)
        name, cycle, now = self._source.name, self._log.cycle, self._source.now()
        if before is not None:
            self._observe(CycleEnded(name, cycle, before, now, rest))
        if found is not None:
            self._observe(Unreached(name, found.count, found.moment, str(found), rest))
        if ahead is not None:
            self._observe(CursorAhead(name, self._cursor(), str(ahead), rest))
        if once:
            self._finish()
        return rest

    def _finish(self) -> None:
        """Waits for what executions wait for, which is not for long."""
        while self._enricher.waits and not self._runtime.wait(1.0):
            self._enricher.look_after()

    def count(self, window: Window) -> int | None:
        """How many records of a window Alloy counts; None where it cannot tell."""
        return self._source.count(window)

    def audit(self, window: Window) -> None:
        """Holds a window that was read long ago against Alloy's own count, and delivers what is
        missing of it."""
        self._back.audit(window)

    def cycle(self, once: bool = False) -> int:
        """Reads one window to its end and settles all of it; up to which time, by Alloy's clock.
        `once`: an end that nothing confirms is looked at twice. Raises Unreachable where a part of
        the window cannot be read; what can be is settled then. Raises CheckpointAhead, having read
        nothing, where the checkpoint lies in the future."""
        self._log.cycle = self._runtime.short_id()
        high = self.tracker.state.progress.high
        settled_to = self._window().start if high is None else high
        name, now = self._source.name, self._source.now()
        self._note_destinations(high)
        self._observe(CycleBegan(name, self._log.cycle, settled_to, high, now))
        if self._source.filter is Filter.UNKNOWN:
            self._source.probe()
            if self._source.newest_first:
                self._log.fallback(self._source.filter.value)
        self._compare_clocks()
        self._look_for_gap()
        begun = self._runtime.monotonic()
        agreed = self._source.clocks_agree()
        self._coverage.overlap = self._back.overlap
        window = self._window()
        if agreed and self.tracker.state.progress.window is None:
            window = self._back.begin(window, high)
        extent = self._coverage.extent(
            window, self._source.look_beyond(), agreed, self._source.clock.setbacks
        )
        # Only an end that something is concluded from has to be sure: what was not read is read by
        # the next window, as long as that begins at the newest record that was.
        final = agreed and begun - self._grew_at > self._back.overlap / 1000
        sure = once or (final and not self._final)
        try:
            try:
                self._read(extent, sure)
            except UnorderedApi as error:
                self._log.fallback(error.why)
                self._read(extent, sure)
        except Unreachable:
            self._open.look_after()
            self._enricher.look_after()
            raise
        # What this window brought may be newer than an overlap: then records before it may follow.
        self._final = final and self.tracker.state.progress.high == high
        self._coverage.ended()
        self._open.look_after()
        self._enricher.look_after()
        self._observe(self._keep_pace(extent.window))
        if agreed:
            self._back.look(extent.window)
        else:
            self._back.pass_over()
        self._note_read(extent.window.before)
        if self._source.proven_page != self._proven_page:
            self._proven_page = self._source.proven_page
            self._store.write_learned(name, _PAGE_SIZE, self._proven_page)
        self._compare_clocks()
        if agreed:
            return extent.window.before
        # By the clock as it is known now, when the window began.
        passed = int((self._runtime.monotonic() - begun) * 1000)
        return min(extent.reach, self._source.now() - passed)

    def _note_destinations(self, high: int | None) -> None:
        """Remembers from where on each destination gets what is its own: what was settled before
        is for `backfill` to bring."""
        names = set(self._processor.renew())
        for name in names - self._destinations:
            self._store.write_learned(
                self._source.name, SINCE + name, FROM_BEGIN if high is None else high + 1
            )
        for name in self._destinations - names:
            self._store.write_learned(self._source.name, SINCE + name, None)
        self._destinations = names

    def _keep_pace(self, window: Window) -> Paced:
        """What follows from a window that was read, for the next ones."""
        progress = self.tracker.state.progress
        newest = progress.begin if progress.high is None else progress.high
        silent = 0 if newest is None else window.before - newest
        return self._pace.cycle(window, silent, self._back.costs)

    def _window(self) -> Window:
        """What may be written down as read when it is."""
        progress = self.tracker.state.progress
        certain = self._source.certain() + 1  # the bound excludes
        if progress.window is not None:
            start, before = progress.window
            start = start if progress.position is None else progress.position
            return Window(start, max(min(before, certain), start))
        if progress.high is not None:
            start = window_start(progress.high, self._back.overlap, self._final)
            start = max(start, progress.begin or 0)
        elif isinstance(self._since, int):
            start = self._since
        else:
            ago = self._settings.initial_lookback if self._since is None else self._since
            start = self._source.earliest() - int(ago * 1000)
        start = max(start, 1)
        return Window(start, max(certain, start + 1))

    def _cursor(self) -> int:
        """Nothing before this createdAt would be read any more."""
        progress = self.tracker.state.progress
        known = (progress.high, progress.position, progress.window and progress.window[0])
        return max((moment for moment in known if moment is not None), default=0)

    def _compare_clocks(self) -> None:
        """Tells what the clocks say. Raises CheckpointAhead or ConfigurationError where reading
        would begin in the future of all of them."""
        source = self._source
        cursor, name = self._cursor(), source.name
        if source.is_ahead(cursor):
            source.look(source.base_query.limited(1))  # for the time, which may have been corrected
        source.tell_clocks()
        latest = source.look_beyond()
        if source.is_ahead(cursor):
            raise CheckpointAhead(
                future_words("the checkpoint", cursor, latest),
                f"nothing is read until then; stop this and give the moment up to which you have "
                f"everything: `otel-alloy checkpoint set {name} 6h`",
            )
        since = self._since
        if not cursor and isinstance(since, int) and source.is_ahead(since):
            what = f"{self._since_at}:"
            raise ConfigurationError(
                [future_words(what, since, latest) + "; give one that has passed"]
            )

    def _read(self, extent: Extent, sure: bool) -> None:
        """Settles a window's records, batch after batch."""
        for full in self._batches(extent, sure):
            self._settle(full)

    def _batches(self, extent: Extent, sure: bool) -> Iterator[FullBatch]:
        return batches(
            extent.window,
            self._factory.prefetch(self._source.read(extent.whole, sure=sure), self._runtime),
            self.tracker,
            self._factory.policy,
            self._runtime,
            self._on_page,
        )

    def _settle(self, full: FullBatch) -> None:
        high = self.tracker.state.progress.high
        self._back.note(full.batch)
        self._pace.settled(full.batch.received - full.batch.repeated)
        self._coverage.saw(full.batch.newest)
        self._processor.settle(self.tracker, full)
        if full.batch.settlement.waits:
            self._enricher.took(full.batch.settlement.waits)
        if self.tracker.state.progress.high != high:
            self._grew_at = self._runtime.monotonic()

    def _look_for_gap(self) -> None:
        """Says so where Alloy has removed records before they were read."""
        gap = find_gap(
            self._source.oldest_beyond, self.tracker.state.read_up_to, self._source.certain()
        )
        if gap is not None:
            self._log.say(logging.ERROR, gap.sentence())
            self._observe(GapFound(self._source.name, gap.after, gap.oldest))

    def _note_read(self, before: int) -> None:
        """Remembers that all before `before` was read, once an hour: a silent source writes
        nothing else."""
        if 0 <= before - (self.tracker.state.progress.read_to or 0) < _NOTED_MS:
            return
        batch = self.tracker.batch()
        batch.settlement.progress.read_to = before
        self.tracker.advance(batch, None)
        self._processor.write(batch.settlement)

    def _on_page(self, records: int) -> None:
        self._pace.received(records)
        self._on_received(records)

    def _on_received(self, records: int) -> None:
        self._observe(Received(self._source.name, records))
