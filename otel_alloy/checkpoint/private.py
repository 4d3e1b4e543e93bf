"""A store for those who only look, `tail` and `summary`: gone with the process.

It is SQLite's temporary database, which is in memory until it outgrows its cache, and then in a
file without a name. No checkpoint is opened or made here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from otel_alloy.checkpoint.remembered import IN_MEMORY, Remembered, write_memory
from otel_alloy.checkpoint.sqlite import statements
from otel_alloy.checkpoint.store import Progress, Settlement
from otel_alloy.checkpoint.waiting import read_blocks, write_blocks
from otel_alloy.errors import CheckpointError

_CACHE_KIB = 16_384


class PrivateStore:
    """Remembers one source. What is set aside is not kept."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=OFF")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        for statement in statements(0):
            self._db.execute(statement)

    def load(self, source: str, in_memory: int = IN_MEMORY) -> Remembered:
        """What is remembered, which is nothing at first."""
        return Remembered(self._read, source, Progress(), in_memory=in_memory)

    def settle(self, source: str, settlement: Settlement) -> int:
        """Keeps what a settlement says, but for its progress and what is set aside. Raises
        CheckpointError where there is no room for temporary files."""
        self._write(lambda: write_memory(self._db, source, settlement))
        return 0

    def blocks(self, workflow: str, version: int) -> str | None:
        """See `Store.blocks`."""
        return read_blocks(self._read, workflow, version)

    def write_blocks(self, workflow: str, version: int, blocks: str) -> None:
        """See `Store.write_blocks`."""
        self._write(lambda: write_blocks(self._db, workflow, version, blocks))

    def close(self) -> None:
        """Forgets everything."""
        self._db.close()

    def _write(self, write: Callable[[], None]) -> None:
        try:
            self._db.execute("BEGIN")
            write()
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise _told(error) from None

    def _read(self, select: str, values: Sequence[object]) -> list[Any]:
        try:
            return self._db.execute(select, values).fetchall()
        except sqlite3.Error as error:
            raise _told(error) from None


def _told(error: sqlite3.Error) -> CheckpointError:
    return CheckpointError(
        f"the temporary file for what was read: {error}",
        "make room in the folder for temporary files, or name another one in SQLITE_TMPDIR",
    )
