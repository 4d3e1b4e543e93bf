"""Completeness, looked at by a person: what Alloy counts beside what is settled, by stretches.

The work of `otel-alloy audit`. Beside a running `run` it only counts and compares, and leaves what
is missing to the audit of that process; without one, what is missing is delivered here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

from otel_alloy.alloy.cursor import Window
from otel_alloy.alloy.models import read_notification
from otel_alloy.alloy.timestamps import to_ms
from otel_alloy.checkpoint.store import RejectedRecord, Store, open_store
from otel_alloy.errors import CheckpointError
from otel_alloy.pipeline.events import Observe
from otel_alloy.pipeline.factory import Factory
from otel_alloy.pipeline.poller import Poller
from otel_alloy.settings.models import SourceSettings

_ROWS = 24
_DEFAULT_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Stretch:
    """createdAt from `start` to `before` (Unix ms) of one source: what Alloy counts (None where it
    cannot tell), what is settled, how much of that was set aside, and how much only an audit
    found. `filtered`: how many executions each rule kept back, by its name."""

    source: str
    start: int
    before: int
    api: int | None
    settled: int
    rejected: int
    recovered: int
    filtered: Mapping[str, int]

    @property
    def missing(self) -> int:
        """Records that Alloy counts and that are not settled."""
        return max(0, (self.api or 0) - self.settled)


@dataclass(frozen=True, slots=True)
class Completeness:
    """What was found. `since`: by source, from where on it is known what was settled; None where
    nothing was. `delivers`: whether what was missing could be delivered here."""

    stretches: list[Stretch]
    since: dict[str, int | None]
    delivers: bool

    @property
    def missing(self) -> int:
        """Records that are missing after all."""
        return sum(one.missing for one in self.stretches)

    @property
    def counted(self) -> bool:
        """Whether Alloy could count each of the stretches."""
        return all(one.api is not None for one in self.stretches)


def open_store_to_audit(url: str, say: Callable[[str], None]) -> tuple[Store, bool]:
    """The store, and whether what is missing may be delivered: not beside a `run`. Raises
    CheckpointError."""
    try:
        return open_store(url), True
    except CheckpointError:
        store = open_store(url, exclusive=False)
    say("a run is active, so nothing is delivered here: its own audit delivers what is missing")
    return store, False


def audit(
    factory: Factory,
    sources: list[SourceSettings],
    begin: int | float | None,
    end: int | float | None,
    observe: Observe,
    say: Callable[[str], None],
) -> Completeness:
    """Audits createdAt from `begin` to `end`: Unix ms, or seconds before the moment up to which
    everything was read; the last day of it. Raises Stop where the API or the store cannot be
    used."""
    stretches: list[Stretch] = []
    since: dict[str, int | None] = {}
    store, delivers = open_store_to_audit(factory.settings.storage, say)
    with closing(store):
        distribution = factory.distribution(store, observe)
        if distribution is not None:  # what is missing goes to destinations with the next `run`
            factory = distribution.joined()
        for source in sources:
            since[source.name] = known_from = store.known_from(source.name)
            if known_from is None:
                continue
            progress = store.sources()[source.name]
            read_to = (progress.high or 0) - int(source.overlap * 1000)
            read_to = max(read_to, progress.read_to or 0)
            start = max(known_from, _moment(begin, read_to, read_to - _DEFAULT_MS))
            before = min(_moment(end, read_to, read_to), read_to)
            if start < before:
                stretches += _stretches(factory, source, store, start, before, observe, delivers)
    return Completeness(stretches, since, delivers)


def _moment(given: int | float | None, read_to: int, default: int) -> int:
    if given is None:
        return default
    return given if isinstance(given, int) else read_to - int(given * 1000)


def _stretches(
    factory: Factory,
    source: SourceSettings,
    store: Store,
    start: int,
    before: int,
    observe: Observe,
    delivers: bool,
) -> Iterator[Stretch]:
    aside = [_created(r) for r in store.rejected() if r.source == source.name]
    poller = Poller(factory, source, store, observe)
    try:
        for window in _windows(start, before, int(source.audit_bucket * 1000)):
            api = poller.count(window)
            settled = store.known(source.name, window.start, window.before)
            if delivers and api != settled.count(window.start, window.before):
                poller.audit(window)
                api = poller.count(window)
                settled = store.known(source.name, window.start, window.before)
            found = store.audits(source.name, window.start, window.before)
            yield Stretch(
                source.name,
                window.start,
                window.before,
                api,
                settled.count(window.start, window.before),
                sum(1 for c in aside if c is not None and window.start <= c < window.before),
                sum(r.recovered for r in found if window.start <= r.start < window.before),
                store.filtered(source.name, window.start, window.before),
            )
    finally:
        poller.close()


def _windows(start: int, before: int, bucket: int) -> Iterator[Window]:
    """So many stretches as fit a screen, with bounds that are multiples of the bucket."""
    buckets = -(-(before - start) // bucket)
    step = -(-buckets // _ROWS) * bucket
    at = start
    while at < before:
        end = min((at // step + 1) * step, before)
        yield Window(at, end)
        at = end


def _created(record: RejectedRecord) -> int | None:
    try:
        return to_ms(read_notification(record.original).createdAt)
    except ValueError:
        return None
