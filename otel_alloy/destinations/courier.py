"""One destination at work: takes what lies in its outbox, a little at a time, and delivers it.

What happens to a record until it is delivered or set aside is the delivery's policy, as for the
main destination. A courier never waits: each turn says when the next one is due. It holds what it
took until that is settled, so a repeat has the same bytes. When its turns are is the dispatcher's
business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from otel_alloy.checkpoint.outbox import Entry, Outbox, Packet, Sent
from otel_alloy.checkpoint.store import RejectedRecord
from otel_alloy.errors import AlloyReceiverError
from otel_alloy.otlp.delivery import Delivery, Report
from otel_alloy.otlp.outcome import Kind
from otel_alloy.otlp.settling import Envelope
from otel_alloy.otlp.stepwise import Stepwise
from otel_alloy.runtime import Runtime

_UNUSABLE_SECONDS = 60.0
Resource = Mapping[str, str | bool | int | float]


@dataclass(frozen=True, slots=True)
class Turned:
    """What a turn came to. `rest`: seconds until the next one; None where nothing is left. `sent`:
    packets that need nothing more, `age`: for how long (ms) the oldest of them lay there. `slow`:
    seconds that the longest request took; `requests`: how many were sent."""

    rest: float | None
    sent: Sent | None = None
    age: int = 0
    slow: float = 0.0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Destined:
    """What a courier needs of its destination. `open_delivery`: connects nothing yet; raises
    ConfigurationError. `resource`: of a source's executions; `envelope`: for such a resource.
    `named`: puts the destination's settings into the endpoint's words."""

    name: str
    open_delivery: Callable[[Callable[[Report], None]], Delivery]
    resource: Callable[[str], Resource]
    envelope: Callable[[Resource], Envelope]
    named: Callable[[str], str]


class Courier:
    """Of one destination. One thread at a time."""

    def __init__(self, destined: Destined, outbox: Outbox, runtime: Runtime) -> None:
        self._destined = destined
        self._outbox = outbox
        self._runtime = runtime
        self._delivery: Delivery | None = None
        self._work: Stepwise | None = None
        self._packets: list[Packet] = []
        self._entries: list[Entry] = []
        self._resource: Resource = {}
        self.failing: str | None = None
        """Why it does not get on, in words; None where it does."""
        self.connected = False
        """Whether it may hold connections."""
        self._slow = 0.0
        self._requests = 0

    @property
    def held(self) -> frozenset[int]:
        """The numbers of the packets that are being sent."""
        return frozenset(packet.number for packet in self._packets)

    @property
    def bytes(self) -> int:
        """How much it has in memory."""
        return sum(entry.size for entry in self._entries)

    def rest(self) -> None:
        """Gives back its connections until it sends again."""
        if self.connected and self._delivery is not None:
            self._delivery.rest()
        self.connected = False

    def close(self) -> None:
        """Closes its connections and lets go of what it holds, which stays in the outbox."""
        delivery, self._delivery = self._delivery, None
        self._work = None
        self._packets, self._entries = [], []
        self.connected = False
        if delivery is not None:
            delivery.close()

    def turn(self, most_bytes: int, most: int) -> Turned:
        """Sends what is due; where it holds nothing, it takes so many bytes and executions first.
        Raises CheckpointError."""
        self._slow, self._requests = 0.0, 0
        if self._work is None:
            self._packets = self._outbox.take(self._destined.name, most_bytes, most)
            if not self._packets:
                return Turned(None)
            try:
                self._work = self._begin()
            except AlloyReceiverError as error:
                self._packets = []
                self.failing = self._destined.named(str(error))
                return Turned(_UNUSABLE_SECONDS)
        self.connected = True
        pause = self._work.advance()
        if pause is not None:
            return Turned(pause, slow=self._slow, requests=self._requests)
        sent, age = self._finish(self._work), self._age()
        self._work = None
        self._packets, self._entries = [], []
        return Turned(0.0, sent, age, self._slow, self._requests)

    def _begin(self) -> Stepwise:
        if self._delivery is None:
            self._delivery = self._destined.open_delivery(self._report)
        entries = [entry for packet in self._packets for entry in packet.entries()]
        self._resource = self._destined.resource(self._packets[0].source)
        self._entries = entries
        return self._delivery.stepwise(
            [entry.span for entry in entries],
            [entry.log for entry in entries],
            self._destined.envelope(self._resource),
        )

    def _finish(self, work: Stepwise) -> Sent:
        found = work.delivered
        rejected = [
            self._rejected(self._entries[index], rejection.signals, rejection.reason)
            for index, rejection in found.rejections.items()
        ]
        numbers = [packet.number for packet in self._packets]
        return Sent(self._destined.name, numbers, len(self._entries), rejected)

    def _rejected(self, entry: Entry, signals: Sequence[str], reason: str) -> RejectedRecord:
        return RejectedRecord(
            self._packets[0].source,
            ",".join(signals),
            self._destined.named(reason),
            entry.role,
            entry.original,
            entry.started_at,
            self._runtime.now_ms(),
            resource=self._resource,
            enrichment=entry.enrichment,
            destination=self._destined.name,
        )

    def _age(self) -> int:
        return max(0, self._runtime.now_ms() - min(packet.at for packet in self._packets))

    def _report(self, report: Report) -> None:
        self._slow = max(self._slow, report.seconds)
        if report.bytes:
            self._requests += 1
        if report.next_wait is not None:
            self.failing = self._destined.named(report.outcome.reason)
        elif report.outcome.kind is Kind.DELIVERED:
            self.failing = None
