"""Looking back: the overlap, what is learned of lateness, and the audit, for one source.

All of it is side work: each part has a share of the request budget, so that what is new never
waits. What lag means is decided in `visibility.py`, what of the overlap is read in `overlap.py`,
what is audited and how in `audit.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from otel_alloy.alloy.cursor import Window
from otel_alloy.alloy.models import BadRecord, Record
from otel_alloy.alloy.source import AlloySource
from otel_alloy.checkpoint.store import AuditResult
from otel_alloy.pipeline.audit import Auditor, AuditPolicy
from otel_alloy.pipeline.batch import Batch, FullBatch
from otel_alloy.pipeline.events import Audited, Observe, OverlapLooked
from otel_alloy.pipeline.overlap import Look, Overlap
from otel_alloy.pipeline.pace import Pace
from otel_alloy.pipeline.patient_store import PatientStore
from otel_alloy.pipeline.search import Search
from otel_alloy.pipeline.source_log import SourceLog
from otel_alloy.pipeline.tracker import ExecutionTracker
from otel_alloy.pipeline.visibility import VisibilityWatch
from otel_alloy.runtime import Runtime
from otel_alloy.settings.models import SourceSettings


class LookBack:
    """`settle`: delivers a batch and writes the checkpoint. `pace`: what may be spent."""

    def __init__(
        self,
        source: AlloySource,
        settings: SourceSettings,
        tracker: ExecutionTracker,
        store: PatientStore,
        settle: Callable[[FullBatch], None],
        observe: Observe,
        runtime: Runtime,
        log: SourceLog,
        pace: Pace,
    ) -> None:
        name = source.name
        self._source = source
        self._tracker = tracker
        self._store = store
        self._settle = settle
        self._observe = observe
        self._runtime = runtime
        self._log = log
        self._pace = pace
        self._policy = AuditPolicy.of(settings)
        page = settings.page_size
        late = Search(name, source, store, page, self._recover_late)
        self._auditor = Auditor(name, source, store, self._policy, late)
        self._overlap = Overlap(
            name,
            source,
            store,
            Search(name, source, store, page, self._recover),
            late,
            pace.again,
            self._policy.bucket,
        )
        self._visibility = VisibilityWatch(
            name,
            store.visibility(name),
            tracker.overlap,
            int(settings.overlap_max * 1000),
            observe,
            log.say,
        )
        self._kept = max((*self._policy.ages, int(settings.overlap_max * 1000)))
        self._kept += 2 * self._policy.bucket
        self._covers_from = 0
        tracker.overlap = self._visibility.overlap

    @property
    def overlap(self) -> int:
        """How far before the newest createdAt records may still appear, ms."""
        return self._tracker.overlap

    @property
    def costs(self) -> bool:
        """Whether the last window's overlap took more than one request, or would have."""
        return self._overlap.costs

    def begin(self, window: Window, high: int | None) -> Window:
        """A window that has not begun, without that part of its overlap that need not be read.
        `high`: the newest createdAt that is settled."""
        self._covers_from = window.start
        if high is None or window.start >= high:
            return window
        start = self._overlap.start(window, high, self._tracker.only_adds, self._pace.page)
        self._covers_from = min(start, window.start)
        self._observe(
            OverlapLooked(self._source.name, self._overlap.look.value, self._overlap.read_again_to)
        )
        return Window(start, window.before)

    def note(self, batch: Batch) -> None:
        """Learns from a batch that is about to be settled, and says what need not be known any
        more."""
        self._visibility.note(batch, self._runtime.now_ms())
        self._overlap.note(batch.settlement.known.items())
        high = self._tracker.state.progress.high
        if high is not None:
            needed = [high - self._kept, self._auditor.needed_from, self._overlap.read_again_to]
            batch.settlement.forget_known_before = min(n for n in needed if n is not None)

    def pass_over(self) -> None:
        """The clocks disagree: of what was read, nothing can be said to have come late."""
        self._tracker.covered = None
        self._overlap.pass_over()

    def look(self, window: Window) -> None:
        """After a window was read to its end, by clocks that agree."""
        self._overlap.ended()
        if self._overlap.look is not Look.PUTTING_OFF:
            self._tracker.covered = (min(self._covers_from, window.start), window.before)
        self._tracker.overlap = self._visibility.overlap
        read_to = window.before - self._visibility.overlap
        self._audit(read_to)
        if not self._overlap.read_again(read_to, self._pace.page, self._pace.side):
            self._log.complain(
                "second reading",
                "the request budget leaves too little to read once more what was counted, so some "
                "of it never is; raise requests_per_minute, or ask Alloy for larger pages",
            )

    def audit(self, window: Window) -> None:
        """Audits a window at once, whatever is due."""
        self._tell(self._auditor.audit(window, self._source.certain()))

    def _audit(self, read_to: int) -> None:
        if not self._policy.ages:
            return
        known_from = self._store.known_from(self._source.name)
        if known_from is None:
            return
        self._auditor.work(known_from, read_to, self._source.certain(), self._pace.side)
        for result in self._auditor.take_results():
            self._tell(result)

    def _tell(self, result: AuditResult) -> None:
        self._observe(
            Audited(
                self._source.name,
                result.age / 1000,
                result.start,
                result.before,
                result.api,
                result.settled,
                result.recovered,
                result.missing,
            )
        )

    def _recover_late(
        self, window: Window, records: Sequence[Record], bad: Sequence[BadRecord]
    ) -> None:
        """Delivers what no window had as long as it covered it, which is for an overlap."""
        self._deliver(window, records, bad, self._tracker.overlap)

    def _recover(self, window: Window, records: Sequence[Record], bad: Sequence[BadRecord]) -> None:
        """Delivers what appeared in the overlap."""
        self._deliver(window, records, bad, None)

    def _deliver(
        self,
        window: Window,
        records: Sequence[Record],
        bad: Sequence[BadRecord],
        lag: int | None,
    ) -> None:
        tracker = self._tracker
        batch = tracker.batch()
        tracker.take(batch, list(records), list(bad), self._runtime.now_ms())
        if lag is not None:
            batch.late += [lag] * (len(batch.settlement.known) - len(batch.late))
        high = tracker.state.progress.high
        self._settle(FullBatch(batch, window, high, last=True))
