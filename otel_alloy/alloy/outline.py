"""A cheap look at an answer's JSON before it is expanded into objects, which take up to some
hundred times its bytes: a page of 3 MB may hold a million `{}`.

What is small, as the pages of up to 1,000 records are, needs no look: the worst of its size was
measured at 130 MB. For the rest, upper bounds are taken from the bytes by what C does fast; only
where one is exceeded is the text read token by token, until a limit is reached. Nothing is parsed
here, and nothing is believed: whether it is JSON at all is found out later.
"""

from __future__ import annotations

import re

MOST_ENTRIES = 20_000
"""Entries of one page; the largest page that can be asked for has 10,000."""
MOST_CONTAINERS = 100_000
"""Objects and lists in one answer; a record has five."""
MOST_VALUES = 1_000_000
"""Values in one answer; a record has about thirty."""
LONGEST_TEXT = 1_048_576
"""Bytes of one text, as it is sent."""
CUT = "[cut by otel-alloy: a text of {} bytes]"
"""Stands where a longer one stood, after its beginning."""

_KEPT = 200
_CUT = re.compile(re.escape(CUT).replace(r"\{\}", "[0-9]+"))
_MOST_TOKENS = 4 * MOST_VALUES
_DEEP = 1000
_TOKEN = re.compile(rb'"[^"]*+"|[,\[\]{}]')


class Oversized(ValueError):
    """The answer is above a limit, which the message names."""


def bounded(body: bytes) -> tuple[bytes, bool]:
    """`body` with every text above LONGEST_TEXT cut, and whether there was one. Raises Oversized
    where it is larger than that and holds more than MOST_CONTAINERS or MOST_VALUES."""
    size = len(body)
    if size <= LONGEST_TEXT:
        return body, False
    masked = _masked(body)
    few = body.count(b"{") <= MOST_CONTAINERS and body.count(b"[") <= MOST_CONTAINERS
    # A value takes two bytes and more.
    few = few and (size <= 2 * MOST_VALUES or body.count(b",") < MOST_VALUES)
    if few and not _has_long_text(masked):
        return body, False
    long = _read(masked)
    return (_cut(body, long), True) if long else (body, False)


def cut_in(text: str) -> str | None:
    """Why a record whose JSON is `text` is not taken as it is: one of its texts was cut. Else
    None."""
    found = _CUT.search(text)
    if found is None:
        return None
    size = int(re.sub(r"\D", "", found[0]))
    return f"it holds a text of {size} bytes, above the limit of {LONGEST_TEXT} for one field"


def _masked(body: bytes) -> bytes:
    """`body` without escaped quotes, in as many bytes: each `"` left begins or ends a text."""
    if b"\\" not in body:
        return body
    return body.replace(b"\\\\", b"__").replace(b'\\"', b"__")


def _has_long_text(masked: bytes) -> bool:
    """Whether more than LONGEST_TEXT bytes follow each other without a `"`."""
    begin, size = 0, len(masked)
    while size - begin > LONGEST_TEXT:
        quote = masked.rfind(b'"', begin + 1, begin + LONGEST_TEXT + 2)
        if quote < 0:
            return True
        begin = quote
    return False


def _read(masked: bytes) -> list[tuple[int, int]]:
    """Where the long texts are, without their quotes. Raises Oversized."""
    long: list[tuple[int, int]] = []
    containers = values = depth = tokens = 0
    for found in _TOKEN.finditer(masked):
        tokens += 1
        begin, end = found.span()
        if end - begin > 1:
            if end - begin - 2 > LONGEST_TEXT:
                long.append((begin + 1, end - 1))
            continue
        byte = masked[begin]
        if byte == 0x2C:
            values += 1
        elif byte in b"[{":
            containers += 1
            depth += 1
        else:
            depth -= 1
        if containers > MOST_CONTAINERS:
            if depth > _DEEP:
                raise Oversized(f"its JSON is nested too deeply (more than {_DEEP} levels)")
            raise Oversized(f"it holds more than {MOST_CONTAINERS} objects and lists")
        if values >= MOST_VALUES or tokens > _MOST_TOKENS:
            raise Oversized(f"it holds more than {MOST_VALUES} values")
    if tokens > _MOST_TOKENS:
        raise Oversized(f"it holds more than {MOST_VALUES} values")
    return long


def _cut(body: bytes, long: list[tuple[int, int]]) -> bytes:
    pieces: list[bytes] = []
    done = 0
    for begin, end in long:
        kept = body[begin : min(end, begin + _KEPT)].partition(b"\\")[0].decode("utf-8", "ignore")
        pieces += body[done:begin], kept.encode(), CUT.format(end - begin).encode()
        done = end
    return b"".join([*pieces, body[done:]])
