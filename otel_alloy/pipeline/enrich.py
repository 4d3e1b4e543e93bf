"""What else is known of an execution: its blocks, and why it failed. Asked for after its end.

An execution whose end was read waits in the store until its blocks and its reason are there, for at
most `enrich_timeout`; then it is delivered with what there is. What is known is written to the
store first and does not change from there on, so a repeat after a crash has the same bytes.

One request serves all that wait of one workflow and user, so executions gather for a moment before
they are asked for. Asking has a share of the request budget, and a question that fails is no reason
to wait or to end: it puts off the next one. New records never wait for this.

How answers are read is in `alloy/steps.py`, which error is whose in `reasons.py`, what becomes of
it in `mapping/enriched.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol
from urllib.parse import quote

from otel_alloy.alloy.cursor import Window
from otel_alloy.alloy.models import ERROR, Notification, Unreadable, read_notification
from otel_alloy.alloy.steps import (
    Block,
    BlockError,
    BlockName,
    ExecutionSteps,
    failing,
    read_errors,
    read_steps,
    read_workflow,
)
from otel_alloy.alloy.timestamps import to_ns
from otel_alloy.checkpoint.store import RejectedRecord, Waiting
from otel_alloy.errors import AlloyReceiverError, RequestRefused, Retry, Stop
from otel_alloy.mapping.convert import Execution, Role
from otel_alloy.mapping.enrichment import Enrichment, Reason, Step
from otel_alloy.pipeline.batch import FullBatch
from otel_alloy.pipeline.kept_report import KeptReport, keys_of
from otel_alloy.pipeline.pace import Share
from otel_alloy.pipeline.reasons import BEFORE_NS, Failure, reason_of
from otel_alloy.pipeline.source_log import SourceLog
from otel_alloy.pipeline.tracker import ExecutionTracker
from otel_alloy.runtime import Runtime

Which = Literal["off", "failed", "all"]

PAGE = 30
"""The most that Alloy gives at once (its description of these operations)."""
_PAGES = 3
_GATHER = 5.0
"""Seconds for which executions gather, before the first question."""
_MOST = 2000
"""So many wait at once; what comes beyond is delivered without."""
_AT_ONCE = 200
_REMEMBERED_MS = 600_000
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 300.0
_NS = 1_000_000
_ENDED = Role.ENDED.value


class Asked(Protocol):
    """What is asked of a source."""

    def ask(self, path: str, parameters: Mapping[str, str]) -> bytes: ...


class EnrichStore(Protocol):
    """What is asked of a store; see `Store`."""

    def waiting(self, source: str) -> dict[str, Waiting]: ...

    def write_enrichments(self, source: str, found: Mapping[str, str]) -> None: ...

    def reasons(self, uuids: Iterable[str]) -> dict[str, str]: ...

    def blocks(self, workflow: str, version: int) -> str | None: ...

    def write_blocks(self, workflow: str, version: int, blocks: str) -> None: ...


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
    steps: ExecutionSteps | None = None
    reason: Reason | None = None
    block: Block | None = None  # as the webhook told it

    @property
    def failed(self) -> bool:
        return self.notification.message == ERROR

    @property
    def times(self) -> tuple[int, int]:
        """Start and end, Unix ns; where one is not known, the moment at which it was seen."""
        n = self.notification
        seen = self.waiting.since * _NS
        return to_ns(n.startedAt) or to_ns(self.waiting.started_at) or seen, (
            to_ns(n.completedAt) or seen
        )


@dataclass(slots=True)
class _Group:
    """Those of one workflow and user, which one request serves. Monotonic seconds."""

    next_at: float
    pause: float = _FIRST_PAUSE
    cases: dict[str, _Case] = field(default_factory=dict)
    failures: dict[str, tuple[int, Failure]] = field(default_factory=dict)  # with when, Unix ms


class Enricher:
    """Of one source. `settle`: delivers a batch and writes the checkpoint."""

    def __init__(
        self,
        name: str,
        source: Asked,
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
        self._share = share
        self._runtime = runtime
        self._log = log
        self._groups: dict[tuple[str, str], _Group] = {}
        self._settled: dict[str, _Case] = {}  # what is known of them does not change any more
        self._foreign: dict[str, tuple[Waiting, str]] = {}  # with what is wrong
        self._cases: dict[str, _Case] = {}
        self._quiet_until = 0.0
        self._failures = 0
        self._second = 1
        """What the second page is called: Alloy does not say whether pages count from 0 or 1."""
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
            case = _Case(execution, waiting, n)
            if waiting.enrichment is not None:
                self._settled[execution] = case
                continue
            self._cases[execution] = case
            key = (n.workflowId or "", n.userId or "")
            gather = min(_GATHER, self._policy.timeout / 6)
            if not self._policy.webhook:
                gather = self._patience  # one look then does for blocks and reason
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = _Group(now + gather)
            elif not group.cases:
                group.next_at = now + gather
            group.cases[execution] = case
            if case.failed:
                failure = Failure(waiting.uuid, *case.times)
                group.failures[execution] = (waiting.since, failure)

    def look_after(self, *, last: bool = False) -> None:
        """Asks for what is due, and delivers what is ready; with `last`, all of it. Raises what
        settling raises."""
        if not self.waits:
            return
        self._deliver_settled()
        now = self._runtime.monotonic()
        self._take_reports()
        for key, group in self._groups.items():
            if self._runtime.stopping() or not self._may_ask():
                break
            if group.next_at <= now and any(map(self._lacks, group.cases.values())):
                self._ask(key, group)
                group.next_at = self._runtime.monotonic() + group.pause
                group.pause = min(group.pause * 2, self._policy.timeout / 4)
        ready = [case for case in self._cases.values() if last or self._is_ready(case)]
        for begin in range(0, len(ready), _AT_ONCE):
            self._deliver(ready[begin : begin + _AT_ONCE])
        self._forget()

    # What is known --------------------------------------------------------------------------------

    def _lacks(self, case: _Case) -> bool:
        return case.steps is None or self._lacks_reason(case)

    def _lacks_reason(self, case: _Case) -> bool:
        return case.failed and case.reason is None

    def _is_ready(self, case: _Case) -> bool:
        return not self._lacks(case) or self._age(case) >= self._policy.timeout

    def _age(self, case: _Case) -> float:
        """Seconds for which it has waited; where our clock was set back, for ever."""
        age = (self._runtime.now_ms() - case.waiting.since) / 1000
        return age if age >= -1 else float("inf")

    def _take_reports(self) -> None:
        """What the webhook told meanwhile."""
        if not self._policy.webhook:
            return
        lacking = [case for case in self._cases.values() if self._lacks_reason(case)]
        keys = [(key, c) for c in lacking for key in keys_of(c.waiting.uuid, c.execution)]
        found = self._store.reasons({key for key, _ in keys})
        for key, case in keys:
            told = KeptReport.read(found[key]) if key in found else None
            if told is not None:
                case.reason = Reason("webhook", told.message)
                case.block = told.block()

    # Questions ------------------------------------------------------------------------------------

    def _may_ask(self) -> bool:
        return self._share.is_free() and self._runtime.monotonic() >= self._quiet_until

    def _ask(self, key: tuple[str, str], group: _Group) -> None:
        """Asks for the blocks of a group's executions, and for the errors where those may tell a
        reason. A question that fails ends it."""
        workflow, user = key
        try:
            told, known_from = self._steps(workflow, user, group)
            for case in group.cases.values():
                case.steps = told.get(case.waiting.uuid, case.steps)
            failed = [c for c in group.cases.values() if self._lacks_reason(c) and c.steps]
            failed = [c for c in failed if self._age(c) >= self._patience]
            if failed:
                self._errors(workflow, user, group, failed, told, known_from)
        except (Retry, RequestRefused, Stop) as error:
            self._failed(error)
        except Unreadable as error:
            self._failed(RequestRefused(f"the answer cannot be read: {error}"))
        else:
            self._failures = 0

    @property
    def _patience(self) -> float:
        """Seconds before an error is looked for: the webhook may tell it for certain, and what
        else may have caused it has to be there."""
        return self._policy.timeout / (2 if self._policy.webhook else 4)

    def _steps(
        self, workflow: str, user: str, group: _Group
    ) -> tuple[dict[str, ExecutionSteps], int]:
        """The executions of a workflow and user, newest first, as far back as the group needs; and
        from which start on (Unix ns) that is all of them."""
        wanted = {c.waiting.uuid for c in group.cases.values() if c.steps is None or c.failed}
        first = min(c.times[0] for c in group.cases.values())
        told: dict[str, ExecutionSteps] = {}
        known_from = 1 << 63
        for page in (None, self._second, self._second + 1):
            before = len(told)
            came = self._page(workflow, user, page)
            told.update({steps.uuid: steps for steps in came})
            if page is not None and came and len(told) == before:
                self._second = page + 1  # that was the first page again: pages count from 1
                continue
            if not came:
                known_from = 0
                break
            known_from = min((s.started for s in came if s.started is not None), default=known_from)
            if wanted <= told.keys() and known_from < first - BEFORE_NS:
                break
            if not self._may_ask():
                break
        return told, known_from

    def _page(self, workflow: str, user: str, page: int | None) -> list[ExecutionSteps]:
        """A page of a workflow's executions, newest first; None: the first one."""
        parameters = {"userId": user, "limit": str(PAGE), "order": "desc"}
        if page is not None:
            parameters["page"] = str(page)
        return list(read_steps(self._request(workflow, "/logs", parameters)))

    def _errors(
        self,
        workflow: str,
        user: str,
        group: _Group,
        failed: list[_Case],
        told: Mapping[str, ExecutionSteps],
        known_from: int,
    ) -> None:
        body = self._request(workflow, "/errors", {"userId": user})
        errors = [e for e in read_errors(body) if _is_of(e, workflow, user)]
        failures = [failure for _, failure in group.failures.values()]
        names: dict[str, BlockName] = {}
        for version in {case.notification.workflowVersion: case for case in failed}.values():
            names |= self._names(version)
        whole = {uuid: _named(steps, names) for uuid, steps in told.items()}
        for case in failed:
            mine = whole.get(case.waiting.uuid)
            if mine is None:
                continue
            error = reason_of(mine, errors, whole.values(), failures, known_from)
            if error is not None:
                message = None if error.message is None else self._policy.mask(error.message)
                case.reason = Reason("errors", message, error.type)

    def _request(self, workflow: str, what: str, parameters: Mapping[str, str]) -> bytes:
        self._share.spend(1)
        return self._source.ask(f"/workflows/{quote(workflow, safe='')}{what}", parameters)

    def _failed(self, error: AlloyReceiverError) -> None:
        self._failures += 1
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures, 10))
        self._quiet_until = self._runtime.monotonic() + pause
        self._log.complain(
            "enrich",
            f"cannot ask for the blocks of executions: {error}; they are delivered without, and "
            f"the next question is put in {pause:.0f} s",
        )

    # Names ----------------------------------------------------------------------------------------

    def _names(self, case: _Case) -> dict[str, BlockName]:
        """How the blocks of its version of the workflow are called, by id."""
        n = case.notification
        workflow, version = n.workflowId, n.workflowVersion
        if workflow is None or type(version) is not int:
            return {}
        text = self._store.blocks(workflow, version)
        calm = self._runtime.monotonic() >= self._quiet_until and not self._runtime.stopping()
        if text is None and calm:
            try:
                found = read_workflow(
                    self._request(workflow, "", {"userId": n.userId or ""} if n.userId else {})
                )
            except (Retry, RequestRefused, Stop) as error:
                self._failed(error)
                return {}
            except Unreadable as error:
                self._failed(RequestRefused(f"the answer cannot be read: {error}"))
                return {}
            if found.version not in (None, version):
                return {}
            rows = [[b.id, b.name, b.type, b.app] for b in found.blocks]
            text = json.dumps(rows, separators=(",", ":"))
            self._store.write_blocks(workflow, version, text)
        try:
            return {row[0]: BlockName(*row) for row in json.loads(text or "[]")}
        except (ValueError, TypeError, LookupError):
            return {}

    def _enrichment(self, case: _Case) -> Enrichment:
        """What is known of a case now."""
        steps = case.steps
        names = self._names(case) if steps is not None and steps.blocks else {}
        broken = failing(steps) if steps is not None and case.failed else None
        blocks = () if steps is None else steps.blocks
        made = tuple(_step(block, names, block is broken) for block in blocks)
        block = next((step for step in made if step.failed), None)
        if block is None and case.block is not None and case.failed:
            block = _step(case.block, names, True)
        return Enrichment(made, block, case.reason)

    # Delivery -------------------------------------------------------------------------------------

    def _deliver(self, cases: list[_Case]) -> None:
        """Settles what is known of them, then delivers them with it."""
        if not cases:
            return
        found = {case.execution: self._enrichment(case).text() for case in cases}
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
            if not group.cases:
                group.pause = _FIRST_PAUSE
                if not group.failures:
                    del self._groups[key]


def _is_of(error: BlockError, workflow: str, user: str) -> bool:
    return error.workflow in (None, workflow) and error.user in (None, user)


def _named(steps: ExecutionSteps, names: Mapping[str, BlockName]) -> ExecutionSteps:
    """With the type and the app of each block, as an error names its block by these."""
    blocks = []
    for block in steps.blocks:
        named = names.get(block.id or "")
        if named is not None:
            block = replace(block, type=block.type or named.type, app=block.app or named.app)
        blocks.append(block)
    return replace(steps, blocks=tuple(blocks))


def _step(block: Block, names: Mapping[str, BlockName], failed: bool) -> Step:
    named = names.get(block.id or "")
    return Step(
        index=block.index,
        id=block.id,
        name=None if named is None else named.name,
        type=block.type or (None if named is None else named.type),
        app=block.app or (None if named is None else named.app),
        started=block.started,
        stopped=block.stopped,
        status_code=block.status_code,
        failed=failed,
    )
