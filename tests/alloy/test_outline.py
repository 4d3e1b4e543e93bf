"""The look at an answer before it is expanded: limits, long texts, and never a wrong suspicion."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_alloy.alloy import outline
from otel_alloy.alloy.models import Oversized, Unreadable, read_notification, read_page
from otel_alloy.alloy.outline import LONGEST_TEXT, MOST_CONTAINERS, MOST_ENTRIES, bounded

PAD = b" " * (LONGEST_TEXT + 1)
"""Makes an answer large enough to be looked at."""


def page(*entries: Any, pad: bytes = b"") -> bytes:
    return b'{"notifications":[' + b",".join(map(dumped, entries)) + b"]" + pad + b"}"


def dumped(entry: Any) -> bytes:
    return entry if isinstance(entry, bytes) else json.dumps(entry, ensure_ascii=False).encode()


def entry(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "_id": f"{number:024x}",
        "message": "executionFinished",
        "data": {"executionId": f"e{number}"},
        "createdAt": "2025-04-29T17:44:10.336Z",
    } | fields


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (page(*[b"{}"] * 1_000_000), f"more than {MOST_CONTAINERS} objects and lists"),
        (page(b'{"createdAt":[' + b"[ ]," * 400_000 + b"1]}"), "objects and lists"),
        (page(b'{"a":' * 400_000), "nested too deeply"),
        (page(b"[" * 2_000_000), "nested too deeply"),
        (page(*[b"1"] * 3_000_000), "more than 1000000 values"),
        (page(b"{" + b'"":1,' * 2_000_000 + b'"":1}'), "more than 1000000 values"),
        (page(*[b"{}"] * 30_000), f"more than {MOST_ENTRIES} entries"),
        (page(*[b"1"] * 30_000), f"more than {MOST_ENTRIES} entries"),
        (page(*[b"{}"] * 30_000, pad=PAD), f"more than {MOST_ENTRIES} entries"),
    ],
    ids=range(9),
)
def test_every_limit_is_named(body: bytes, words: str) -> None:
    """Above a limit nothing is expanded, and the words name the limit. What it costs is held in
    `tests/guarantee/test_foreign.py`."""
    with pytest.raises(Oversized, match=words):
        read_page(body)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        *((text, "used") for text in ("é", "\\", '"', "{", ",", '{"a":[1,2]},', "ab\\", "\ud83d")),
        *(("a", place) for place in ("used", "unknown", "name", "deep")),
    ],
    ids=range(12),
)
def test_a_long_text_sets_its_record_aside(text: str, place: str) -> None:
    """A text above the limit, of whatever it consists and wherever in a record it stands, costs
    that record alone, which is kept with the reason and what is not too long; the others of its
    page are read."""
    size = len(json.dumps(text)) - 2
    long = text * (LONGEST_TEXT // size + 10)
    fields: dict[str, dict[str, Any]] = {
        "used": {"user": {"fullName": long}},
        "unknown": {"payload": long},
        "name": {long: 1},
        "deep": {"x": [{"y": [[long]]}]},
    }
    odd = json.dumps(entry(2, **fields[place])).encode()
    got = read_page(page(entry(1), odd, entry(3), entry(4, name="x" * (LONGEST_TEXT // 2))))
    assert [r.notification.id for r in got.records] == [f"{n:024x}" for n in (1, 3, 4)]
    (bad,) = got.bad
    assert bad.index == 1
    assert f"above the limit of {LONGEST_TEXT} for one field" in bad.reason
    kept = bad.text()
    assert len(kept) < 2000 and json.loads(kept)["_id"] == f"{2:024x}"
    assert "[cut by otel-alloy: a text of " in kept
    assert read_notification(kept).id == f"{2:024x}"  # `rejected retry` can send it


@pytest.mark.parametrize("size", [LONGEST_TEXT - 1, LONGEST_TEXT, LONGEST_TEXT + 1])
def test_the_limit_is_exact(size: int) -> None:
    """A byte more than the limit, and not a byte less."""
    got = read_page(page(entry(1, x="x" * size), pad=PAD))
    assert len(got.bad) == (size > LONGEST_TEXT)


def test_what_has_been_cut_is_the_same_each_time() -> None:
    """The same record, read again in another page, is the same bad record: it is set aside once."""
    odd = entry(2, x="x" * 2_000_000)
    one = read_page(page(entry(1), odd)).bad[0]
    two = read_page(page(odd, entry(5), entry(6))).bad[0]
    assert one.identity == two.identity and one.text() == two.text()


def test_texts_are_no_structure() -> None:
    """Brackets and commas within texts count for nothing: JSON in JSON, as payloads are."""
    inner = json.dumps({"a": [{"b": [1, 2, 3]}] * 2000}) * 10
    got = read_page(page(*(entry(n, x=inner) for n in range(60))))
    assert len(got.records) == 60 and not got.bad


def test_large_usual_pages_pass() -> None:
    """The largest page that can be asked for, of long records, is read as it is."""
    body = page(*(entry(n, x=["y" * 300] * 4) for n in range(10_000)))
    assert len(body) > 10_000_000 and bounded(body) == (body, False)
    assert len(read_page(body).records) == 10_000


def test_nesting_and_a_long_text_together() -> None:
    """The record that is too deep is cut there, or set aside where this Python's parser goes deeper
    than the rest of it; the one with the long text is set aside, the others are read."""
    deep = b'{"_id":"d","message":"executionError","x":' + b"[" * 5000 + b"]" * 5000 + b"}"
    got = read_page(page(deep, entry(1, x="x" * 2_000_000), entry(2)))
    read = [r.notification.id for r in got.records]
    assert read in (["d", f"{2:024x}"], [f"{2:024x}"]) and len(read) + len(got.bad) == 3
    assert any("text of 2000000 bytes" in entry.reason for entry in got.bad)


PIECES = [b'"', b"\\", b'\\"', b"{", b"}", b"[", b"]", b",", b":", b"1", b" ", b"a" * 70, b"\xff"]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=60).map(b"".join), st.booleans())
def test_the_look_is_total(text: bytes, many: bool) -> None:
    """Any bytes are bounded, or Oversized; a text that is called JSON stays the JSON that it is,
    but for what is cut."""
    patch = pytest.MonkeyPatch()
    patch.setattr(outline, "LONGEST_TEXT", 50)
    patch.setattr(outline, "MOST_CONTAINERS", 5)
    patch.setattr(outline, "MOST_VALUES", 8)
    try:
        made, cut = bounded(text * 3 if many else text)
    except outline.Oversized as error:
        assert len(str(error)) < 100
    else:
        assert cut or made == (text * 3 if many else text)
    finally:
        patch.undo()


@settings(deadline=None, max_examples=300)
@given(st.recursive(st.text(max_size=80) | st.integers(), lambda i: st.lists(i, max_size=4)))
def test_the_look_agrees_with_the_parser(value: Any) -> None:
    """Exactly the texts that the parser finds too long are cut, and nothing else is changed."""
    patch = pytest.MonkeyPatch()
    patch.setattr(outline, "LONGEST_TEXT", 50)
    body = json.dumps([value, " " * 51]).encode()

    def expected(one: Any) -> Any:
        if isinstance(one, list):
            return [expected(o) for o in one]
        raw = len(json.dumps(one)) - 2 if isinstance(one, str) else 0
        return ("cut", raw) if raw > 50 else one

    def found(one: Any) -> Any:
        if isinstance(one, list):
            return [found(o) for o in one]
        mark = outline._CUT.search(one) if isinstance(one, str) else None
        return ("cut", int("".join(filter(str.isdigit, mark[0])))) if mark else one

    try:
        made, cut = bounded(body)
    finally:
        patch.undo()
    assert cut and found(json.loads(made)) == expected([value, " " * 51])


@pytest.mark.parametrize(
    "mark", [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff"]
)
def test_a_byte_order_mark(mark: bytes) -> None:
    """JSON with a mark before it is JSON, in the encoding that the mark names."""
    names = {3: "utf-8", 4: "utf-32"}
    encoding = names.get(len(mark), "utf-16") + ("" if len(mark) == 3 else "-le")
    if mark[-1:] == b"\xff" and len(mark) != 3:
        encoding = encoding.replace("-le", "-be")
    text = page(entry(1, user={"fullName": "Zoë"})).decode()
    got = read_page(mark + text.encode(encoding))
    assert got.records[0].notification.user.fullName == "Zoë"  # type: ignore[union-attr]
    for body in (mark, mark + b"\xff", mark + b"<html>"):
        with pytest.raises(Unreadable):
            read_page(body)


@pytest.mark.parametrize(
    "body",
    [
        '{"data":null,"pagination":{"totalItems":0}}',
        '{"notifications":null,"pagination":{"totalItems":0}}',
        '{"data":{"notifications":null,"pagination":{"totalItems":0}}}',
        '{"data":{"notifications":null},"pagination":{"totalItems":0}}',
    ],
)
def test_null_with_evidence_is_an_empty_page(body: str) -> None:
    """null instead of entries is none where the answer itself counts none."""
    got = read_page(body.encode())
    assert got.received == 0


@pytest.mark.parametrize(
    "body",
    [
        '{"data":null}',
        '{"notifications":null}',
        '{"data":{"notifications":null}}',
        '{"data":null,"pagination":null}',
        '{"data":null,"pagination":{"totalItems":5}}',
        '{"data":null,"pagination":{"totalItems":null}}',
        '{"data":null,"pagination":{"totalItems":false}}',
        '{"data":null,"pagination":{"totalItems":"0"}}',
    ],
)
def test_null_without_evidence_is_no_page(body: str) -> None:
    """null by itself does not say that there is nothing: it is said, and asked again."""
    with pytest.raises(Unreadable, match="is null, and no `totalItems` of 0"):
        read_page(body.encode())
