"""Senders that begin no request once what they are sent for belongs to somebody else."""

from __future__ import annotations

from collections.abc import Callable

from otel_alloy.errors import ShutdownRequested
from otel_alloy.otlp.outcome import Headers, Outcome, Sender


class WhileHeld:
    """`sender`, as long as `holds` says so; then `send` raises ShutdownRequested."""

    def __init__(self, sender: Sender, holds: Callable[[], bool]) -> None:
        self._sender = sender
        self._holds = holds
        self.rest = sender.rest
        self.close = sender.close

    def send(self, request: bytes, headers: Headers = ()) -> Outcome:
        """See `Sender.send`."""
        if not self._holds():
            raise ShutdownRequested
        return self._sender.send(request, headers)


def while_held(
    senders: tuple[Sender | None, Sender | None], holds: Callable[[], bool]
) -> tuple[Sender | None, Sender | None]:
    """The senders of traces and logs, for as long."""
    traces, logs = senders
    return (
        None if traces is None else WhileHeld(traces, holds),
        None if logs is None else WhileHeld(logs, holds),
    )
