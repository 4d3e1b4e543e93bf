"""From records to executions: drops what is known, joins a start with its end. Pure; no clock.

Notifications meet in `data.executionId`. A start is remembered as open; the terminal one makes
span and log. The same `_id` with a new message is news. A second terminal record adds a log
record, never a second span: executions that ended well are remembered for the overlap, failed
ones as long as open ones (a retry may still finish them), incomplete ones for 60 days (how long
Alloy keeps its logs). A start whose end does not come within `incomplete_after` is incomplete.

The joiner changes its state as it takes records; the store learns of it when the batch is
settled. A process that dies in between begins again from the store, and makes the same of it.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field, replace

from otel_alloy.alloy.models import ERROR, STARTED, TERMINAL, BadRecord, Record, read_notification
from otel_alloy.checkpoint.store import HasText, Open, RejectedRecord, Seen, Settlement, State
from otel_alloy.mapping.convert import Execution, Role

_INCOMPLETE_MEMORY_MS = 60 * 86_400_000


@dataclass(slots=True)
class Batch:
    """Executions to deliver together, and what settling them changes. `originals[i]` gives the
    JSON of `executions[i]`'s notification."""

    settlement: Settlement
    executions: list[Execution] = field(default_factory=list)
    originals: list[HasText] = field(default_factory=list)
    received: int = 0
    repeated: int = 0
    newest: int = 0  # createdAt (ms) up to here; stands in where a record has none

    def __len__(self) -> int:
        return len(self.executions)

    def add(self, execution: Execution, original: HasText) -> None:
        """Takes one more to deliver."""
        self.executions.append(execution)
        self.originals.append(original)

    def original(self, index: int) -> str:
        """The JSON of the notification behind `executions[index]`."""
        return self.originals[index].text()


class ExecutionTracker:
    """`state`: what the store remembers of the source, kept up to date here. Times are ms."""

    def __init__(
        self,
        source: str,
        state: State,
        *,
        overlap_ms: int,
        incomplete_after_ms: int,
        started_logs: bool = False,
    ) -> None:
        self._source = source
        self._state = state
        self._overlap = overlap_ms
        self._incomplete_after = incomplete_after_ms
        self._started_logs = started_logs
        self._separate = False
        self._has_span = set(state.ended)
        self._has_span.update(s.ended for s in state.seen.values() if s.ended)

    def batch(self) -> Batch:
        """An empty batch that changes nothing yet."""
        progress = self._state.progress
        newest = progress.position or progress.high or 0
        return Batch(Settlement(replace(progress)), newest=newest)

    def take(self, batch: Batch, records: list[Record], bad: list[BadRecord], now: int) -> None:
        """Adds a page's records to `batch`. `now`: Unix ms, noted on what is set aside."""
        settlement, seen, state = batch.settlement, batch.settlement.seen, self._state
        batch.received += len(records) + len(bad)
        for record in records:
            identity = record.identity
            if identity in state.seen:
                batch.repeated += 1
                continue
            created = record.created if record.created is not None else batch.newest or now
            batch.newest = max(batch.newest, created)
            n = record.notification
            if n.message is None:
                reason = "the record has no `message`"
                aside = RejectedRecord(
                    self._source, "source", reason, Role.OTHER.value, record.text(), at=now
                )
                settlement.set_aside.append(aside)
                seen[identity] = state.seen[identity] = Seen(created)
                continue
            execution = n.execution or n.id
            ended = None
            if n.message in TERMINAL and execution:
                start = state.open.get(execution)
                if start is not None and not self._separate:
                    self._separate = read_notification(start.text()).id != n.id
                started = self._close(batch, execution)
                again = execution in self._has_span
                if not again:
                    ended = execution
                    self._has_span.add(execution)
                    if n.message == ERROR:
                        until = created + self._incomplete_after
                        settlement.ended[execution] = state.ended[execution] = until
                role = Role.ENDED_AGAIN if again else Role.ENDED
                batch.add(Execution(n, role, started), record)
            elif n.message == STARTED and execution:
                if execution not in self._has_span and execution not in state.open:
                    began = None if n.startedAt is None else str(n.startedAt)
                    opened = Open(record, created, self._overlap, began)
                    settlement.opened[execution] = state.open[execution] = opened
                    settlement.closed.discard(execution)
                if self._started_logs:
                    batch.add(Execution(n, Role.STARTED), record)
            else:
                batch.add(Execution(n, Role.OTHER), record)
            seen[identity] = state.seen[identity] = Seen(created, ended)
        for entry in bad:
            if entry.identity in state.seen:
                batch.repeated += 1
                continue
            settlement.set_aside.append(
                RejectedRecord(
                    self._source,
                    "source",
                    f"the record cannot be read: {entry.reason}",
                    Role.OTHER.value,
                    entry.text(),
                    at=now,
                )
            )
            created = batch.newest or self._state.progress.high or 0
            seen[entry.identity] = state.seen[entry.identity] = Seen(created)

    def due(self, now: int) -> list[str]:
        """Open executions whose end should be asked for by their id, as a record that changed in
        place is not found by its createdAt. None where the API is seen to write the end as a
        record of its own. `now`: the API's clock, ms."""
        if self._separate:
            return []
        return [e for e, o in self._state.open.items() if now - o.created >= o.next_check]

    def asked(self, batch: Batch, execution: str) -> None:
        """Notes that a due execution was asked for and is still open: the next time at twice the
        age, and once more before it is given up."""
        found = self._state.open[execution]
        if found.next_check < self._incomplete_after:
            found.next_check = min(found.next_check * 2, self._incomplete_after)
        else:
            found.next_check *= 2
        batch.settlement.opened[execution] = found

    def give_up(self, batch: Batch, now: int, unasked: Set[str] = frozenset()) -> None:
        """Makes incomplete what is open for `incomplete_after`, but for `unasked`: those are to be
        asked for first. `now`: the API's clock, ms."""
        late = [
            (e, o)
            for e, o in self._state.open.items()
            if now - o.created >= self._incomplete_after and e not in unasked
        ]
        for execution, start in late:
            self._close(batch, execution)
            self._has_span.add(execution)
            until = now + _INCOMPLETE_MEMORY_MS
            batch.settlement.ended[execution] = self._state.ended[execution] = until
            n = read_notification(start.text())
            batch.add(Execution(n, Role.INCOMPLETE), start)

    def advance(self, batch: Batch, high: int | None) -> None:
        """Everything up to `high` (createdAt, ms) is settled with this batch: forgets what no
        later window can bring again."""
        settlement, state = batch.settlement, self._state
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

    def _close(self, batch: Batch, execution: str) -> str | None:
        """Forgets an open execution; its `startedAt`."""
        start = self._state.open.pop(execution, None)
        if start is None:
            return None
        batch.settlement.opened.pop(execution, None)
        batch.settlement.closed.add(execution)
        return start.started_at
