"""How a window is read, as a specification: a page in, a decision out. No API is asked.

A page is written as its records in the API's order, each a name and its createdAt: `a1 b2 c2`. `!x`
is an entry that cannot be read, and `x-` a record without createdAt.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_alloy.alloy.cursor import (
    Behaviour,
    DescendingCursor,
    Filter,
    KeysetCursor,
    Reading,
    UnorderedApi,
    Window,
)
from otel_alloy.alloy.models import Page, read_page
from otel_alloy.alloy.query import Query
from otel_alloy.testing.simulator import iso

T0 = 1_745_948_650_000
WINDOW = Window(T0, T0 + 9)
BASE = Query(3, workflow_id="w")
Cursor = KeysetCursor | DescendingCursor


def page(words: str, **told: int) -> Page:
    """The answer with these records. `told`: its pagination."""
    entries: list[Any] = []
    for word in words.split():
        name, moment = word[:-1], word[-1]
        if word[0] == "!":
            entries.append([word])
        elif moment == "-":
            entries.append({"_id": name})
        else:
            entries.append({"_id": name, "createdAt": iso(T0 + int(moment))})
    return read_page(json.dumps({"notifications": entries, "pagination": told}).encode())


def keyset(largest: int = 3) -> tuple[KeysetCursor, Behaviour]:
    """A cursor of WINDOW, and what is known of its API: pages hold at most `largest` records."""
    api = Behaviour(filter=Filter.HONOURED, largest=largest)
    return KeysetCursor(WINDOW, api), api


def descending(filter: Filter = Filter.IGNORED) -> DescendingCursor:
    """The same for reading newest first."""
    return DescendingCursor(WINDOW, Behaviour(filter=filter, largest=3), set())


def asked(cursor: Cursor) -> tuple[int | None, int | None, int, int]:
    """(after, before, skip, limit) of the next request, which is otherwise the base query."""
    query = cursor.query(BASE)
    assert query.workflow_id == "w" and query.ascending == isinstance(cursor, KeysetCursor)
    after, before = (None if t is None else t - T0 for t in (query.after, query.before))
    return after, before, query.skip, query.limit


def brings(reading: Reading | None) -> tuple[str, int | None, bool]:
    """The names of the new records, the position, and whether the window is read."""
    assert reading is not None
    position = None if reading.position is None else reading.position - T0
    return "".join(r.identity[0] for r in reading.records), position, reading.last


# Ascending ----------------------------------------------------------------------------------------


def test_the_next_request_begins_at_the_last_created_at() -> None:
    """Closed, so that what shares its millisecond is not cut off; what is known is dropped."""
    cursor, _ = keyset()
    assert asked(cursor) == (-1, 9, 0, 3)
    assert brings(cursor.advance(page("a1 b2 c4"))) == ("abc", 4, False)
    assert asked(cursor) == (3, 9, 0, 3)
    assert brings(cursor.advance(page("c4 d4 e5"))) == ("de", 5, False)
    assert asked(cursor) == (4, 9, 0, 3)
    assert brings(cursor.advance(page("e5"))) == ("", 5, True)


def test_a_page_of_one_millisecond_is_a_run() -> None:
    """It is to be read as a whole, beyond what is known of it; then the way goes on behind it."""
    cursor, _ = keyset()
    cursor.advance(page("a1 b4 c4"))
    reading = cursor.advance(page("b4 c4 d4"))
    assert brings(reading) == ("d", 4, False) and reading is not None and reading.run == T0 + 4
    assert {name for name, _ in cursor.known} == {"b", "c", "d"}
    cursor.passed(T0 + 4)
    assert asked(cursor) == (4, 9, 0, 3) and not cursor.finished
    cursor.passed(T0 + 8)
    assert cursor.finished


@pytest.mark.parametrize(
    ("answer", "last"),
    [
        (page(""), True),  # nothing
        (page("a1 b2"), True),  # less than a page
        (page("a1 b2 c3"), False),  # a page
        (page("a1 b2", totalItems=2), True),  # the API counts no more
        (page("a1 b2", totalItems=5), False),  # the API counts more
        (page("a1 b2", pageSize=2), False),  # the API calls this a full page
        (page("", totalItems=5), True),  # a promise on an empty page is not believed
    ],
)
def test_where_the_window_ends(answer: Page, last: bool) -> None:
    """At an empty page, or at one that is smaller than this API's pages and promises no more."""
    cursor, _ = keyset()
    assert brings(cursor.advance(answer))[2] is last


def test_a_promise_on_a_small_page_lowers_what_a_full_page_is() -> None:
    """The API may have begun to clamp: from then on a page of that size is a full one."""
    cursor, api = keyset()
    cursor.advance(page("a1 b2", pageSize=2))
    assert api.largest == 2
    assert not brings(cursor.advance(page("b2 c3")))[2]


def test_the_size_that_was_asked_for_in_the_end_counts() -> None:
    """Where the limit was halved, a page of half the size is a full one."""
    cursor, _ = keyset()
    answer = page("a1 b2")
    answer.limit = 2
    assert not brings(cursor.advance(answer))[2]


