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

The tracker changes its state as it takes records; the store learns of it when the batch is settled.
A process that dies in between begins again from the store, and makes the same of it.
"""

from __future__ import annotations

from collections.abc import Set
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
from otel_alloy.checkpoint.store import Identity, Open, RejectedRecord, Seen, Settlement, State
from otel_alloy.mapping.convert import Execution, Role
from otel_alloy.pipeline.batch import Batch

_INCOMPLETE_MEMORY_MS = 60 * 86_400_000


class ExecutionTracker:
    """`state`: what the store remembers of the source, kept up to date here. Times are Unix ms."""

    def __init__(
        self,
        source: str,
        state: State,
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
        self._separate = False
        self._has_span = set(state.ended)
        self._has_span.update(s.ended for s in state.seen.values() if s.ended)

    def batch(self) -> Batch:
        """An empty batch that changes nothing yet."""
        progress = self.state.progress
        newest = progress.position or progress.high or 0
        return Batch(Settlement(replace(progress)), newest=newest)

    def take(self, batch: Batch, records: list[Record], bad: list[BadRecord], now: int) -> None:
        """Adds a page's records to `batch`. `now`: noted on what is set aside."""
        batch.received += len(records) + len(bad)
        seen = self.state.seen
        for record in records:
            if record.identity in seen:
                batch.repeated += 1
                continue
            created = record.created if record.created is not None else batch.newest or now
            batch.newest = max(batch.newest, created)
            n = record.notification
            execution = n.execution or n.id
            ended = None
            if n.message in TERMINAL and execution:
                if execution in self._has_span:
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
            self._remember(batch, record.identity, Seen(created, ended))
        for entry in bad:
            if entry.identity in seen:
                batch.repeated += 1
                continue
            reason = f"the record cannot be read: {entry.reason}"
            self._unreadable(batch, entry.text(), reason, now)
            created = batch.newest or self.state.progress.high or 0
            self._remember(batch, entry.identity, Seen(created))

    # Transitions ----------------------------------------------------------------------------------

    def _started(self, batch: Batch, record: Record, execution: str, created: int) -> None:
        n = record.notification
        if execution not in self._has_span and execution not in self.state.open:
            began = None if n.startedAt is None else str(n.startedAt)
            self._open(batch, execution, Open(record, created, self._overlap, began))
        if self._started_logs:
            batch.add(Execution(n, Role.STARTED), record)

    def _ended(self, batch: Batch, record: Record, execution: str, created: int) -> None:
        n = record.notification
        self._has_span.add(execution)
        if n.message == ERROR:
            self._remember_end(batch, execution, created + self._incomplete_after)
        batch.add(Execution(n, Role.ENDED, self._joined(batch, record, execution)), record)

    def _ended_again(self, batch: Batch, record: Record, execution: str) -> None:
        start = self._joined(batch, record, execution)
        batch.add(Execution(record.notification, Role.ENDED_AGAIN, start), record)

    def _incomplete(self, batch: Batch, execution: str, now: int) -> None:
        start = self.state.open[execution]
        self._close(batch, execution)
        self._has_span.add(execution)
        self._remember_end(batch, execution, now + _INCOMPLETE_MEMORY_MS)
        try:
            notification = read_notification(start.text())
        except Unreadable as error:  # the state file holds something else by now
            self._unreadable(batch, start.text(), str(error), now)
            return
        batch.add(Execution(notification, Role.INCOMPLETE), start)

    def _unreadable(self, batch: Batch, original: str, reason: str, now: int) -> None:
        rejected = RejectedRecord(
            self._source, "source", reason, Role.OTHER.value, original, at=now
        )
        batch.settlement.rejected.append(rejected)

    def _joined(self, batch: Batch, record: Record, execution: str) -> str | None:
        """The `startedAt` of the start that this end belongs to, which is open no more."""
        start = self.state.open.get(execution)
        if start is None:
            return None
        if not self._separate:
            with suppress(Unreadable):
                self._separate = read_notification(start.text()).id != record.notification.id
        self._close(batch, execution)
        return start.started_at

    # What settling the batch changes, in the state at once and in the store with the batch --------

    def _remember(self, batch: Batch, identity: Identity, seen: Seen) -> None:
        batch.settlement.seen[identity] = self.state.seen[identity] = seen

    def _remember_end(self, batch: Batch, execution: str, until: int) -> None:
        batch.settlement.ended[execution] = self.state.ended[execution] = until

    def _open(self, batch: Batch, execution: str, opened: Open) -> None:
        batch.settlement.opened[execution] = self.state.open[execution] = opened
        batch.settlement.closed.discard(execution)

    def _close(self, batch: Batch, execution: str) -> None:
        del self.state.open[execution]
        batch.settlement.opened.pop(execution, None)
        batch.settlement.closed.add(execution)

    # Open executions ------------------------------------------------------------------------------

    def due(self, now: int) -> list[str]:
        """Open executions whose end should be asked for by their id, as a record that changed in
        place is not found by its createdAt. None where the API is seen to write the end as a
        record of its own. `now`: Alloy's clock."""
        if self._separate:
            return []
        return [e for e, o in self.state.open.items() if now - o.created >= o.next_check]

    def asked(self, batch: Batch, execution: str) -> None:
        """Notes that a due execution was asked for and is still open: the next time at twice the
        age, and once more before it is given up."""
        found = self.state.open[execution]
        if found.next_check < self._incomplete_after:
            found.next_check = min(found.next_check * 2, self._incomplete_after)
        else:
            found.next_check *= 2
        batch.settlement.opened[execution] = found

    def give_up(self, batch: Batch, now: int, unasked: Set[str] = frozenset()) -> None:
        """Makes incomplete what is open for `incomplete_after`, but for `unasked`: those are to be
        asked for first. `now`: Alloy's clock."""
        late = [
            e
            for e, o in self.state.open.items()
            if now - o.created >= self._incomplete_after and e not in unasked
        ]
        for execution in late:
            self._incomplete(batch, execution, now)

    def forget_starts(self, batch: Batch, horizon: int) -> None:
        """Forgets starts from before `horizon`, oldest first: for a backfill, in which what never
        ended must not pile up."""
        started = self.state.open
        while started:
            execution, oldest = next(iter(started.items()))
            if oldest.created >= horizon:
                return
            self._close(batch, execution)

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
        if not grew and all(s.created >= horizon for s in settlement.seen.values()):
            return
        settlement.forget_before = horizon
        settlement.forget_ended_before = horizon
        # Not worth writing what the same transaction would delete.
        settlement.seen = {i: s for i, s in settlement.seen.items() if s.created >= horizon}
        for identity in [i for i, s in state.seen.items() if s.created < horizon]:
            ended = state.seen.pop(identity).ended
            if ended is not None and ended not in state.ended:
                self._has_span.discard(ended)
        for execution in [e for e, until in state.ended.items() if until < horizon]:
            del state.ended[execution]
            self._has_span.discard(execution)
