"""Open executions: which are asked for, which are given up, and how much of that a cycle does.

A record that changed in place is not found by its createdAt, so an execution that is open longer
than the overlap is asked for by its id: at doubling ages, and once more before it is given up. This
is done between two windows and must not hold up what is new, so each cycle has a budget for it: a
share of the interval and of the requests. What it does not reach comes first in the next cycle,
longest due first, so that none is forgotten. Each batch is settled as it fills.

A question that fails is not sent again here: it ends the work of this cycle, others come before it,
and the next window shows whether the API is well. Where nothing but that has come of questions for
`incomplete_after`, executions are given up without.

When windows are read is decided in `poller.py`; at which age what is due, in `tracker.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from otel_alloy.alloy.cursor import Window
from otel_alloy.alloy.models import TERMINAL
from otel_alloy.alloy.source import AlloySource
from otel_alloy.errors import AlloyReceiverError, RequestRefused, Retry, Stop, Throttled
from otel_alloy.pipeline.batch import Batch, BatchPolicy, FullBatch
from otel_alloy.pipeline.source_log import SourceLog
from otel_alloy.pipeline.tracker import ExecutionTracker
from otel_alloy.runtime import Runtime
from otel_alloy.settings.models import SourceSettings

TIME_SHARE = 0.25
"""Of the collection interval."""
REQUEST_SHARE = 0.5
"""Of the requests that `requests_per_minute` lets through in an interval; at least one."""
UNANSWERED = (Retry, RequestRefused, Stop)
"""What becomes of a question that one of many executions asks is no reason to wait or to end."""
_PICKED_AT_ONCE = 100
_HOPELESS = 10
"""So many failures in a row at least, before executions are given up without an answer."""


class Budget:
    """What one cycle may spend. `requests`: counts those that were sent; `most`: None is no
    limit."""

    def __init__(
        self, monotonic: Callable[[], float], seconds: float, requests: Callable[[], int],
        most: int | None,
    ) -> None:  # fmt: skip
        self._monotonic = monotonic
        self._until = monotonic() + seconds
        self._requests = requests
        self._last = None if most is None else requests() + most

    @property
    def is_spent(self) -> bool:
        """Whether nothing more may be begun."""
        if self._last is not None and self._requests() >= self._last:
            return True
        return self._monotonic() >= self._until


class OpenExecutions:
    """Looks after the open executions of one source. `settle`: delivers a batch and writes the
    checkpoint; `received`: is told how many records came."""

    def __init__(
        self,
        source: AlloySource,
        settings: SourceSettings,
        tracker: ExecutionTracker,
        policy: BatchPolicy,
        settle: Callable[[FullBatch], None],
        received: Callable[[int], None],
        runtime: Runtime,
        log: SourceLog,
    ) -> None:
        self._source = source
        self._tracker = tracker
        self._policy = policy
        self._settle = settle
        self._received = received
        self._runtime = runtime
        self._log = log
        self._seconds = TIME_SHARE * settings.collection_interval
        self._patience = settings.incomplete_after
        self._most: int | None = None
        if settings.requests_per_minute:
            per_interval = settings.requests_per_minute / 60 * settings.collection_interval
            self._most = max(1, int(REQUEST_SHARE * per_interval))
        self._failures = 0
        self._failing_since = 0.0

    def look_after(self) -> None:
        """Does what a cycle may do, and settles all of it: at least one batch, so that it goes on
        whatever the API takes. Nothing may be unsettled."""
        clock, source = self._runtime.monotonic, self._source
        budget = Budget(clock, self._seconds, lambda: source.requests, self._most)
        asking = True
        while not self._runtime.stopping():
            batch, now = self._tracker.batch(), source.certain()
            if asking and self._has_to_ask():
                more = self._ask(batch, now, budget)
                if more is None:
                    asking, more = False, self._is_hopeless()
            else:
                more = self._tracker.give_up(batch, now, self._policy.executions)
            if batch.executions or batch.settlement.asked or batch.settlement.closed:
                high = self._tracker.state.progress.high
                self._settle(FullBatch(batch, Window(high or 0, now), high, last=True))
            if not more or budget.is_spent:
                return

    def _is_hopeless(self) -> bool:
        """Whether nothing but failures has come of questions for a long time."""
        waited = self._runtime.monotonic() - self._failing_since
        return self._failures >= _HOPELESS and waited >= self._patience

    def _has_to_ask(self) -> bool:
        return self._source.finds_executions and not self._tracker.separate

    def _ask(self, batch: Batch, now: int, budget: Budget) -> bool | None:
        """Asks for what is due, until the batch or the budget is used up; whether more may be due,
        None where a question failed."""
        begun = self._runtime.monotonic()
        due = self._tracker.due(now, _PICKED_AT_ONCE)
        for execution in due:
            try:
                records = self._source.execution(execution)
            except UNANSWERED as error:
                self._failed(error)
                if not isinstance(error, Throttled):
                    self._tracker.unanswered(batch, execution, now)
                return None
            self._failures = 0
            # Anything else of it was settled long ago, and may be forgotten.
            ends = [r for r in records if r.notification.message in TERMINAL]
            self._tracker.take(batch, ends, [], self._runtime.now_ms())
            self._received(len(ends))
            if not self._has_to_ask():
                return True  # what the answer shows may be the reason that there is no end
            self._tracker.asked(batch, execution, now)
            age = self._runtime.monotonic() - begun
            full = self._policy.is_full(len(batch), batch.received, age)
            if full or budget.is_spent or self._runtime.stopping():
                return True
        return bool(due)

    def _failed(self, error: AlloyReceiverError) -> None:
        if not self._failures:
            self._failing_since = self._runtime.monotonic()
        self._failures += 1
        self._log.complain(
            "open executions",
            f"cannot ask for an execution that has not ended: {error}; it is asked for again in "
            "the next cycle, and new executions are read meanwhile",
        )
