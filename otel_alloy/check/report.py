"""`check --report`: which way the API's unknowns fell, in a file that can be shown to anybody.

What is looked at is put together here, and written. No name, id, time or text of a record or of the
settings may reach it: sources are numbered, and `unknowns` and `shapes` give words, counts and
shares. What only time tells comes from the checkpoint, where there is one; looking makes none.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from otel_alloy.check.observed import Observed, Remembered
from otel_alloy.check.unknowns import unknowns
from otel_alloy.checkpoint.store import open_store, store_exists
from otel_alloy.errors import AlloyReceiverError
from otel_alloy.pipeline.visibility import VisibilityLag
from otel_alloy.settings.models import Settings, SourceSettings
from otel_alloy.version import __version__

FORM = 1
"""The form of the report; it grows when that changes."""


class Report:
    """Collects what `check` sees of each source."""

    def __init__(self) -> None:
        self._sources: list[tuple[Observed, Remembered | None]] = []

    def add(self, settings: Settings, source: SourceSettings, seen: Observed) -> None:
        """Adds a source. Raises CheckpointError where there is a checkpoint that cannot be read."""
        self._sources.append((seen, _remembered(settings, source)))

    def as_object(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "form": FORM,
            "about": "which way the unknowns of this Alloy Logs API fell: shapes and counts only",
            "otel_alloy": __version__,
            "sources": [
                {
                    "source": number,
                    "requests": seen.requests,
                    "ended_early_by": seen.error,
                    "checkpoint": kept is not None,
                    "unknowns": unknowns(seen, kept),
                }
                for number, (seen, kept) in enumerate(self._sources, 1)
            ],
        }

    def text(self) -> str:
        """As a file holds it."""
        return json.dumps(self.as_object(), indent=2) + "\n"


def write_report(text: str, path: Path) -> None:
    """Writes a file that only its owner may read, as a whole or not at all. Raises
    AlloyReceiverError."""
    try:
        if path.exists() and not path.is_file():  # a pipe or a terminal
            path.write_text(text)
            return
        path = path.resolve()
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(handle, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise AlloyReceiverError(
            f"--report {path}: {error.strerror}",
            "name a file in a folder that this user may write to, or - for standard output",
        ) from None


def _remembered(settings: Settings, source: SourceSettings) -> Remembered | None:
    """What the checkpoint has of a source; None where it has nothing."""
    if not store_exists(settings.storage):
        return None
    with closing(open_store(settings.storage, exclusive=False)) as store:
        if source.name not in store.sources():
            return None
        return Remembered(
            VisibilityLag.read(store.visibility(source.name)),
            store.counted(source.name),
            store.audits(source.name, 0, 1 << 62),
        )
