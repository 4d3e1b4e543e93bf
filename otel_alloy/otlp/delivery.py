"""The delivery policy: what happens to a batch until each record is delivered or set aside.

    DELIVERED       done; never sent again, whatever becomes of the other signal
    RETRY           for ever: 1 s doubling to 60 s, full jitter; never before what the endpoint
                    asked for (Retry-After, RetryInfo), of which at most 300 s are honoured
    UNEXPECTED      slowly (5 s doubling to 60 s), and as REJECTED after 5 tries
    MISCONFIGURED   slowly, for ever: the data is not at fault, so nothing is set aside
    REJECTED        halve until the bad record stands alone; set that one aside
    TOO_LARGE       the same

**Whose fault is a refusal?** A record that was refused alone is a suspect until a record of the
same request is accepted. If that does not happen, records from all over the request are tried
alone. Where 20 in a row were refused alone and nothing was accepted since, the endpoint is on
probation: before each further request there is a slow wait, reported as MISCONFIGURED. What is
accepted first ends the probation, and suspects that waited with it get a second chance. So an
endpoint that refuses everything makes the receiver slow and loud instead of emptying the source
into the rejected table, and yet nothing can block for ever: once each record of a request has been
refused alone, they are set aside.

Requests for one bad record among n: at most 1 + 2 * ceil(log2(n)); for k bad ones at most
3 + 2 * k * ceil(log2(n)). A retry sends exactly the same bytes.

Nothing here opens a socket, or knows what is sent. Time, chance and threads come from a `Runtime`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from otel_alloy.errors import ShutdownRequested
from otel_alloy.otlp.outcome import Kind, Outcome, Sender
from otel_alloy.runtime import Runtime
from otel_alloy.settings.otlp import Signal

_FAST, _SLOW, _LONGEST = 1.0, 5.0, 60.0
_MOST_ASKED = 300.0
_UNEXPECTED_TRIES = 5
_PROBATION = 20


class Envelope(Protocol):
    """Makes requests of framed records."""

    overhead: int
    """Bytes that a request is longer than its items, at most."""

    def request(self, items: Sequence[bytes]) -> bytes:
        """The encoded request. The same items give the same bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Rejection:
    """An execution of which at least one signal was set aside."""

    signals: tuple[str, ...]
    """The signals that were refused; the other one, if any, was delivered."""
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """One thing that happened, for logs, metrics and health."""

    signal: Signal
    outcome: Outcome
    items: int
    """Records in the request; those not yet settled where `bytes` is 0 (probation)."""
    bytes: int
    """Size of the request; 0 where nothing was sent."""
    seconds: float
    """How long the endpoint took."""
    attempt: int
    """From 1, for the same bytes (or for this probation)."""
    next_wait: float | None = None
    """Seconds until the next attempt; None where none follows."""


@dataclass(slots=True)
class SignalState:
    """One signal: where it goes, and how often in a row it refused records that stood alone."""

    signal: Signal
    sender: Sender
    refused_in_a_row: int = 0


@dataclass(slots=True)
class SignalBatch:
    """What one call has to deliver of one signal, and what became of it."""

    items: Mapping[int, bytes]
    envelope: Envelope
    stop: threading.Event
    refused: dict[int, str] = field(default_factory=dict)
    error: BaseException | None = None


