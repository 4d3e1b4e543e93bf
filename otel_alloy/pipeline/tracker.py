"""From records to executions: drops what is known, joins a start with its end. Pure; no clock.

Notifications meet in `data.executionId`. Each record is one transition of its execution:

    started     remembered as open; a log record only where asked for
    ended       the terminal record: makes span and log record
    ended again a second terminal record: a log record, never a second span
    incomplete  no end within `incomplete_after`: makes span and log record
    other       a message that this version does not know: a log record
    unreadable  no message, or no notification at all: set aside

The same `_id` with a new message is news. Executions that ended well are remembered for the
overlap, failed ones for as long as open ones (a retry may still finish them), incomplete ones for
60 days (how long Alloy keeps its logs).

The tracker changes what is remembered as it takes records; the store learns of it when the batch
is settled. A process that dies in between begins again from the store, and makes the same of it.
Which open executions are to be asked for, and when, is the business of `open_executions.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from otel_alloy.alloy.models import (
    ERROR,
    STARTED,
    TERMINAL,
    BadRecord,
    Notification,
    Record,
    Unreadable,
    read_notification,
)
from otel_alloy.alloy.timestamps import to_ms
from otel_alloy.checkpoint.remembered import Remembered
from otel_alloy.checkpoint.store import Identity, Open, RejectedRecord, Seen, Settlement, Waiting
from otel_alloy.mapping.convert import Execution, Role
from otel_alloy.pipeline.batch import Batch

_ENDED = Role.ENDED  # for speed: an enum finds its members slowly
_LEAST_MS = 1_000
"""An execution is not asked for again sooner than that, also where there is no overlap."""
_INCOMPLETE_MEMORY_MS = 60 * 86_400_000
_ON_TIME_MS = 1000


class ExecutionTracker:
    """`state`: what is remembered of the source, kept up to date here. Times are Unix ms."""

    def __init__(
        self,
        source: str,
        state: Remembered,
        *,
        overlap_ms: int,
        incomplete_after_ms: int,
        started_logs: bool = False,
    ) -> None:
        self.state = state
        self._source = source
        self._least = overlap_ms
        self.overlap = overlap_ms
        """How far before the newest createdAt records are remembered, ms; it may grow."""
        self._incomplete_after = incomplete_after_ms
        self._started_logs = started_logs
        self.covered: tuple[int, int] | None = None
        """The window that was read to its end last: what it covers and did not bring, came late."""
        self.waits_for: Callable[[Notification], bool] = lambda n: False
        """Whether an end is delivered later, when more is known of its execution."""
        self.separate = False
        """Whether the API is seen to write an end as a record of its own, so that no open execution
        has to be asked for by its id."""

    @property
    def only_adds(self) -> bool:
        """Whether what is known cannot change any more, as far as was seen: ends are records of
        their own, or nothing is open that might become its end in place."""
        return self.separate or not self.state.open_count

    def batch(self) -> Batch:
        """An empty batch that changes nothing yet."""
        progress = self.state.progress
        newest = progress.position or progress.high or 0
        return Batch(Settlement(replace(progress)), newest=newest)

    def take(self, batch: Batch, records: list[Record], bad: list[BadRecord], now: int) -> None:
        """Adds a page's records to `batch`. `now`: noted on what is set aside."""
        batch.received += len(records) + len(bad)
        state, settlement = self.state, batch.settlement
        high = -1 if state.progress.high is None else state.progress.high
        late = high - self._least  # what is created before may be remembered only for audits
        on_time = -1 if self.covered is None else self.covered[1]
        state.recall(settlement, _known(records, bad))
        known = settlement.known
        for record in records:
            identity, n = record.identity, record.notification
            if state.knows(identity):
                batch.repeated += 1
                continue
            dated = record.created is not None
            created = record.created if record.created is not None else batch.newest or now
            if dated and created <= high and state.was_settled(identity, created):
                batch.repeated += 1
                continue
            if created > batch.newest:
                batch.newest = created
            execution = n.execution or n.id
            ended = None
            if (
                dated
                and (created < on_time or n.createdAt != n.completedAt)
                and (lag := self._lag(record, execution, created))
            ):
                batch.late.append(lag)
            if execution and created < late and state.had_span(execution):
                state.remember_end(settlement, execution, high)
            if n.message in TERMINAL and execution:
                if state.has_span(execution):
                    self._ended_again(batch, record, execution)
                else:
                    self._ended(batch, record, execution, created, now)
                    ended = execution
                    settlement.spans.append(execution)
            elif n.message == STARTED and execution:
                self._started(batch, record, execution, created)
            elif n.message is not None:
                batch.add(Execution(n, Role.OTHER), record)
            else:
                self._unreadable(batch, record.text(), "the record has no `message`", now)
            state.remember(settlement, identity, Seen(created, ended))
            if dated:
                known[identity] = created
        for entry in bad:
            dated = entry.created is not None and entry.created <= high
            if state.knows(entry.identity) or (
                dated and state.was_settled(entry.identity, entry.created or 0)
            ):
                batch.repeated += 1
                continue
            reason = f"the record cannot be read: {entry.reason}"
            self._unreadable(batch, entry.text(), reason, now)
            created = entry.created or batch.newest or state.progress.high or 0
            state.remember(settlement, entry.identity, Seen(created))
            if entry.created is not None:
                settlement.known[entry.identity] = created

    def _lag(self, record: Record, execution: str | None, created: int) -> int:
        """How much later than its createdAt a new record became visible (ms), as far as that is
        certain: the window before did not have it, or it is an end that bears the time of its
        start. One that changed in place was visible all the time."""
        if self.covered is not None and self.covered[0] <= created < self.covered[1]:
            late = self.separate or not self._is_open(execution)
            return self.covered[1] - created if late else 0
        n = record.notification
        completed, dated = n.completedAt, n.createdAt
        if type(completed) is not str or type(dated) is not str or completed <= dated:
            return 0
        if n.message not in TERMINAL or self._is_open(execution):
            return 0
        lag = (to_ms(completed) or created) - created
        return lag if lag >= _ON_TIME_MS else 0

    def _is_open(self, execution: str | None) -> bool:
        return execution is not None and self.state.started(execution) is not None

    # Transitions ----------------------------------------------------------------------------------

    def _started(self, batch: Batch, record: Record, execution: str, created: int) -> None:
        n = record.notification
        if not self.state.has_span(execution) and self.state.started(execution) is None:
            began = None if n.startedAt is None else str(n.startedAt)
            opened = Open(record, created, self.overlap, began)
            self.state.opened(batch.settlement, execution, opened)
        if self._started_logs:
            batch.add(Execution(n, Role.STARTED), record)

    def _ended(self, batch: Batch, record: Record, execution: str, created: int, now: int) -> None:
        n = record.notification
        if n.message == ERROR:
            until = created + self._incomplete_after
            self.state.remember_end(batch.settlement, execution, until)
        started_at = self._joined(batch, record, execution)
        if self.waits_for(n):
            uuid = (n.data.executionUuid if n.data else None) or ""
            batch.settlement.waits[execution] = Waiting(uuid, record, started_at, now)
        else:
            batch.add(Execution(n, _ENDED, started_at), record)

    def _ended_again(self, batch: Batch, record: Record, execution: str) -> None:
        _count(batch, "ended_again")
        start = self._joined(batch, record, execution)
        batch.add(Execution(record.notification, Role.ENDED_AGAIN, start), record)

    def _incomplete(self, batch: Batch, execution: str, start: Open, now: int) -> None:
        _count(batch, "incomplete")
        text = start.text()
        self.state.closed(batch.settlement, execution)
        self.state.remember_end(batch.settlement, execution, now + _INCOMPLETE_MEMORY_MS)
        try:
            notification = read_notification(text)
        except Unreadable as error:  # the state file holds something else by now
            self._unreadable(batch, text, str(error), now)
            return
        batch.add(Execution(notification, Role.INCOMPLETE), start)

    def _unreadable(self, batch: Batch, original: str, reason: str, now: int) -> None:
        rejected = RejectedRecord(
            self._source, "source", reason, Role.OTHER.value, original, at=now
        )
        batch.settlement.rejected.append(rejected)

    def _joined(self, batch: Batch, record: Record, execution: str) -> str | None:
        """The `startedAt` of the start that this end belongs to, which is open no more."""
        start = self.state.started(execution)
        if start is None:
            return None
        if not self.separate:
            with suppress(Unreadable):
                self.separate = read_notification(start.text()).id != record.notification.id
                _count(batch, "separate" if self.separate else "in_place")
                if not self.separate and record.created != start.created:
                    _count(batch, "in_place_moved")
        self.state.closed(batch.settlement, execution)
        return start.started_at

    # Open executions ------------------------------------------------------------------------------

    def due(self, now: int, most: int) -> list[str]:
        """Open executions whose end should be asked for by their id, as a record that changed in
        place is not found by its createdAt; longest due first. `now`: Alloy's clock. Nothing may
        be unsettled."""
        return self.state.due(now, most)

    def asked(self, batch: Batch, execution: str, now: int) -> None:
        """Notes that a due execution was asked for: if it is still open, the next time at twice its
        age, and once more before it is given up, which is now if it is as old as that."""
        start = self.state.started(execution)
        if start is None:
            return
        age = now - start.created
        if age >= self._incomplete_after:
            self._incomplete(batch, execution, start, now)
        else:
            next_check = min(max(age, start.next_check, _LEAST_MS) * 2, self._incomplete_after)
            self.state.asked(batch.settlement, execution, next_check)

    def unanswered(self, batch: Batch, execution: str, now: int) -> None:
        """Notes that asking for a due execution failed: others come first, then it is asked for
        again. It is given up at twice `incomplete_after` where asking had failed after that
        already."""
        start = self.state.started(execution)
        if start is None:
            return
        age = now - start.created
        if age >= 2 * self._incomplete_after and start.next_check > self._incomplete_after:
            self._incomplete(batch, execution, start, now)
        else:
            next_check = age + max(self.overlap, age // 8, _LEAST_MS)
            self.state.asked(batch.settlement, execution, next_check)

    def give_up(self, batch: Batch, now: int, most: int) -> bool:
        """Makes incomplete what is open for `incomplete_after`, longest first, and no more than
        `most`; whether there was any. `now`: Alloy's clock. Nothing may be unsettled."""
        late = self.state.late(now - self._incomplete_after, most)
        for execution in late:
            start = self.state.started(execution)
            assert start is not None
            self._incomplete(batch, execution, start, now)
        return bool(late)

    def forget_starts(self, batch: Batch, horizon: int) -> None:
        """Forgets starts from before `horizon`: for a backfill, in which what never ended must not
        pile up."""
        self.state.forget_starts(batch.settlement, horizon)

    # Settled --------------------------------------------------------------------------------------

    def advance(self, batch: Batch, high: int | None) -> None:
        """Everything up to `high` (createdAt) is settled with this batch: forgets what no later
        window can bring again."""
        settlement, state = batch.settlement, self.state
        progress = settlement.progress
        grew = high is not None and (progress.high is None or high > progress.high)
        if grew:
            progress.high = high
        state.progress = replace(progress)
        if progress.high is None:
            return
        horizon = progress.high - self.overlap
        if grew or any(s.created < horizon for s in settlement.seen.values()):
            state.forget(settlement, horizon)

    def settled(self, batch: Batch) -> None:
        """The batch is settled, and the store has what it changed."""
        self.state.settled(batch.settlement)


def _count(batch: Batch, what: str) -> None:
    """Notes what was seen of the API once more; see `Store.counted`."""
    counted = batch.settlement.counted
    counted[what] = counted.get(what, 0) + 1


def _known(records: list[Record], bad: list[BadRecord]) -> Iterator[tuple[Identity, str | None]]:
    """Which records and executions a page is about."""
    for record in records:
        yield record.identity, record.notification.execution or record.notification.id
    for entry in bad:
        yield entry.identity, None
