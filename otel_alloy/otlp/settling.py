"""The delivery policy for one signal's batch, until each record is delivered or set aside.

    DELIVERED       done; never sent again. Rejected in part: counted. Rejected whole: set aside
    RETRY           for ever: 1 s doubling to 60 s, full jitter; never before what the endpoint
                    asked for (Retry-After, RetryInfo), of which at most 300 s are honoured
    MISCONFIGURED   slowly (5 s doubling to 60 s), for ever: the data is not at fault
    UNEXPECTED      slowly, for ever, unless the endpoint takes everything else
    REJECTED        quarter until the bad record stands alone; set that one aside
    TOO_LARGE       halve, likewise

**Tried smaller.** What fails again and again, and may depend on the size of the request, is sent in
halves before it is waited for for ever: 6 attempts for RETRY, 3 for UNEXPECTED, 10 for
MISCONFIGURED. Nothing is set aside for it, and what was acknowledged is not sent again. Others come
first: a piece is sent once more only when all others were tried. Where in the end every request
that was taken was smaller than every one that was not, and no record alone was the reason, requests
stay as small as that for ten minutes; from then on the size doubles with each success.

**Whose fault is a refusal?** A record that was refused alone is a suspect until another record of
the batch is accepted. If that does not happen, records from all over the batch are tried alone.
Where 20 in a row were refused alone and nothing was accepted since, the endpoint is on probation:
before each further request there is a slow wait, reported as MISCONFIGURED. What is accepted first
ends the probation, and suspects that waited with it get a second chance. So an endpoint that
refuses everything makes the receiver slow and loud instead of emptying the source into the rejected
table, and yet no refusal can block for ever.

**Whose fault is a 500?** The endpoint's, until it has taken other records of the batch and then,
for 300 s of waiting, at least three times, only answered so to records that stand alone. Each
acceptance, and each answer of another kind, begins that time anew.

**What is a record here?** What an execution has of one signal, an *item*: the span of an execution
and those of its blocks are sent, cut off and set aside as one, and count as one. Only an endpoint
counts each span: all of an item is rejected where it says as many as the item holds. Of a request
that it rejected in part, as many items are no longer called delivered as it says, at most all.

**How often is a good record sent?** Beside a refused one, among n: at most 1 + ceil(log4(n)) times
(6 for 1,000); at most 3 times where the refusal tells that others were kept, as Loki's does. One
bad record among n costs at most 2 + 2 * ceil(log2(n)) requests; k bad ones at most
3 + 2 * k * ceil(log2(n)).

Nothing here opens a socket, or knows what is sent. Time, chance and threads come from a `Runtime`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

from otel_alloy.errors import ShutdownRequested
from otel_alloy.otlp.outcome import Headers, Kind, Outcome, Sender
from otel_alloy.runtime import Runtime
from otel_alloy.settings.otlp import Signal

_FAST, _SLOW, _LONGEST = 1.0, 5.0, 60.0
_MOST_ASKED = 300.0
_PROBATION = 20
_PATIENCE = {Kind.RETRY: 6, Kind.UNEXPECTED: 3, Kind.MISCONFIGURED: 10}
_HOLD_SECONDS = 600.0
_FAULT_SECONDS = 300.0
_FAULT_TIMES = 3

Piece = tuple[int, ...]


class Envelope(Protocol):
    """Makes requests of items. An item is what an execution has of one signal: a framed log record,
    or its framed span and behind it those of its blocks."""

    overhead: int
    """Bytes that a request is longer than its items, at most, but for what `apart` adds."""

    def request(self, items: Sequence[bytes], piece: Piece) -> bytes:
        """The encoded request. `piece`: the indexes of the items. The same give the same bytes."""
        ...

    def headers(self, piece: Piece) -> Headers:
        """What is sent with the request of a piece."""
        ...

    def apart(self, indexes: Sequence[int]) -> Iterable[tuple[Sequence[int], Mapping[int, int]]]:
        """`indexes` divided into those that may share a request, each in the order in which they
        are best cut, and how many bytes come with an index besides its item, unless it begins a
        request."""
        ...

    def records(self, items: Sequence[bytes]) -> int:
        """How many spans or log records the items hold together."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """One thing that happened, for logs, metrics and health."""

    signal: Signal
    outcome: Outcome
    items: int
    """Executions in the request, of each its span or log record, and what belongs to that; those
    not yet settled where `bytes` is 0 (probation)."""
    bytes: int
    """Size of the request; 0 where nothing was sent."""
    seconds: float
    """How long the endpoint took."""
    attempt: int
    """From 1, since the endpoint last said something else than to try again (or for this
    probation)."""
    next_wait: float | None = None
    """Seconds until the next attempt; None where none follows."""
    for_a_person: bool = False
    """Whether it goes on until a person, or the endpoint's recovery, ends it."""