class Delivery:
    """Delivers batch after batch to the senders of the two signals. One thread at a time.

    `report`, and `wait`, `random` and `monotonic` of `runtime`, are called from two threads.
    """

    def __init__(
        self,
        traces: Sender,
        logs: Sender,
        *,
        max_request_bytes: int,
        runtime: Runtime,
        report: Callable[[Report], None],
    ) -> None:
        self._traces = SignalState("traces", traces)
        self._logs = SignalState("logs", logs)
        self._max_request_bytes = max_request_bytes
        self._runtime = runtime
        self._report = report

    def deliver(
        self,
        spans: Sequence[bytes | None],
        logs: Sequence[bytes | None],
        traces_envelope: Envelope,
        logs_envelope: Envelope,
    ) -> dict[int, Rejection]:
        """Deliver a batch, both signals side by side; return when every record is settled.

        `spans[i]` and `logs[i]` are the framed records of execution i, None where it has none.
        A request keeps to `max_request_bytes` unless a single record is larger; that is sent
        alone, for the endpoint to judge. Returns what was set aside, by index. Raises
        ShutdownRequested where a wait was cut short: then nothing of the batch is settled.
        """
        stop = threading.Event()
        log_batch = SignalBatch(_present(logs), logs_envelope, stop)
        span_batch = SignalBatch(_present(spans), traces_envelope, stop)
        helper = None
        if span_batch.items:
            helper = self._runtime.spawn(lambda: self._run(self._traces, span_batch), "otlp-traces")
        self._run(self._logs, log_batch)
        if log_batch.error is not None and not isinstance(log_batch.error, Exception):
            raise log_batch.error  # KeyboardInterrupt does not wait for the other signal.
        if helper is not None:
            helper.join()
        errors = [e for e in (log_batch.error, span_batch.error) if e is not None]
        if errors:
            raise next((e for e in errors if not isinstance(e, ShutdownRequested)), errors[0])
        return {
            i: _refusal({"traces": span_batch.refused.get(i), "logs": log_batch.refused.get(i)})
            for i in sorted(log_batch.refused.keys() | span_batch.refused.keys())
        }

    def close(self) -> None:
        """Close both senders."""
        self._traces.sender.close()
        self._logs.sender.close()

    def _run(self, state: SignalState, batch: SignalBatch) -> None:
        try:
            for indexes in self._requests(batch):
                batch.refused |= self._settle(state, batch, indexes)
        except BaseException as error:
            batch.error = error
            batch.stop.set()

    def _requests(self, batch: SignalBatch) -> Iterator[list[int]]:
        """The items cut into requests of at most `max_request_bytes`, in order."""
        room = self._max_request_bytes - batch.envelope.overhead
        if batch.items and sum(map(len, batch.items.values())) <= room:
            yield list(batch.items)
            return
        cut: list[int] = []
        size = 0
        for index, item in batch.items.items():
            if cut and size + len(item) > room:
                yield cut
                cut, size = [], 0
            cut.append(index)
            size += len(item)
        if cut:
            yield cut

    def _settle(self, state: SignalState, batch: SignalBatch, indexes: list[int]) -> dict[int, str]:
        """Deliver `indexes` or find those that are refused: index -> reason."""
        pending = [indexes]
        refused: dict[int, str] = {}
        suspects: dict[int, str] = {}
        accepted = False
        probation = 0
        while pending:
            if state.refused_in_a_row >= _PROBATION and not accepted:
                probation += 1
                self._on_probation(state, batch, pending, probation)
            # With two suspects and nothing accepted, ask all over the request instead of beside.
            doubtful = len(suspects) > 1 and not accepted
            piece = _from_the_middle(pending) if doubtful else pending.pop()
            outcome = self._send(state, batch, piece)
            if outcome.kind is Kind.DELIVERED:
                state.refused_in_a_row = 0
                if suspects and probation:
                    pending.append(list(suspects))  # Refused by an ailing endpoint: once more.
                else:
                    refused |= suspects
                suspects = {}
                accepted = True
            elif len(piece) > 1:
                half = (len(piece) + 1) // 2
                pending += [piece[half:], piece[:half]]
            else:
                state.refused_in_a_row += 1
                (refused if accepted else suspects)[piece[0]] = outcome.reason
        return refused | suspects

    def _send(self, state: SignalState, batch: SignalBatch, piece: list[int]) -> Outcome:
        """Send `piece`, always the same bytes, until waiting and trying again is pointless."""
        request = batch.envelope.request([batch.items[i] for i in piece])
        attempt = unexpected = 0
        while True:
            attempt += 1
            begin = self._runtime.monotonic()
            outcome = state.sender.send(request)
            seconds = self._runtime.monotonic() - begin
            unexpected += outcome.kind is Kind.UNEXPECTED
            pause = None
            if outcome.kind is Kind.RETRY:
                pause = self._runtime.random() * _backoff(_FAST, attempt)
            elif outcome.kind is Kind.MISCONFIGURED or (
                outcome.kind is Kind.UNEXPECTED and unexpected < _UNEXPECTED_TRIES
            ):
                pause = self._slowly(attempt)
            if pause is not None and outcome.retry_after is not None:
                pause = max(pause, min(outcome.retry_after, _MOST_ASKED))
            self._report(
                Report(state.signal, outcome, len(piece), len(request), seconds, attempt, pause)
            )
            if pause is None:
                return outcome
            self._pause(batch, pause)

    def _on_probation(
        self, state: SignalState, batch: SignalBatch, pending: list[list[int]], attempt: int
    ) -> None:
        pause = self._slowly(attempt)
        outcome = Outcome(
            Kind.MISCONFIGURED,
            f"the last {state.refused_in_a_row} records were refused one by one and none accepted: "
            "the endpoint seems to be at fault, not the data; sending slowly",
        )
        self._report(Report(state.signal, outcome, sum(map(len, pending)), 0, 0.0, attempt, pause))
        self._pause(batch, pause)

    def _slowly(self, attempt: int) -> float:
        return (0.5 + 0.5 * self._runtime.random()) * _backoff(_SLOW, attempt)

    def _pause(self, batch: SignalBatch, seconds: float) -> None:
        if self._runtime.wait(seconds) or batch.stop.is_set():
            raise ShutdownRequested


def _backoff(first: float, attempt: int) -> float:
    """`first` seconds, doubled with each attempt after the first, at most a minute."""
    return min(_LONGEST, first * 2.0 ** min(attempt - 1, 10))


def _from_the_middle(pending: list[list[int]]) -> list[int]:
    """Take one record from the middle of the largest piece; repeated, this spreads evenly."""
    piece = max(pending, key=len)
    pending.remove(piece)
    middle = len(piece) // 2
    pending += [part for part in (piece[middle + 1 :], piece[:middle]) if part]
    return [piece[middle]]


def _present(items: Sequence[bytes | None]) -> dict[int, bytes]:
    return {i: item for i, item in enumerate(items) if item is not None}


def _refusal(reasons: Mapping[str, str | None]) -> Rejection:
    refused = {signal: reason for signal, reason in reasons.items() if reason is not None}
    return Rejection(tuple(refused), "; ".join(f"{s}: {r}" for s, r in refused.items()))
