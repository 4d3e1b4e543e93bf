"""Every engine does the same: whatever is settled, in whatever order, they remember the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_alloy.checkpoint.outbox import Entry, Sent
from otel_alloy.checkpoint.postgres_sql import together, translated
from otel_alloy.checkpoint.store import (
    Open,
    Progress,
    RejectedRecord,
    Seen,
    Settlement,
    Store,
    Text,
    Waiting,
    open_store,
)

if TYPE_CHECKING:
    from conftest import Servers

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
TIMES = st.integers(0, 12)


def many(values: st.SearchStrategy[Any], names: Any = NAMES) -> Any:
    return st.dictionaries(names, values, max_size=4)


SETTLEMENTS = st.builds(
    Settlement,
    st.builds(
        Progress,
        st.one_of(st.none(), st.integers(-1, 2**53)),
        st.one_of(st.none(), st.tuples(TIMES, TIMES)),
        st.one_of(st.none(), TIMES),
    ),
    seen=many(st.builds(Seen, TIMES, st.one_of(st.none(), NAMES)), st.tuples(NAMES, NAMES)),
    opened=many(st.builds(Open, NAMES, TIMES, TIMES, st.one_of(st.none(), NAMES))),
    closed=st.sets(NAMES, max_size=4),
    asked=many(TIMES),
    ended=many(TIMES),
    rejected=st.lists(
        st.builds(RejectedRecord, NAMES, NAMES, NAMES, NAMES, NAMES, resource=many(TIMES)),
        max_size=3,
    ),
    known=many(TIMES, st.tuples(NAMES, NAMES)),
    spans=st.lists(NAMES, max_size=3),
    visibility=st.one_of(st.none(), NAMES),
    counted=many(TIMES),
    waits=many(st.builds(Waiting, NAMES, st.builds(Text, NAMES), st.none(), TIMES)),
    enriched=st.lists(NAMES, max_size=3, unique=True),
    outbox=many(st.lists(st.builds(Entry, st.binary(), st.none(), TIMES, NAMES, NAMES, NAMES))),
    filtered=many(TIMES, st.tuples(st.integers(0, 200_000), NAMES)),
    at=TIMES,
    forget_before=TIMES,
    forget_ended_before=TIMES,
    forget_open_before=TIMES,
    forget_known_before=st.sampled_from([0, 0, 5, 70_000]),
)


@pytest.fixture(scope="module")
def stores(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Store]]:
    """One of each engine."""
    folder = tmp_path_factory.mktemp("engines")
    engines = ("sqlite", "postgres oldest", "postgres newest", "pgbouncer")
    with ExitStack() as stack:
        yield [
            stack.enter_context(closing(open_store(servers.storage(engine, Path(folder)))))
            for engine in engines
        ]


def seen_of(store: Store, names: list[str]) -> Any:
    """All that can be asked, but for numbers, which are given on and on."""
    outbox = store.outbox
    packets = {name: outbox.take(name, 10**9, 10**9) for name in names}
    return (
        store.load("s", "f").whole(),
        [row[:7] for row in map(_fields, store.rejected())],
        sorted(store.known("s", 0, 20).records()),
        (store.visibility("s"), store.counted("s"), store.filtered("s", 0, 10**9)),
        store.waiting("s"),
        outbox.backlogs(),
        {name: [p.entries() for p in some] for name, some in packets.items()},
        {
            name: [(r.first, r.last, list(r.wants)) for r in outbox.recalls(name, "s", 99)]
            for name in names
        },
    )


def _fields(record: RejectedRecord) -> tuple[Any, ...]:
    return (
        *(record.source, record.signals, record.reason, record.role, record.original),
        *(record.resource, record.destination),
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SETTLEMENTS, min_size=1, max_size=4), st.integers(0, 3))
def test_every_engine_remembers_the_same(
    stores: list[Store], settlements: list[Settlement], acknowledged: int
) -> None:
    """Settlements of every kind, some of what they put into the outbox acknowledged and some noted
    to be read again: each answer of each engine is that of SQLite."""
    names = sorted({name for one in settlements for name in one.outbox})
    found = []
    for store in stores:
        store.reset("s")
        store.drop_rejected([r.number for r in store.rejected()])
        for name in store.outbox.backlogs():
            store.outbox.drop(name)
        store.load("s", "f")
        new = [store.settle("s", one) for one in settlements]
        for name in names:
            some = store.outbox.take(name, 10**9, 10**9)[:acknowledged]
            store.outbox.sent([Sent(name, [p.number for p in some], 5)], 7)
            spilled = store.outbox.spill(name, 0, 0, ())
            new.append(spilled)
        found.append((new, seen_of(store, names)))
    assert all(one == found[0] for one in found[1:])


def test_many_rows_are_few_statements() -> None:
    """Each shape of statement that is done for many rows becomes one for all of them."""
    for sql, width in (
        ("INSERT INTO t (a, b) VALUES (?,?) ON CONFLICT (a) DO UPDATE SET b=excluded.b", 2),
        ("INSERT INTO t (a, b) VALUES (?,0)", 1),
        ("DELETE FROM t WHERE a=? AND b=?", 2),
        ("UPDATE t SET c=?, d=? WHERE a=? AND b=?", 4),
    ):
        rows = [tuple(range(width))] * 700
        made = list(together(sql, "x", rows))
        assert [len(values) for _, values in made] == [500 * width, 200 * width]
        assert all('"x".t' in one and one.count("%s") == len(values) for one, values in made)
    assert translated("SELECT a FROM t WHERE b LIKE '%' AND c=?", "x").count("%%") == 1
