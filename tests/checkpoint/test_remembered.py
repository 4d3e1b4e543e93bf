"""What is remembered of a source: a little of it in memory, any amount of it in the file, and the
same answers either way."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from otel_alloy.checkpoint.private import PrivateStore
from otel_alloy.checkpoint.remembered import IN_MEMORY, Remembered
from otel_alloy.checkpoint.sql_store import SqlStore
from otel_alloy.checkpoint.sqlite import SqliteStore
from otel_alloy.checkpoint.store import Open, Progress, Seen, Settlement, State, open_store
from otel_alloy.errors import CheckpointError

TEXT = '{"_id":"x","filler":"' + "x" * 1000 + '"}'


def opened(count: int, first: int = 0) -> dict[str, Open]:
    return {f"e{n}": Open(TEXT, n, 1000, None) for n in range(first, first + count)}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path / "c.db")) as found:
        found.load("s", "f")
        yield found


def settle(store: SqlStore | PrivateStore, memory: Remembered, settlement: Settlement) -> None:
    store.settle("s", settlement)
    memory.settled(settlement)


def test_memory_does_not_grow_with_what_is_open(store: SqliteStore) -> None:
    """Ten thousand open executions or thirty thousand: loading them and asking which are due takes
    the same memory, and none of their JSON is in it."""
    peaks = []
    for first in (0, IN_MEMORY + 1):
        store.settle("s", Settlement(Progress(1), opened=opened(IN_MEMORY * 2 + 1, first)))
        tracemalloc.start()
        memory = store.load("s", "f")
        assert len(memory.due(10**6, 10)) == 10
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert memory.open_count == first + IN_MEMORY * 2 + 1
        assert len(memory.held().open) == 10
    assert max(peaks) < 100_000


def store_at(url: str, in_memory: int) -> SqlStore:
    """The store of a URL, with less in memory than usual."""
    store = open_store(url)
    assert isinstance(store, SqlStore)
    store._in_memory = in_memory
    return store


def test_what_is_held_is_dropped_when_it_becomes_too_much(storage: str) -> None:
    """Up to a size all is in memory; the settlement that brings more than that empties it, and from
    then on a page brings back what it needs, and what was settled with it is gone again."""
    with closing(store_at(storage, 10)) as store:
        memory = store.load("s", "f")
        for n in range(12):
            settlement = Settlement(Progress(n))
            memory.opened(settlement, f"e{n}", Open(TEXT, n, 1000, None))
            memory.remember(settlement, (f"r{n}", "m"), Seen(n, f"other {n}"))
            settle(store, memory, settlement)
            assert (len(memory.held().open) == n + 1) == (n < 5)
        assert memory.held() == State(memory.progress) and memory.open_count == 12
        settlement = Settlement(Progress(13))
        memory.recall(
            settlement, [(("r3", "m"), "e3"), (("r3", "new"), "other 4"), (("?", "m"), None)]
        )
        assert memory.knows(("r3", "m")) and not memory.knows(("r3", "new"))
        assert memory.has_span("other 4") and not memory.has_span("e3")
        start = memory.started("e3")
        assert start is not None and (start.created, start.text()) == (3, TEXT)
        memory.closed(settlement, "e3")
        memory.recall(settlement, [(("r9", "m"), "e3")])
        assert memory.started("e3") is None, "what the batch has closed comes back"
        settle(store, memory, settlement)
        assert "e3" not in memory.whole().open and memory.open_count == 11


def test_a_page_of_any_size_and_any_names(storage: str) -> None:
    """More names than a statement takes at once, and names that hold what SQL or JSON would read
    otherwise."""
    names = ["a\0b", "a", "a\x1ab", "a\x1a0b", "'", '"', "", "ü\u2028", *map(str, range(250))]
    with closing(store_at(storage, 0)) as store:
        memory = store.load("s", "f")
        settlement = Settlement(Progress(1))
        for name in names:
            memory.remember(settlement, (name, name), Seen(5, f"x{name}"))
            memory.opened(settlement, name, Open(TEXT, 1, 1))
            memory.remember_end(settlement, f"y{name}", 9)
        settle(store, memory, settlement)
        again = Settlement(Progress(1))
        memory.recall(again, [((name, name), name) for name in names])
        assert all(memory.knows((name, name)) and memory.started(name) for name in names)
        memory.recall(again, [(("?", "?"), f"{letter}{name}") for letter in "xy" for name in names])
        assert all(memory.has_span(f"{letter}{name}") for letter in "xy" for name in names)
        assert not memory.knows(("a\0", "a\0")) and not memory.has_span("a")


def test_no_statement_looks_at_all_there_is(store: SqliteStore) -> None:
    """Each statement of a cycle finds its rows by an index, in files of any size; only counting
    looks at all, once at the start."""
    store.settle("s", Settlement(Progress(1), opened=opened(10)))
    store._in_memory = 0
    memory = store.load("s", "f")
    said: list[str] = []
    store._db.set_trace_callback(said.append)
    settlement = Settlement(Progress(1))
    memory.due(10**6, 5)
    memory.late(10**6, 5)
    memory.recall(settlement, [(("a", "m"), "e1")])
    memory.remember(settlement, ("a", "m"), Seen(1, "e8"))
    memory.opened(settlement, "new", Open("{}", 1, 1))
    memory.asked(settlement, "e1", 5)
    memory.closed(settlement, "e2")
    memory.remember_end(settlement, "e2", 9)
    memory.forget(settlement, 1)
    assert memory.newest_seen() is None and memory.original("e1") == TEXT
    settle(store, memory, settlement)
    store._db.set_trace_callback(None)
    words = [one for one in said if one.split()[0] in ("SELECT", "DELETE", "UPDATE", "INSERT")]
    assert len(words) >= 14
    for one in words:
        plan = [row[3] for row in store._db.execute(f"EXPLAIN QUERY PLAN {one}")]
        assert not any("SCAN" in step and "CONSTANT" not in step for step in plan), (one, plan)
        assert not any("TEMP B-TREE" in step for step in plan), (one, plan)


def test_reading_is_tried_again_where_that_may_succeed_later(store: SqliteStore) -> None:
    """What cannot be read is told as what cannot be written; whoever has patience is asked."""
    memory = store.load("s", "f")
    store._db.close()
    with pytest.raises(CheckpointError, match=r"c\.db"):
        memory.due(1, 1)
    asked: list[object] = []

    def patience(act: Callable[[], list[Any]]) -> list[Any]:
        asked.append(act)
        return []

    memory.patience = patience
    assert memory.due(1, 1) == [] and len(asked) == 1


def test_a_private_store_leaves_nothing_behind(tmp_path: Path) -> None:
    """What a command that looks on remembers outgrows its memory without a file that has a name,
    and where there is no room for one, that is told with the remedy."""
    code = (
        "import resource, signal, sys, os\n"
        "from otel_alloy.checkpoint.private import PrivateStore\n"
        "from otel_alloy.checkpoint.store import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "if sys.argv[1] == 'full':\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "store = PrivateStore()\n"
        "for n in range(60):\n"
        "    opened = {f'{n}.{i}': Open('x' * 1000, n, 1) for i in range(1000)}\n"
        "    store.settle('s', Settlement(Progress(1), opened=opened))\n"
        "print(store.load('s').open_count, os.listdir(os.environ['SQLITE_TMPDIR']))\n"
    )
    environment = {"SQLITE_TMPDIR": str(tmp_path), "PATH": "/usr/bin"}

    def run(how: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, how]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    well = run("room")
    assert well.stdout == "60000 []\n", well.stderr
    full = run("full")
    assert "CheckpointError" in full.stderr and "SQLITE_TMPDIR" in full.stderr
    assert list(tmp_path.iterdir()) == []
