"""The compact set of settled records: what was settled is known, what was not is news."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_alloy.checkpoint.known import SPAN_MS, Known, blocks

NOW = 1_750_000_000_000
MESSAGES = st.sampled_from(
    ["executionStarted", "executionFinished", "executionError", "", "é\ud800"]
)
RECORDS = st.dictionaries(
    st.tuples(st.text(max_size=24), MESSAGES), st.integers(NOW - 40 * SPAN_MS, NOW), max_size=60
)


@given(settled=RECORDS, others=RECORDS)
def test_what_was_settled_is_known_and_nothing_else(
    settled: dict[tuple[str, str], int], others: dict[tuple[str, str], int]
) -> None:
    """Each settled record is known by its identity and createdAt; others are not."""
    packed = list(blocks(settled.items()))
    known = Known(packed, 0, NOW + 1)
    assert all(record in known for record in settled.items())
    assert not any(r in known for r in others.items() if settled.get(r[0]) != r[1])
    assert sum(len(block.packed) for block in packed) == 8 * len(settled)
    assert all(block.first <= block.last < block.first + SPAN_MS for block in packed)


@given(settled=RECORDS, data=st.data())
def test_a_stretch_is_counted_exactly(
    settled: dict[tuple[str, str], int], data: st.DataObject
) -> None:
    """Of any stretch, to the millisecond; a record that changed in place counts once."""
    start = data.draw(st.integers(NOW - 40 * SPAN_MS, NOW))
    before = data.draw(st.integers(start, NOW + 1))
    known = Known(blocks(settled.items()), start, before)
    inside = {(i, c) for (i, _), c in settled.items() if start <= c < before}
    assert known.count(start, before) == len(inside)
    middle = (start + before) // 2
    assert known.count(start, middle) + known.count(middle, before) == len(inside)


def test_a_record_settled_twice_counts_once() -> None:
    """A batch that was written again after a takeover does not make the audit see more."""
    record = ("663b", "executionFinished"), NOW
    known = Known([*blocks([record]), *blocks([record])], NOW, NOW + 1)
    assert known.count(NOW, NOW + 1) == 1 and record in known


@given(st.permutations(["executionStarted", "executionFinished", "executionError"]))
def test_what_changed_in_place_is_news(messages: list[str]) -> None:
    """The same `_id` with a new message of those that there are is never taken for known."""
    known = Known(blocks([(("663b", messages[0]), NOW)]), NOW, NOW + 1)
    assert all((("663b", message), NOW) not in known for message in messages[1:])
