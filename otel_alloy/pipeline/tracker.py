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

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from otel_alloy.alloy.models import (
    ERROR,
    STARTED,
    TERMINAL,
    BadRecord,
    Record,
    Unreadable,
    read_notification,
)
from otel_alloy.checkpoint.remembered import Remembered
from otel_alloy.checkpoint.store import Identity, Open, RejectedRecord, Seen, Settlement
from otel_alloy.mapping.convert import Execution, Role
from otel_alloy.pipeline.batch import Batch

_LEAST_MS = 1_000
"""An execution is not asked for again sooner than that, also where there is no overlap."""
_INCOMPLETE_MEMORY_MS = 60 * 86_400_000


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
        self._overlap = overlap_ms
        self._incomplete_after = incomplete_after_ms
        self._started_logs = started_logs
        self.separate = False
        """Whether the API is seen to write an end as a record of its own, so that no open execution
        has to be asked for by its id."""

    def batch(self) -> Batch:
        """An empty batch that changes nothing yet."""
        progress = self.state.progress
        newest = progress.position or progress.high or 0
        return Batch(Settlement(replace(progress)), newest=newest)

    def take(self, batch: Batch, records: list[Record], bad: list[BadRecord], now: int) -> None:
        """Adds a page's records to `batch`. `now`: noted on what is set aside."""
        batch.received += len(records) + len(bad)
        state, settlement = self.state, batch.settlement
        state.recall(settlement, _known(records, bad))
        for record in records:
            if state.knows(record.identity):
                batch.repeated += 1
                continue
            created = record.created if record.created is not None else batch.newest or now
            batch.newest = max(batch.newest, created)
            n = record.notification
            execution = n.execution or n.id
            ended = None
            if n.message in TERMINAL and execution:
                if state.has_span(execution):
                    self._ended_again(batch, record, execution)
                else:
                    self._ended(batch, record, execution, created)
                    ended = execution
            elif n.message == STARTED and execution:
                self._started(batch, record, execution, created)
            elif n.message is not None:
                batch.add(Execution(n, Role.OTHER), record)
            else:
                self._unreadable(batch, record.text(), "the record has no `message`", now)
            state.remember(settlement, record.identity, Seen(created, ended))
        for entry in bad:
            if state.knows(entry.identity):
                batch.repeated += 1
                continue
            reason = f"the record cannot be read: {entry.reason}"
            self._unreadable(batch, entry.text(), reason, now)
            created = batch.newest or state.progress.high or 0
            state.remember(settlement, entry.identity, Seen(created))

    # Transitions ----------------------------------------------------------------------------------

    def _started(self, batch: Batch, record: Record, execution: str, created: int) -> None:
        n = record.notification
        if not self.state.has_span(execution) and self.state.started(execution) is None:
            began = None if n.startedAt is None else str(n.startedAt)
            opened = Open(record, created, self._overlap, began)
            self.state.opened(batch.settlement, execution, opened)
        if self._started_logs:
            batch.add(Execution(n, Role.STARTED), record)

    def _ended(self, batch: Batch, record: Record, execution: str, created: int) -> None:
        n = record.notification
        if n.message == ERROR:
            until = created + self._incomplete_after
            self.state.remember_end(batch.settlement, execution, until)
        batch.add(Execution(n, Role.ENDED, self._joined(batch, record, execution)), record)

    def _ended_again(self, batch: Batch, record: Record, execution: str) -> None:
        start = self._joined(batch, record, execution)
        batch.add(Execution(record.notification, Role.ENDED_AGAIN, start), record)

    def _incomplete(self, batch: Batch, execution: str, start: Open, now: int) -> None:
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
            next_check = age + max(self._overlap, age // 8, _LEAST_MS)
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
        horizon = progress.high - self._overlap
        if grew or any(s.created < horizon for s in settlement.seen.values()):
            state.forget(settlement, horizon)

    def settled(self, batch: Batch) -> None:
        """The batch is settled, and the store has what it changed."""
        self.state.settled(batch.settlement)


def _known(records: list[Record], bad: list[BadRecord]) -> Iterator[tuple[Identity, str | None]]:
    """Which records and executions a page is about."""
    for record in records:
        yield record.identity, record.notification.execution or record.notification.id
    for entry in bad:
        yield entry.identity, None
