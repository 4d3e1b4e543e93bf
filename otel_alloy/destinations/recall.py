"""Reading again what there was no room for, when its destination is well.

What several destinations want of a source is read once; what is found is encoded and put into
their outboxes, in one transaction with the note that it is wanted no more. It takes a part of the
source's request budget, so that new records come first; by how many records Alloy counts it is
judged what to pass over. What Alloy does not give any more is counted and said, loudly.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

from otel_alloy.alloy.cursor import UnorderedApi, Window
from otel_alloy.alloy.models import Record
from otel_alloy.alloy.source import AlloySource
from otel_alloy.alloy.timestamps import to_text
from otel_alloy.checkpoint.outbox import (
    Entry,
    Outbox,
    Recall,
    Recalled,
    Want,
    record_check,
)
from otel_alloy.destinations.catalogue import Catalogue
from otel_alloy.destinations.events import DestinationRecalled
from otel_alloy.destinations.packing import Packer
from otel_alloy.errors import AlloyReceiverError, RequestRefused, ShutdownRequested
from otel_alloy.mapping.convert import Execution, Role, Unconvertible
from otel_alloy.mapping.enrichment import Enrichment
from otel_alloy.runtime import Runtime

log = logging.getLogger("otel_alloy")

_MOST = 5000
_ROUNDS = 100
_COMMIT = 500
_BYTES = 600  # what an execution takes in the outbox, about
_GAP_MS = 60_000
_PAUSE_SECONDS = 300.0

_Found = dict[tuple[str, str], list[Entry]]
"""By destination and source."""


@dataclass(slots=True)
class _Wanted:
    """What is still looked for: by createdAt and check, in which recall and at which place of it;
    and what is left of each recall, by its number and the place."""

    by_key: dict[tuple[int, int], list[tuple[Recall, int]]] = field(default_factory=dict)
    left: dict[int, dict[int, Want]] = field(default_factory=dict)

    @classmethod
    def of(cls, recalls: Sequence[Recall]) -> _Wanted:
        found = cls()
        for recall in recalls:
            found.left[recall.number] = dict(enumerate(recall.wants))
            for at, want in enumerate(recall.wants):
                found.by_key.setdefault((want.created, want.check), []).append((recall, at))
        return found

    def take(self, record: Record) -> list[tuple[Recall, int]]:
        """Who wants a record, which is looked for no more."""
        if record.created is None:
            return []
        return self.by_key.pop((record.created, record_check(record.identity[0])), [])


class Recalls:
    """`sources`: what opens each source, by its name; reading them keeps to a part of the budget.
    `packer`: encodes for destinations; used by one thread at a time."""

    def __init__(
        self,
        sources: Mapping[str, Callable[[], AlloySource]],
        catalogue: Catalogue,
        packer: Packer,
        outbox: Outbox,
        runtime: Runtime,
        observe: Callable[[object], None],
    ) -> None:
        self._sources = sources
        self._catalogue = catalogue
        self._packer = packer
        self._outbox = outbox
        self._runtime = runtime
        self._observe = observe
        self._lock = Lock()  # of the packer and of what is at work
        self._reading: set[str] = set()
        self._not_before: dict[str, float] = {}

    def look(
        self, well: Collection[str], room: int, arrived: Callable[[Mapping[str, int]], None]
    ) -> None:
        """Begins to read what destinations that are `well` want, who have less than `room` bytes
        in their outbox. `arrived` is told what lies there then."""
        now = self._runtime.monotonic()
        for source in self._sources:
            if source in self._reading or now < self._not_before.get(source, now):
                continue
            if self._choose(source, well, room):
                self._reading.add(source)
                work = partial(self._work, source, frozenset(well), room, arrived)
                self._runtime.spawn(work, f"otel-alloy-recall-{source}")

    def _choose(self, source: str, well: Collection[str], room: int) -> list[Recall]:
        """What to read next: what was noted longest ago comes first."""
        backlogs = self._outbox.backlogs()
        wanting = [n for n in well if (b := backlogs.get(n)) and b.recall and b.bytes < room]
        wanting.sort(key=lambda name: backlogs[name].recall_from or 0)
        found: list[Recall] = []
        most = _MOST
        for name in wanting:
            fits = max(1, (room - backlogs[name].bytes) // _BYTES)
            found += self._outbox.recalls(name, source, min(fits, most))
            most = _MOST - sum(len(recall.wants) for recall in found)
            if most <= 0:
                break
        return found

    def _work(
        self,
        source: str,
        well: Collection[str],
        room: int,
        arrived: Callable[[Mapping[str, int]], None],
    ) -> None:
        try:
            with closing(self._sources[source]()) as alloy:
                alloy.probe()
                for _ in range(_ROUNDS):
                    recalls = self._choose(source, well, room)
                    if not recalls or self._runtime.stopping():
                        break
                    self.read(alloy, recalls, arrived)
        except ShutdownRequested:
            pass
        except Exception as error:
            self._not_before[source] = self._runtime.monotonic() + _PAUSE_SECONDS
            words = str(error) if isinstance(error, AlloyReceiverError) else "a defect"
            log.warning(
                "source %s: what destinations still want of it cannot be read now: %s; tried again "
                "in %.0f s",
                source,
                words,
                _PAUSE_SECONDS,
                exc_info=None if isinstance(error, AlloyReceiverError) else error,
            )
        finally:
            self._reading.discard(source)

    def read(
        self,
        alloy: AlloySource,
        recalls: Sequence[Recall],
        arrived: Callable[[Mapping[str, int]], None],
    ) -> None:
        """Reads what is wanted of one source. Raises what reading and the store raise; what was
        found until then and not written is still wanted."""
        wanted, found = _Wanted.of(recalls), _Found()
        span = Window(min(r.first for r in recalls), max(r.last for r in recalls) + 1)
        for window in _windows(wanted, span, self._records(alloy, span), alloy.page_size):
            done = False
            while not done:
                try:
                    for reading in alloy.read(window):
                        self._take(alloy.name, reading.records, wanted, found)
                    done = True
                except UnorderedApi:
                    pass  # in the other way, as it has to be from here on
            if sum(map(len, found.values())) >= _COMMIT:
                self._write(wanted, found, {}, arrived)
        missing: dict[str, int] = {}
        for recall in recalls:
            if left := len(wanted.left[recall.number]):
                missing[recall.destination] = missing.get(recall.destination, 0) + left
        wanted.left = {number: {} for number in wanted.left}
        self._write(wanted, found, missing, arrived)
        for name, executions in missing.items():
            log.error(
                "destination %s: Alloy does not give %d executions any more that were to be read "
                "again, created between %s and %s",
                name,
                executions,
                to_text(span.start),
                to_text(span.before),
            )

    @staticmethod
    def _records(alloy: AlloySource, span: Window) -> int | None:
        try:
            return alloy.count(span)
        except RequestRefused:  # it gives records, and does not count them
            return None

    def _take(
        self,
        source: str,
        records: Sequence[Record],
        wanted: _Wanted,
        found: _Found,
    ) -> None:
        for record in records:
            for recall, at in wanted.take(record):
                route = self._catalogue.routes.by_name.get(recall.destination)
                if route is None:
                    continue
                want = recall.wants[at]
                known = None if want.enrichment is None else Enrichment.read(want.enrichment)
                role = Role(want.role)
                execution = Execution(record.notification, role, want.started_at, None, known)
                try:
                    with self._lock:
                        entry = self._packer.encode(route, execution, record.text())
                except Unconvertible:  # it has changed since
                    continue
                del wanted.left[recall.number][at]
                found.setdefault((recall.destination, source), []).append(entry)

    def _write(
        self,
        wanted: _Wanted,
        found: _Found,
        missing: Mapping[str, int],
        arrived: Callable[[Mapping[str, int]], None],
    ) -> None:
        left: dict[int, Sequence[Want]] = {
            number: list(wants.values()) for number, wants in wanted.left.items()
        }
        changed = Recalled(left, found, dict(missing))
        self._outbox.recalled(changed, self._runtime.now_ms())
        numbers: dict[str, int] = {}
        for (name, _), entries in found.items():
            numbers[name] = numbers.get(name, 0) + len(entries)
        found.clear()
        for name in {*numbers, *missing}:
            event = DestinationRecalled(name, numbers.get(name, 0), missing.get(name, 0))
            self._observe(event)
        if numbers:
            arrived(numbers)


def _windows(wanted: _Wanted, span: Window, records: int | None, page: int) -> Iterator[Window]:
    """What to read of a span that has so many records: what lies between two that are wanted is
    passed over where it would take more than a request to read it."""
    length = span.before - span.start
    gap = _GAP_MS if records is None else max(1, length * page // max(1, records))
    moments = sorted({created for created, _ in wanted.by_key})
    first = 0
    for at, moment in enumerate(moments):
        if at + 1 == len(moments) or moments[at + 1] - moment > gap:
            yield Window(moments[first], moment + 1)
            first = at + 1