@dataclass(slots=True)
class SignalState:
    """What is remembered of a signal from batch to batch: where it goes, how often in a row it
    refused records that stood alone, and how large a request it takes (bytes; None: as large as
    allowed), until when that holds."""

    signal: Signal
    sender: Sender
    refused_in_a_row: int = 0
    limit: int | None = None
    limit_until: float = 0.0


@dataclass(slots=True)
class SignalBatch:
    """What one call has to deliver of one signal, and what became of it: why an item was set aside,
    how many spans or log records the endpoint rejected of requests that it accepted in part, and
    how many items those may belong to."""

    signal: Signal
    items: Mapping[int, bytes]
    envelope: Envelope
    stop: threading.Event
    refused: dict[int, str] = field(default_factory=dict)
    rejected: int = 0
    doubtful: int = 0
    error: BaseException | None = None


class Settling:
    """Settles one batch of one signal. Made for it, and used once."""

    def __init__(
        self,
        state: SignalState,
        batch: SignalBatch,
        max_request_bytes: int,
        runtime: Runtime,
        report: Callable[[Report], None],
    ) -> None:
        self._state = state
        self._batch = batch
        self._max = max_request_bytes
        self._runtime = runtime
        self._report = report
        # Taken from the end; those that failed since something was accepted wait for the others.
        self._pending = [tuple(cut) for cut in self._cut(list(batch.items))][::-1]
        self._failed: list[Piece] = []
        self._kept: set[int] = set()
        self._suspects: dict[int, str] = {}
        self._accepted = False
        self._fits = 0
        self._too_large: float = math.inf
        self._lone_failed = False
        self._shrunk = False
        self._failures = 0
        self._probation = 0
        self._waited = 0.0
        self._alone: dict[int, int] = {}

    def run(self) -> None:
        """Returns when each record is delivered or set aside. Raises ShutdownRequested where a wait
        was cut short."""
        for pause in self.steps():
            if self._runtime.wait(pause) or self._batch.stop.is_set():
                raise ShutdownRequested

    def steps(self) -> Iterator[float]:
        """The same for whoever waits by other means: gives the seconds to wait before it goes on,
        and ends when each record is delivered or set aside."""
        while self._pending or self._failed:
            if self._state.refused_in_a_row >= _PROBATION and not self._accepted:
                yield self._on_probation()
            piece = self._next()
            envelope = self._batch.envelope
            request = envelope.request([self._batch.items[i] for i in piece], piece)
            begun = self._runtime.monotonic()
            outcome = self._state.sender.send(request, envelope.headers(piece))
            seconds = self._runtime.monotonic() - begun
            if outcome.kind in _PATIENCE:
                yield self._on_failure(piece, len(request), outcome, seconds)
                continue
            self._tell(outcome, piece, len(request), seconds, None)
            self._failures = 0
            if outcome.kind is Kind.DELIVERED:
                self._on_delivery(piece, len(request), outcome)
            else:
                self._on_refusal(piece, len(request), outcome)
        self._batch.refused |= self._suspects
        self._learn()

    def _next(self) -> Piece:
        # With two suspects and nothing accepted, ask all over the batch instead of beside.
        if len(self._suspects) > 1 and not self._accepted and self._pending:
            return _from_the_middle(self._pending)
        if not self._pending:
            self._another_round()
        return self._pending.pop()

    def _another_round(self) -> None:
        """All that is left has failed: the smallest piece is halved, or all are tried again."""
        failed, self._failed = sorted(self._failed, key=len, reverse=True), []
        lone = len(failed[-1]) == 1
        splittable = [p for p in failed if len(p) > 1]
        if splittable and (self._accepted or not lone):
            smallest = splittable[-1]
            self._failed = [p for p in failed if p is not smallest]
            self._pending += _parts(smallest, 2)[::-1]
            self._shrunk = True
        else:
            self._pending = failed

    # What an answer means -------------------------------------------------------------------------

    def _on_delivery(self, piece: Piece, size: int, outcome: Outcome) -> None:
        if self._all_rejected(piece, outcome):
            # Which ones is known here: all. The specification forbids to send them again.
            words = outcome.reason or "without a reason"
            reason = f"the endpoint took the request and rejected all of it: {words}"
            self._batch.refused |= dict.fromkeys(piece, reason)
            self._state.refused_in_a_row += len(piece)
            return
        self._batch.rejected += outcome.rejected
        self._batch.doubtful += min(outcome.rejected, len(piece))
        self._state.refused_in_a_row = 0
        if self._suspects and self._probation:
            # Refused by an ailing endpoint: once more.
            parts = self._batch.envelope.apart(list(self._suspects))
            self._pending += [tuple(part) for part, _ in parts]
        else:
            self._batch.refused |= self._suspects
        self._suspects = {}
        self._accepted = True
        self._nothing_proves_a_fault()
        self._pending = self._failed + self._pending
        self._failed = []
        self._fits = max(self._fits, size)
        self._grow()

    def _on_refusal(self, piece: Piece, size: int, outcome: Outcome) -> None:
        self._lone_failed |= len(piece) == 1 and outcome.kind is Kind.TOO_LARGE
        refused = self._batch.refused if self._accepted else self._suspects
        if len(piece) == 1 or self._all_rejected(piece, outcome):
            self._state.refused_in_a_row += len(piece)
            refused |= dict.fromkeys(piece, outcome.reason)
            return
        if outcome.kind is Kind.TOO_LARGE:
            self._too_large = min(self._too_large, size)
            parts = 2
        else:
            parts = 4
            if outcome.rejected:  # The others were kept: each is sent twice more at most.
                seen = piece[0] in self._kept
                parts = len(piece) if seen else math.isqrt(len(piece) - 1) + 1
                self._kept.update(piece)
        self._pending += _parts(piece, parts)[::-1]

    def _all_rejected(self, piece: Piece, outcome: Outcome) -> bool:
        """Whether the endpoint counts all that the piece holds, also the spans of blocks."""
        if not piece or outcome.rejected < len(piece):
            return False
        items = [self._batch.items[i] for i in piece]
        return outcome.rejected >= self._batch.envelope.records(items)

    def _on_failure(self, piece: Piece, size: int, outcome: Outcome, seconds: float) -> float:
        self._failures += 1
        pause = self._pause_after(outcome)
        patience = 1 if self._shrunk else _PATIENCE[outcome.kind]
        smaller = outcome.size or outcome.kind is Kind.UNEXPECTED
        tired = smaller and self._failures >= patience
        if tired and len(piece) > 1:
            self._too_large = min(self._too_large, size)
        self._lone_failed |= tired and len(piece) == 1
        if not tired:
            self._pending.append(piece)
        elif not self._at_fault(piece, outcome, pause):
            self._failed.append(piece)
        person = outcome.kind is Kind.MISCONFIGURED or (
            outcome.kind is Kind.UNEXPECTED and self._failures >= _PATIENCE[Kind.UNEXPECTED]
        )
        self._tell(outcome, piece, size, seconds, pause, person)
        return pause

    def _at_fault(self, piece: Piece, outcome: Outcome, pause: float) -> bool:
        """Whether the record is, that alone is answered with 500; then it is set aside."""
        if outcome.kind is not Kind.UNEXPECTED:
            self._nothing_proves_a_fault()
            return False
        if len(piece) > 1 or not self._accepted:
            return False
        (index,) = piece
        self._alone[index] = self._alone.get(index, 0) + 1
        if self._waited >= _FAULT_SECONDS and self._alone[index] >= _FAULT_TIMES:
            self._batch.refused[index] = outcome.reason
            return True
        self._waited += pause
        return False

    def _nothing_proves_a_fault(self) -> None:
        self._waited = 0.0
        self._alone.clear()

    # How large a request may be -------------------------------------------------------------------

    def _cut(self, indexes: Sequence[int]) -> Iterator[list[int]]:
        """`indexes` cut into requests that are as large as allowed, in order."""
        limit = self._max
        if self._state.limit is not None:
            limit = min(limit, self._state.limit)
        room = limit - self._batch.envelope.overhead
        for part, added in self._batch.envelope.apart(indexes):
            yield from self._cut_part(part, added, room)

    def _cut_part(
        self, indexes: Sequence[int], added: Mapping[int, int], room: int
    ) -> Iterator[list[int]]:
        items = self._batch.items
        if indexes and sum(len(items[i]) for i in indexes) + sum(added.values()) <= room:
            yield list(indexes)
            return
        cut: list[int] = []
        size = 0
        for index in indexes:
            more = len(items[index]) + added.get(index, 0)
            if cut and size + more > room:
                yield cut
                cut, size = [], 0
                more = len(items[index])
            cut.append(index)
            size += more
        if cut:
            yield cut

    def _learn(self) -> None:
        """Where all requests that failed were larger than all that were taken, and no record alone
        explains it, requests stay as small as the largest that was taken, for a while."""
        if 0 < self._fits < self._too_large < math.inf and not self._lone_failed:
            self._state.limit = self._fits
            self._state.limit_until = self._runtime.monotonic() + _HOLD_SECONDS

    def _grow(self) -> None:
        limit = self._state.limit
        if limit is not None and self._runtime.monotonic() >= self._state.limit_until:
            self._state.limit = None if 2 * limit >= self._max else 2 * limit

    # Waiting --------------------------------------------------------------------------------------

    def _on_probation(self) -> float:
        self._probation += 1
        pause = self._slowly(self._probation)
        left = sum(map(len, self._pending + self._failed))
        outcome = Outcome(
            Kind.MISCONFIGURED,
            f"the last {self._state.refused_in_a_row} records were refused one by one and none "
            "accepted: the endpoint seems to be at fault, not the data; sending slowly",
        )
        self._report(
            Report(self._state.signal, outcome, left, 0, 0.0, self._probation, pause, True)
        )
        return pause

    def _tell(
        self,
        outcome: Outcome,
        piece: Piece,
        size: int,
        seconds: float,
        pause: float | None,
        person: bool = False,
    ) -> None:
        attempt = self._failures + (pause is None)
        self._report(
            Report(self._state.signal, outcome, len(piece), size, seconds, attempt, pause, person)
        )

    def _pause_after(self, outcome: Outcome) -> float:
        if outcome.kind is Kind.RETRY:
            pause = self._runtime.random() * _backoff(_FAST, self._failures)
        else:
            pause = self._slowly(self._failures)
        if outcome.retry_after is not None:
            pause = max(pause, min(outcome.retry_after, _MOST_ASKED))
        return pause

    def _slowly(self, attempt: int) -> float:
        return (0.5 + 0.5 * self._runtime.random()) * _backoff(_SLOW, attempt)


def _backoff(first: float, attempt: int) -> float:
    """`first` seconds, doubled with each attempt after the first, at most a minute."""
    return min(_LONGEST, first * 2.0 ** min(attempt - 1, 10))


def _parts(piece: Piece, number: int) -> list[Piece]:
    """`piece` cut into at most `number` parts of nearly the same length, in order."""
    number = min(number, len(piece))
    edges = [len(piece) * i // number for i in range(number + 1)]
    return [piece[a:b] for a, b in pairwise(edges)]


def _from_the_middle(pending: list[Piece]) -> Piece:
    """Take one record from the middle of the largest piece; repeated, this spreads evenly."""
    piece = max(pending, key=len)
    pending.remove(piece)
    middle = len(piece) // 2
    pending += [part for part in (piece[middle + 1 :], piece[:middle]) if part]
    return (piece[middle],)
