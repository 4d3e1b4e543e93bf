"""A source's store whose writes wait for a disk that is full, as settling a batch does.

Side work writes too: what audits found, up to where was looked. A full disk delays that; it must
not end the source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from otel_alloy.checkpoint.store import AuditResult, SourceStore


class Patiently(Protocol):
    """Does something again and again where it may succeed later: `BatchProcessor.patiently`."""

    def __call__(self, act: Callable[[], None], /) -> None: ...


class PatientStore:
    """What looking back needs of `store`."""

    def __init__(self, store: SourceStore, patiently: Patiently) -> None:
        self._store = store
        self._patiently = patiently
        self.known = store.known
        self.known_from = store.known_from
        self.audited_to = store.audited_to
        self.learned = store.learned
        self.visibility = store.visibility
        self.removes = store.removes
        self.waiting = store.waiting
        self.reasons = store.reasons
        self.blocks = store.blocks

    def write_audit(self, source: str, result: AuditResult) -> None:
        """See `Store.write_audit`."""
        self._patiently(lambda: self._store.write_audit(source, result))

    def write_learned(self, source: str, name: str, number: int | None) -> None:
        """See `Store.write_learned`."""
        self._patiently(lambda: self._store.write_learned(source, name, number))

    def write_enrichments(self, source: str, found: Mapping[str, str]) -> None:
        """See `Store.write_enrichments`."""
        self._patiently(lambda: self._store.write_enrichments(source, found))

    def write_blocks(self, workflow: str, version: int, blocks: str) -> None:
        """See `Store.write_blocks`."""
        self._patiently(lambda: self._store.write_blocks(workflow, version, blocks))