def test_a_count_that_falls_short_of_what_was_there_is_gone_back_for() -> None:
    """The page before counted seven; now there are fewer than that from here on: once more."""
    cursor, _ = keyset()
    cursor.advance(page("a1 b2 c3", totalItems=7))
    assert cursor.advance(page("c3 d4", totalItems=2)) is None
    assert asked(cursor) == (-1, 9, 0, 3)
    cursor.advance(page("a1 b2 c3", totalItems=4))  # three were deleted
    reading = cursor.advance(page("c3 d4", totalItems=2))
    assert brings(reading) == ("d", 4, True) and reading is not None and reading.sure


def test_entries_that_cannot_be_read_are_passed() -> None:
    """They count as received, and each is told once."""
    cursor, _ = keyset()
    first = cursor.advance(page("!x !y !z"))
    assert first is not None and len(first.bad) == 3 and not first.last
    assert asked(cursor) == (-1, 9, 3, 3)
    second = cursor.advance(page("!z a1"))
    assert second is not None and second.bad == [] and brings(second) == ("a", 1, True)


def test_a_record_without_created_at_moves_nothing() -> None:
    """It is handed on once, and the position goes by the others."""
    cursor, _ = keyset()
    assert brings(cursor.advance(page("a1 x- b2"))) == ("axb", 2, False)
    assert brings(cursor.advance(page("x- b2"))) == ("", 2, True)


@pytest.mark.parametrize("words", ["b2 a1", "a2 b3 c1", "a1 b3 c2"])
def test_disorder_is_seen(words: str) -> None:
    """Two pages in a row that are not in ascending order end this way of reading, for good."""
    cursor, api = keyset()
    assert cursor.advance(page(words)) is None
    with pytest.raises(UnorderedApi, match="not in ascending order"):
        cursor.advance(page(words))
    assert api.newest_first and not api.ordered


@pytest.mark.parametrize("words", ["a5 b9", "a3 b4"])
def test_an_ignored_filter_is_seen(words: str) -> None:
    """Records outside of what was asked for, twice in a row, show that the filter is ignored."""
    api = Behaviour(largest=3)
    cursor = KeysetCursor(Window(T0 + 4, T0 + 9), api)
    assert cursor.advance(page(words)) is None
    with pytest.raises(UnorderedApi, match="ignored"):
        cursor.advance(page(words))
    assert api.newest_first and api.filter is Filter.IGNORED


def test_a_first_page_of_one_millisecond_is_looked_at_twice() -> None:
    """It shows no order. Where nothing is before it, it is taken as it is."""
    cursor, _ = keyset()
    assert cursor.advance(page("a4 b4 c4")) is None
    assert asked(cursor) == (-1, 4, 0, 1)
    assert brings(cursor.advance(page(""))) == ("abc", 4, False)
    assert asked(cursor) == (3, 9, 0, 3)


def test_what_became_visible_meanwhile_is_no_disorder() -> None:
    """Something is before it, and the same request begins with that now."""
    cursor, _ = keyset()
    cursor.advance(page("a4 b4 c4"))
    assert cursor.advance(page("x2")) is None
    assert asked(cursor) == (-1, 9, 0, 3)
    assert brings(cursor.advance(page("x2 a4 b4"))) == ("xab", 4, False)


@pytest.mark.parametrize("again", ["a4 b4 c4", ""])
def test_what_is_before_a_first_page_and_never_in_it_is_disorder(again: str) -> None:
    """Something is before it, and the same request still does not begin with that."""
    cursor, api = keyset()
    cursor.advance(page("a4 b4 c4"))
    cursor.advance(page("x2"))
    with pytest.raises(UnorderedApi, match="not in ascending order"):
        cursor.advance(page(again))
    assert not api.ordered


# Newest first -------------------------------------------------------------------------------------


def test_pages_overlap_by_one_record() -> None:
    """So that a deletion above shows; what was seen is dropped, and no position can be told."""
    cursor = descending()
    assert asked(cursor) == (None, None, 0, 3)
    assert brings(cursor.advance(page("f8 e7 d6"))) == ("fed", None, False)
    assert asked(cursor) == (None, None, 2, 3)
    assert brings(cursor.advance(page("d6 c5 b4"))) == ("cb", None, False)
    assert asked(cursor) == (None, None, 4, 3)
    assert brings(cursor.advance(page("b4", totalItems=5))) == ("", None, True)


def test_only_a_filter_that_works_is_used() -> None:
    """Where only the order is ignored, the bounds are asked for."""
    assert asked(descending(Filter.HONOURED)) == (-1, 9, 0, 3)
    assert asked(descending(Filter.MATCHES_NOTHING)) == (None, None, 0, 3)


