"""What became of a batch that was delivered, put together from its signals. Values only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from otel_alloy.otlp.settling import SignalBatch
from otel_alloy.settings.otlp import Signal


@dataclass(frozen=True, slots=True)
class Rejection:
    """An execution of which at least one signal was set aside."""

    signals: tuple[str, ...]
    """The signals that were refused; the other one, if any, was delivered or is off."""
    reason: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of a batch. `acknowledged` leaves out what was set aside or rejected."""

    acknowledged: Mapping[Signal, int]
    """Executions whose span or log record the endpoint took; the spans of its blocks go with the
    execution's and are not counted."""
    rejected: Mapping[Signal, int]
    """Spans, also those of blocks, or log records that the endpoint rejected of requests that it
    accepted otherwise (partial success): how many is all that OTLP tells. Each may have cost
    another execution, so `acknowledged` is less by as many, or by all of that request."""
    rejections: Mapping[int, Rejection] = field(default_factory=dict)
    """What was set aside, by index."""


def delivered_of(batches: Iterable[SignalBatch]) -> Delivered:
    """What became of the batches of the signals. A signal that has none counts as none."""
    acknowledged: dict[Signal, int] = {"traces": 0, "logs": 0}
    rejected: dict[Signal, int] = {"traces": 0, "logs": 0}
    reasons: dict[int, dict[str, str]] = {}
    for batch in batches:
        signal = batch.signal
        rejected[signal] = batch.rejected
        acknowledged[signal] = max(0, len(batch.items) - len(batch.refused) - batch.doubtful)
        for index, reason in batch.refused.items():
            reasons.setdefault(index, {})[signal] = reason
    rejections = {
        index: Rejection(tuple(refused), "; ".join(f"{s}: {r}" for s, r in refused.items()))
        for index, refused in sorted(reasons.items())
    }
    return Delivered(acknowledged, rejected, rejections)
