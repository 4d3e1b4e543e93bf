"""One delivery in steps: it never waits, but says for how long somebody should.

For whoever delivers to many endpoints and cannot have a thread wait for each. The policy is that of
`settling`; here the two signals take turns, each as far as it comes. Nothing here opens a socket,
or knows what is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from otel_alloy.otlp.delivered import Delivered, delivered_of
from otel_alloy.otlp.settling import SignalBatch
from otel_alloy.runtime import Runtime


@dataclass(slots=True)
class _Signal:
    """`due`: when it goes on (monotonic); `ended`: whether all of it is settled."""

    batch: SignalBatch
    pauses: Iterator[float]
    due: float
    ended: bool = False


class Stepwise:
    """A delivery that was begun; see `Delivery.stepwise`."""

    def __init__(
        self, signals: Sequence[tuple[SignalBatch, Iterator[float]]], runtime: Runtime
    ) -> None:
        self._runtime = runtime
        now = runtime.monotonic()
        self._signals = [_Signal(batch, pauses, now) for batch, pauses in signals]

    def advance(self) -> float | None:
        """Sends what is due. For how many seconds to wait before the next call; None where each
        record is delivered or set aside."""
        for one in self._signals:
            if not one.ended and one.due <= self._runtime.monotonic():
                pause = next(one.pauses, None)
                one.ended = pause is None
                one.due = self._runtime.monotonic() + (pause or 0.0)
        waits = [one.due for one in self._signals if not one.ended]
        return max(0.0, min(waits) - self._runtime.monotonic()) if waits else None

    @property
    def delivered(self) -> Delivered:
        """What became of it, when it is done."""
        return delivered_of([one.batch for one in self._signals])
