"""The outbox: nothing leaves it but what was sent, dropped, or noted to be read again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_alloy.checkpoint.outbox import (
    Entry,
    Outbox,
    Recalled,
    Sent,
    pack,
    packets,
    record_check,
    unpack,
)
from otel_alloy.checkpoint.store import Progress, RejectedRecord, Settlement, Store, open_store

HOUR = 3_600_000


@pytest.fixture
def store(storage: str) -> Iterator[Store]:
    """An empty one, on each engine."""
    with closing(open_store(storage)) as found:
        found.load("default", "")
        yield found


def entry(number: int, created: int | None = 0, size: int = 10, more: str | None = None) -> Entry:
    made = None if created is None else created + number
    original = f'{{"_id":"r{number}","pad":"{"x" * size}"}}'
    record = None if created is None else f"r{number}"
    return Entry(b"span%d" % number, b"log", made, record, "ended", original, None, more)


def put(store: Store, at: int = 0, /, **outbox: list[Entry]) -> None:
    store.settle("default", Settlement(Progress(high=1), outbox=outbox, at=at))


def originals(outbox: Outbox, destination: str) -> list[str]:
    taken = outbox.take(destination, 10**9, 10**9)
    return [e.original for packet in taken for e in packet.entries()]


parts = st.one_of(st.none(), st.binary(max_size=50))
entries = st.builds(
    Entry,
    parts,
    parts,
    st.one_of(st.none(), st.integers(0, 2**40)),
    st.text(max_size=5),
    st.sampled_from(["ended", "incomplete"]),
    st.text(max_size=50),
    st.one_of(st.none(), st.text(max_size=5), st.integers(0, 2**50)),
    st.one_of(st.none(), st.text(max_size=20)),
)


@given(st.lists(entries, max_size=8))
def test_a_packet_gives_back_what_it_was_made_of(given_entries: list[Entry]) -> None:
    """Byte for byte, in order, with lone surrogates and empty parts."""
    assert unpack(pack(given_entries)) == given_entries
    grouped = [e for group in packets(given_entries) for e in group]
    assert sorted(map(repr, grouped)) == sorted(map(repr, given_entries))
    for group in packets(given_entries):
        assert len({e.created is None for e in group}) == 1


def test_what_a_settlement_has_for_destinations_is_there_with_it(store: Store) -> None:
    """It is written in the transaction of the checkpoint, oldest first, by destination."""
    put(store, 5, acme=[entry(1), entry(2)], beta=[entry(3)])
    put(store, 6, acme=[entry(4)])
    outbox = store.outbox
    assert originals(outbox, "acme") == [entry(n).original for n in (1, 2, 4)]
    found = outbox.backlogs()
    assert (found["acme"].executions, found["acme"].oldest, found["beta"].executions) == (3, 5, 1)


def test_taking_keeps_to_its_bounds_and_takes_one_at_least(store: Store) -> None:
    """What one destination has in memory is bounded; no packet is too large for ever."""
    for number in range(5):
        put(store, acme=[entry(number), entry(number + 10)])
    outbox = store.outbox
    assert len(outbox.take("acme", 10**9, 5)) == 2
    assert len(outbox.take("acme", 1, 1)) == 1
    store.load("other", "")
    store.settle("other", Settlement(Progress(high=1), outbox={"acme": [entry(9)]}))
    assert {p.source for p in outbox.take("acme", 10**9, 10**9)} == {"default"}
    assert outbox.take("other", 10, 10) == []


def test_sent_packets_leave_with_what_they_had_set_aside(store: Store) -> None:
    """In one transaction; the same record of two destinations is kept for each of them."""
    put(store, acme=[entry(1), entry(2)], beta=[entry(1)])
    outbox = store.outbox
    for name in ("acme", "beta"):
        (packet,) = outbox.take(name, 10**9, 10)
        bad = RejectedRecord("default", "traces", "400", "ended", "{}", at=1, destination=name)
        assert outbox.sent([Sent(name, [packet.number], packet.executions, [bad])], 9) == 1
        assert originals(outbox, name) == []
    assert [r.destination for r in store.rejected()] == ["acme", "beta"]
    assert outbox.backlogs()["acme"].delivered == 1
    assert outbox.backlogs()["acme"].delivered_at == 9


def test_what_there_is_no_room_for_is_noted_to_be_read_again(store: Store) -> None:
    """The oldest goes first, nothing of other destinations, not what is being sent, not what could
    not be read again; each execution is in the outbox or noted, never both, never neither."""
    put(store, 1, acme=[entry(0, size=5000)])
    put(store, 2, acme=[entry(1, size=5000, more="why"), entry(2, None)])
    put(store, 3, acme=[entry(3, 2 * HOUR)], beta=[entry(4)])
    outbox = store.outbox
    kept = outbox.take("acme", 1, 1)[0].number
    assert outbox.spill("acme", 10**9, 0, ()) == 0
    assert outbox.spill("acme", 0, 0, {kept}) == 2
    assert originals(outbox, "acme") == [entry(0, size=5000).original, entry(2, None).original]
    one, two = outbox.recalls("acme", "default", 100)
    (first,), (second,) = one.wants, two.wants
    assert (first.created, first.check, first.enrichment) == (1, record_check("r1"), "why")
    assert (two.first, two.last, second.created) == (2 * HOUR + 3, 2 * HOUR + 3, 2 * HOUR + 3)
    backlogs = outbox.backlogs()
    assert (backlogs["acme"].recall, backlogs["acme"].recall_from) == (2, 1)
    assert backlogs["beta"].recall == 0


def test_what_is_too_old_is_noted_however_little_it_is(store: Store) -> None:
    """`before`: what came into the outbox before that moment goes, what came after it stays."""
    put(store, 1, acme=[entry(1)])
    put(store, 9, acme=[entry(2)])
    assert store.outbox.spill("acme", 10**9, 5, ()) == 1
    assert originals(store.outbox, "acme") == [entry(2).original]


def test_what_was_read_again_is_in_the_outbox_and_noted_no_more(store: Store) -> None:
    """In one transaction: what is found, what is still wanted, and what Alloy does not give."""
    put(store, 1, acme=[entry(n) for n in range(4)])
    outbox = store.outbox
    outbox.spill("acme", 0, 0, ())
    (recall,) = outbox.recalls("acme", "default", 100)
    found = Recalled({recall.number: recall.wants[2:]}, {("acme", "default"): [entry(0)]})
    outbox.recalled(found, 7)
    (recall,) = outbox.recalls("acme", "default", 100)
    assert [w.created for w in recall.wants] == [2, 3]
    outbox.recalled(Recalled({recall.number: []}, missing={"acme": 2}), 8)
    assert outbox.recalls("acme", "default", 100) == []
    assert originals(outbox, "acme") == [entry(0).original]
    assert (outbox.backlogs()["acme"].missing, outbox.backlogs()["acme"].recall) == (2, 0)


def test_a_pause_and_a_failure_are_remembered_until_they_end(store: Store) -> None:
    """Whatever else is written of the destination meanwhile; `drop` forgets all of it."""
    outbox = store.outbox
    outbox.pause("acme", 5)
    outbox.failed({"acme": "HTTP 503"}, 6)
    put(store, acme=[entry(1)])
    one = outbox.backlogs()["acme"]
    assert (one.paused_at, one.error, one.error_at, one.executions) == (5, "HTTP 503", 6, 1)
    outbox.pause("acme", None)
    outbox.failed({"acme": None}, 7)
    one = outbox.backlogs()["acme"]
    assert (one.paused_at, one.error, one.error_at) == (None, None, None)
    assert outbox.drop("acme") == 1
    assert outbox.backlogs() == {}


def test_what_rules_kept_back_is_counted_by_the_minute(store: Store) -> None:
    """As long as audits look back, and gone with the source."""
    counted = {(60_000, "beats"): 2, (120_000, "beats"): 1, (60_000, "rule 2"): 4}
    store.settle("default", Settlement(Progress(high=1), filtered=counted))
    store.settle("default", Settlement(Progress(high=1), filtered={(60_000, "beats"): 3}))
    assert store.filtered("default", 60_000, 120_000) == {"beats": 5, "rule 2": 4}
    store.settle("default", Settlement(Progress(high=1), forget_known_before=120_000))
    assert store.filtered("default", 0, 10**9) == {"beats": 1}
    store.reset("default")
    assert store.filtered("default", 0, 10**9) == {}
