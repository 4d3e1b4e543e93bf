"""Looking back: the overlap that was learned, and the audit, after each window of a source.

Both are side work: each cycle has a share of the requests for them, so that what is new never
waits. What lag means is decided in `visibility.py`, what is audited and how in `audit.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from otel_alloy.alloy.cursor import Window
from otel_alloy.alloy.models import BadRecord, Record
from otel_alloy.alloy.source import AlloySource
from otel_alloy.checkpoint.store import AuditResult, SourceStore
from otel_alloy.pipeline.audit import Auditor, AuditPolicy
from otel_alloy.pipeline.batch import Batch, FullBatch
from otel_alloy.pipeline.events import Audited, Observe
from otel_alloy.pipeline.source_log import SourceLog
from otel_alloy.pipeline.tracker import ExecutionTracker
from otel_alloy.pipeline.visibility import VisibilityWatch
from otel_alloy.runtime import Runtime
from otel_alloy.settings.models import SourceSettings

OVERLAP_SHARE = 0.5
"""Of a cycle's requests, what an overlap that has grown may take."""
AUDIT_SHARE = 0.25
"""Of a cycle's requests, what the audit may take; at least one."""
_UNLIMITED = 100


class LookBack:
    """`settle`: delivers a batch and writes the checkpoint."""

    def __init__(
        self,
        source: AlloySource,
        settings: SourceSettings,
        tracker: ExecutionTracker,
        store: SourceStore,
        settle: Callable[[FullBatch], None],
        observe: Observe,
        runtime: Runtime,
        log: SourceLog,
    ) -> None:
        self._source = source
        self._tracker = tracker
        self._store = store
        self._settle = settle
        self._observe = observe
        self._runtime = runtime
        self._policy = AuditPolicy.of(settings)
        self._auditor = Auditor(source.name, source, store, self._policy, self._recover)
        self._visibility = VisibilityWatch(
            source.name,
            store.visibility(source.name),
            tracker.overlap,
            int(settings.overlap_max * 1000),
            observe,
            log.say,
        )
        self._kept = max((*self._policy.ages, int(settings.overlap_max * 1000)))
        self._kept += 2 * self._policy.bucket
        rate = settings.requests_per_minute / 60
        self._requests = rate * settings.collection_interval or None
        self._received = 0
        tracker.overlap = self._visibility.overlap

    @property
    def overlap(self) -> int:
        """How far before the newest createdAt the next window begins, ms."""
        return self._tracker.overlap

    def received(self, records: int) -> None:
        """So many records of the window came."""
        self._received += records

    def note(self, batch: Batch) -> None:
        """Learns from a batch that is about to be settled, and says what need not be known any
        more."""
        self._visibility.note(batch, self._runtime.now_ms())
        high = self._tracker.state.progress.high
        if high is not None:
            needed = self._auditor.needed_from
            kept = high - self._kept
            batch.settlement.forget_known_before = kept if needed is None else min(kept, needed)

    def pass_over(self) -> None:
        """After a window that was read while the clocks disagree: nothing is concluded from it."""
        self._received = 0
        self._tracker.covered = None

    def look(self, window: Window) -> None:
        """After a window that was read to its end: what of it has to be read again, and what is due
        for an audit. Raises what asking and settling raise."""
        rate = self._received / (window.before - window.start)
        self._received = 0
        if self._requests is not None and rate:
            pages = max(1.0, OVERLAP_SHARE * self._requests)
            self._visibility.afford(int(pages * self._source.page_size / rate))
        self._tracker.covered = (window.start, window.before)
        self._tracker.overlap = self._visibility.overlap
        self._audit(window.before - self._visibility.overlap)

    def audit(self, window: Window) -> None:
        """Audits a window at once, whatever is due."""
        self._tell(self._auditor.audit(window, self._source.certain()))

    def _audit(self, read_to: int) -> None:
        if not self._policy.ages:
            return
        known_from = self._store.known_from(self._source.name)
        if known_from is None:
            return
        requests = _UNLIMITED
        if self._requests is not None:
            requests = max(1, int(AUDIT_SHARE * self._requests))
        self._auditor.work(known_from, read_to, self._source.certain(), requests)
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

    def _recover(self, window: Window, records: Sequence[Record], bad: Sequence[BadRecord]) -> None:
        """Delivers what only the audit found."""
        tracker = self._tracker
        batch = tracker.batch()
        tracker.take(batch, list(records), list(bad), self._runtime.now_ms())
        # No window had them as long as it covered them, which is for an overlap.
        batch.late += [tracker.overlap] * (len(batch.settlement.known) - len(batch.late))
        high = tracker.state.progress.high
        self._settle(FullBatch(batch, window, high, last=True))