def test_it_ends_below_the_window() -> None:
    """At a page that is in order and reaches below the window; what is outside is left out."""
    cursor = DescendingCursor(Window(T0 + 4, T0 + 7), Behaviour(filter=Filter.IGNORED), set())
    assert brings(cursor.advance(page("f8 e7 d6"))) == ("d", None, False)
    assert brings(cursor.advance(page("d6 b4 a3"))) == ("b", None, True)
    cursor = DescendingCursor(Window(T0 + 4, T0 + 7), Behaviour(filter=Filter.IGNORED), set())
    assert brings(cursor.advance(page("d6 a3 b4"))) == ("db", None, False)  # in no order


def test_deletions_above_are_made_good() -> None:
    """A page without the record that was to overlap came too late: back, by more each time."""
    cursor = descending()
    for words in ("i8 h8 g7", "g7 f6 e5", "e5 d4 c3"):
        cursor.advance(page(words))
    skips = [asked(cursor)[2]]
    for words in ("b2 a1", "b2 a1"):
        assert cursor.advance(page(words)) is None
        skips.append(asked(cursor)[2])
    assert skips == [6, 4, 0]
    assert brings(cursor.advance(page("d4 c3 b2"))) == ("b", None, False)


def test_new_records_above_are_not_taken_for_the_end() -> None:
    """They push known ones down, once or twice; the same page three times more is the end, and one
    that nothing confirms."""
    cursor = descending()
    cursor.advance(page("c8 b7 a6"))
    same = page("c8 b7 a6")
    assert cursor.advance(same) is None
    assert not brings(cursor.advance(same))[2]
    reading = cursor.advance(same)
    assert brings(reading)[2] and reading is not None and not reading.sure


# Any well-behaved API -----------------------------------------------------------------------------


def drain(cursor: Cursor, answer: Callable[[Query], Page]) -> tuple[list[str], list[Query]]:
    """Reads to the end: the names in their order, and what was asked."""
    names: list[str] = []
    queries: list[Query] = []
    while len(queries) < 500:
        queries.append(cursor.query(Query(100)))
        reading = cursor.advance(answer(queries[-1]))
        if reading is not None:
            names += [r.identity[0] for r in reading.records]
            if reading.last:
                return names, queries
            if reading.run is not None and isinstance(cursor, KeysetCursor):
                known, run = len(cursor.known), reading.run  # a stable order: the known come first
                while True:
                    queries.append(Query(100, after=run - 1, before=run + 1, skip=known))
                    more = answer(queries[-1]).records
                    if not more:
                        break
                    names += [r.identity[0] for r in more]
                    known += len(more)
                cursor.passed(run)
                if cursor.finished:
                    return names, queries
    raise AssertionError("reading does not end")


@given(
    moments=st.lists(st.integers(0, 40), max_size=60) | st.lists(st.integers(0, 4), max_size=40),
    clamp=st.integers(1, 12),
    known=st.booleans(),
    tells=st.booleans(),
    start=st.integers(0, 41),
    length=st.integers(1, 50),
    kind=st.sampled_from([KeysetCursor, DescendingCursor]),
    filter=st.sampled_from([Filter.HONOURED, Filter.IGNORED]),
)
@settings(max_examples=500, deadline=None)
def test_any_well_behaved_api_is_read_completely_and_once(
    moments: list[int],
    clamp: int,
    known: bool,
    tells: bool,
    start: int,
    length: int,
    kind: type[KeysetCursor] | type[DescendingCursor],
    filter: Filter,
) -> None:
    """Any log and any clamp, known before or not, with a count or without: every record of the
    window comes once, in order, and the ascending way costs a request per page and few more."""
    log = [(T0 + moment, f"r{n}") for n, moment in enumerate(sorted(moments))]
    window = Window(T0 + start, T0 + start + length)
    if kind is KeysetCursor:
        filter = Filter.HONOURED

    def answer(query: Query) -> Page:
        found = [
            (created, name)
            for created, name in (log if query.ascending else log[::-1])
            if (query.after is None or created > query.after)
            and (query.before is None or created < query.before)
        ]
        shown = found[query.skip : query.skip + min(query.limit, clamp)]
        body: dict[str, Any] = {
            "notifications": [{"_id": name, "createdAt": iso(created)} for created, name in shown]
        }
        if tells:
            body["pagination"] = {"totalItems": len(found)}
        return read_page(json.dumps(body).encode())

    api = Behaviour(filter=filter, largest=clamp if known else 0)
    cursor = (
        KeysetCursor(window, api) if kind is KeysetCursor else DescendingCursor(window, api, set())
    )
    names, queries = drain(cursor, answer)
    inside = [name for created, name in log if window.start <= created < window.before]
    assert names == (inside if kind is KeysetCursor else inside[::-1])
    if kind is DescendingCursor:
        return
    runs = Counter(created for created, _ in log)
    if known:
        assert all(not q.skip or runs[(q.after or 0) + 1] >= clamp for q in queries)
    if max(runs.values(), default=1) == 1 < clamp:
        assert len(queries) <= 4 + len(inside) // (clamp - 1)
