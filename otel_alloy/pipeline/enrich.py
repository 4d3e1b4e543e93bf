"""What else is known of an execution: its blocks, and why it failed. Asked for after its end.

An execution whose end was read waits in the store until its blocks and its reason are there, for at
most `enrich_timeout`; then it is delivered with what there is. What is known is written to the
store first and does not change from there on, so a repeat after a crash has the same bytes.

One request serves all that wait of one workflow and user, so executions gather for a moment before
they are asked for. Asking has a share of the request budget, and a question that fails is no reason
to wait or to end: it puts off the next one. New records never wait for this.

What is asked and how answers are joined is in `inside.py`, what becomes of it in
`mapping/enriched.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from otel_alloy.alloy.cursor import Window
from otel_alloy.alloy.models import ERROR, Notification, Unreadable, read_notification
from otel_alloy.alloy.timestamps import to_ms, to_ns
from otel_alloy.checkpoint.store import RejectedRecord, Waiting
from otel_alloy.errors import AlloyReceiverError
from otel_alloy.mapping.convert import Execution, Role
from otel_alloy.mapping.enrichment import Enrichment, Reason
from otel_alloy.pipeline.batch import FullBatch
from otel_alloy.pipeline.inside import Asked, Case, Inquiry, NameStore
from otel_alloy.pipeline.kept_report import KeptReport, keys_of
from otel_alloy.pipeline.pace import Share
from otel_alloy.pipeline.reasons import Failure
from otel_alloy.pipeline.source_log import SourceLog
from otel_alloy.pipeline.tracker import ExecutionTracker
from otel_alloy.runtime import Runtime

Which = Literal["off", "failed", "all"]

_MOST = 2000
"""So many wait at once; what comes beyond is delivered without."""
_AT_ONCE = 200
_REMEMBERED_MS = 600_000
_OLD_MS = 3_600_000
"""What ended so long ago is delivered as it is: Alloy gives the newest executions first, so a
backlog would cost many questions and wait for nothing."""
_NS = 1_000_000
_ENDED = Role.ENDED.value


class EnrichedSource(Asked, Protocol):
    """What is asked of a source; see `AlloySource`."""

    def now(self) -> int: ...


class EnrichStore(NameStore, Protocol):
    """What is asked of a store; see `Store`."""

    def waiting(self, source: str) -> dict[str, Waiting]: ...

    def write_enrichments(self, source: str, found: Mapping[str, str]) -> None: ...

    def reasons(self, uuids: Iterable[str]) -> dict[str, str]: ...


@dataclass(frozen=True, slots=True)
class EnrichPolicy:
    """`which` executions; for how long they wait (s); whether the error webhook is on, so that a
    reason may come by itself. `mask`: makes a message fit to leave; None drops it."""

    which: Which
    timeout: float
    webhook: bool
    mask: Callable[[str], str | None]


@dataclass(slots=True)
class _Case:
    """One that waits."""

    execution: str
    waiting: Waiting
    notification: Notification
    inside: Case


@dataclass(slots=True)
class _Group:
    """Those of one workflow and user, which one request serves. Monotonic seconds."""

    next_at: float
    cases: dict[str, _Case] = field(default_factory=dict)
    failures: dict[str, tuple[int, Failure]] = field(default_factory=dict)  # with when, Unix ms


class Enricher:
    """Of one source. `settle`: delivers a batch and writes the checkpoint."""

    def __init__(
        self,
        name: str,
        source: EnrichedSource,
        store: EnrichStore,
        policy: EnrichPolicy,
        tracker: ExecutionTracker,
        settle: Callable[[FullBatch], None],
        share: Share,
        runtime: Runtime,
        log: SourceLog,
    ) -> None:
        self._name = name
        self._source = source
        self._store = store
        self._policy = policy
        self._tracker = tracker
        self._settle = settle
        self._runtime = runtime
        self._log = log
        self._inquiry = Inquiry(source, store, policy.mask, share, runtime, self._complain)
        self._groups: dict[tuple[str, str], _Group] = {}
        self._settled: dict[str, _Case] = {}  # what is known of them does not change any more
        self._foreign: dict[str, tuple[Waiting, str]] = {}  # with what is wrong
        self._cases: dict[str, _Case] = {}
        self.took(store.waiting(name))

    @property
    def waits(self) -> bool:
        """Whether any execution waits."""
        return bool(self._cases or self._settled or self._foreign)

    def wants(self, n: Notification) -> bool:
        """Whether an execution that ended is to wait."""
        which = self._policy.which
        if which == "off" or (which == "failed" and n.message != ERROR):
            return False
        ended = to_ms(n.completedAt)
        if ended is not None and self._source.now() - ended > _OLD_MS:
            return False
        uuid = n.data.executionUuid if n.data else None
        return bool(uuid and n.workflowId) and len(self._cases) < _MOST

    def took(self, waits: Mapping[str, Waiting]) -> None:
        """These wait from now on; the store has them."""
        now = self._runtime.monotonic()
        for execution, waiting in waits.items():
            try:
                n = read_notification(waiting.original.text())
            except Unreadable as error:  # the file holds something else by now
                self._foreign[execution] = waiting, str(error)
                continue
            case = _Case(execution, waiting, n, _inside(waiting, n))
            if waiting.enrichment is not None:
                self._settled[execution] = case
                continue
            self._cases[execution] = case
            key = (case.inside.workflow, case.inside.user)
            # Without the webhook, one look then does for blocks and reason.
            gather = self._policy.timeout / 3 if self._policy.webhook else self._patience
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = _Group(now + gather)
            elif not group.cases:
                group.next_at = now + gather
            group.cases[execution] = case
            if case.inside.failed:
                failure = Failure(waiting.uuid, case.inside.started, case.inside.ended)
                group.failures[execution] = (waiting.since, failure)

    def look_after(self) -> None:
        """Asks for what is due, and delivers what is ready. Raises what settling raises."""
        if not self.waits:
            return
        self._deliver_settled()
        now = self._runtime.monotonic()
        self._take_reports()
        for group in self._groups.values():
            if self._runtime.stopping() or not self._inquiry.may_ask():
                break
            if group.next_at <= now and any(case.inside.lacks for case in group.cases.values()):
                self._ask(group)
                group.next_at = self._runtime.monotonic() + self._policy.timeout / 4
        ready = [case for case in self._cases.values() if self._is_ready(case)]
        for begin in range(0, len(ready), _AT_ONCE):
            self._deliver(ready[begin : begin + _AT_ONCE])
        self._forget()

    # What is known --------------------------------------------------------------------------------

    def _is_ready(self, case: _Case) -> bool:
        """Whether all is known, or nothing more can be in time."""
        left = self._policy.timeout - self._age(case.waiting)
        if left <= 0:
            return True
        if self._policy.webhook and case.inside.lacks_reason:
            return False  # it may come by itself
        return not case.inside.lacks or self._inquiry.quiet_for >= left

    def _age(self, waiting: Waiting) -> float:
        """Seconds for which it has waited; where our clock was set back, for ever."""
        age = (self._runtime.now_ms() - waiting.since) / 1000
        return age if age >= -1 else float("inf")

    def _take_reports(self) -> None:
        """What the webhook told meanwhile."""
        if not self._policy.webhook:
            return
        lacking = [case for case in self._cases.values() if case.inside.lacks_reason]
        keys = [(key, c) for c in lacking for key in keys_of(c.waiting.uuid, c.execution)]
        found = self._store.reasons({key for key, _ in keys})
        for key, case in keys:
            told = KeptReport.read(found[key]) if key in found else None
            if told is not None:
                case.inside.reason = Reason("webhook", told.message)
                case.inside.block, case.inside.block_name = told.block(), told.block_name

    # Questions ------------------------------------------------------------------------------------

    def _ask(self, group: _Group) -> None:
        """Asks for what a group's executions lack. The webhook may tell a reason for certain, and
        what else may have caused an error has to be there: so that is looked for later."""
        waiting = {case.inside.uuid: case.waiting for case in group.cases.values()}
        self._inquiry.ask(
            [case.inside for case in group.cases.values()],
            [failure for _, failure in group.failures.values()],
            lambda inside: self._age(waiting[inside.uuid]) >= self._patience,
        )

    @property
    def _patience(self) -> float:
        """Seconds before an error is looked for."""
        return self._policy.timeout / 2

    def _complain(self, error: AlloyReceiverError, pause: float) -> None:
        self._log.complain(
            "enrich",
            f"cannot ask for the blocks of executions: {error}; they are delivered without, and "
            f"the next question is put in {pause:.0f} s",
        )

    # Delivery -------------------------------------------------------------------------------------

    def _deliver(self, cases: list[_Case]) -> None:
        """Settles what is known of them, then delivers them with it."""
        if not cases:
            return
        found = {case.execution: self._inquiry.enrichment(case.inside).text() for case in cases}
        self._store.write_enrichments(self._name, found)
        for case in cases:
            case.waiting.enrichment = found[case.execution]
            self._settled[case.execution] = case
            del self._cases[case.execution]
        self._deliver_settled()

    def _deliver_settled(self) -> None:
        if not self._settled and not self._foreign:
            return
        tracker = self._tracker
        batch = tracker.batch()
        for execution, case in self._settled.items():
            waiting = case.waiting
            batch.settlement.enriched.append(execution)
            known = Enrichment.read(waiting.enrichment or "")
            ended = Execution(case.notification, Role.ENDED, waiting.started_at, enrichment=known)
            batch.add(ended, waiting.original)
        for execution, (waiting, reason) in self._foreign.items():
            batch.settlement.enriched.append(execution)
            now, text = self._runtime.now_ms(), waiting.original.text()
            rejected = RejectedRecord(self._name, "source", reason, _ENDED, text, at=now)
            batch.settlement.rejected.append(rejected)
        high = tracker.state.progress.high
        window = Window(high or 0, (high or 0) + 1)
        self._settle(FullBatch(batch, window, high, last=True))
        self._settled.clear()
        self._foreign.clear()

    def _forget(self) -> None:
        """What need not be known any more."""
        now = self._runtime.now_ms()
        for key, group in list(self._groups.items()):
            group.cases = {e: c for e, c in group.cases.items() if e in self._cases}
            group.failures = {
                e: (since, failure)
                for e, (since, failure) in group.failures.items()
                if 0 <= now - since < _REMEMBERED_MS
            }
            if not group.cases and not group.failures:
                del self._groups[key]


def _inside(waiting: Waiting, n: Notification) -> Case:
    """What is not known of its times is the moment at which its end was seen."""
    seen = waiting.since * _NS
    return Case(
        waiting.uuid,
        n.workflowId or "",
        n.userId or "",
        n.workflowVersion if type(n.workflowVersion) is int else None,
        to_ns(n.startedAt) or to_ns(waiting.started_at) or seen,
        to_ns(n.completedAt) or seen,
        n.message == ERROR,
    )
