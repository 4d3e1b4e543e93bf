"""Reads chosen parts of a JSON text and passes over the rest, from front to back.

Answers about steps hold customers' payload. What is not asked for by name is never built here: no
text, no list, no number of it becomes an object, so that none can be kept, logged or sent, and
memory does not grow with it. A long value is passed over in pieces of at most 64 KB, of which only
quotes and brackets are looked at, and which are gone at once. What is asked for are short texts,
numbers and truth values; the structure around them is walked by whoever asks. No field of Alloy's
is known here.

What is passed over is not checked: whether it is well-formed does not matter to what was asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache

from otel_alloy.alloy.models import Oversized, Unreadable

MOST = 1000
"""Members of one object, and items of one list, that are looked at; further ones are passed over.
Alloy gives pages of 30."""
MOST_LOOKS = 4_000_000
"""Members and items looked at in one text: about four seconds."""
DEEPEST = 500
"""Levels of what is passed over."""
LONGEST_NUMBER = 30
"""Digits; a longer one is nothing that Alloy counts."""

_NEAR, _FAR = 1024, 16_384
"""Bytes that are passed over at once: while the end is near, and where it is not."""
_ESCAPED = 8
"""Quotes within a text that are passed over one by one."""

# Possessive throughout: else the engine keeps a way back for each character.
_SPACE = rb"[ \t\r\n]*+"
_REST_OF_TEXT = rb'[^"\\]*+(?:\\.[^"\\]*+)*+"'


def _run(levels: int) -> bytes:
    """What stands side by side, with what is nested in it by so many levels, up to a bracket that
    nests deeper or that closes what is open."""
    nested = rb"|[\[{]" + _run(levels - 1) + rb"[\]}]" if levels else b""
    part = rb'(?:"' + _REST_OF_TEXT + nested + rb")"
    return rb'[^"\[\]{}]*+(?:' + part + rb'[^"\[\]{}]*+)*+'


_RUN = re.compile(_run(4), re.DOTALL)
_BEGINNING = re.compile(rb"\{" + _SPACE + rb'"\w{1,40}"' + _SPACE + rb":", re.DOTALL)
_REST = re.compile(_REST_OF_TEXT, re.DOTALL)
_WORD = re.compile(rb'[^\s,:"\[\]{}]++')
_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_BLANK = re.compile(_SPACE)
_WORDS = {b"true": True, b"false": False}
_MARK = b"\xef\xbb\xbf"
_OPEN, _CLOSED, _BACKSLASH = b"[", b"]", 0x5C
_BRACKETS = bytes.maketrans(b"{}", _OPEN + _CLOSED)
_OTHERS = bytes(byte for byte in range(256) if byte not in b'"[]{}')

Scalar = str | int | float | bool | None


@lru_cache
def _beginning(characters: int) -> re.Pattern[bytes]:
    """So much of a text, and a little more: one character takes up to four bytes."""
    some = rb"{0,%d}+" % (4 * characters)
    return re.compile(rb'"(?:[^"\\]|\\u[0-9a-fA-F]{4}|\\[^u])' + some, re.DOTALL)


class Names:
    """The names of members that are wanted. One that is written with escapes is not found: nobody
    writes these so."""

    __slots__ = ("pattern",)

    def __init__(self, *names: str) -> None:
        wanted = b"|".join(re.escape(name.encode()) for name in names)
        self.pattern = re.compile(
            rb'"(?:(' + wanted + rb')"|' + _REST_OF_TEXT + rb")" + _SPACE + rb":" + _SPACE,
            re.DOTALL,
        )


class Skim:
    """A JSON text. Each method reads the value at which it stands and moves behind it; what is no
    such value is passed over. Raises Unreadable where the text is no JSON or ends too early, and of
    these Oversized after so many `looks`."""

    __slots__ = ("_at", "_body", "_looks")

    def __init__(self, body: bytes, looks: int = MOST_LOOKS) -> None:
        self._body = body
        self._looks = looks
        self._at = len(_MARK) if body.startswith(_MARK) else 0
        self._blank()
        if self._here() not in b"[{":
            start = body[:200].lstrip()[:15].lower()
            if start.startswith((b"<!doctype", b"<html")):
                raise Unreadable("it is an HTML page, not JSON")
            raise Unreadable("it is neither an object nor a list")

    def members(self, names: Names) -> Iterator[str]:
        """The name of each wanted member of an object, in its order, once for each time that it
        stands there. Its value is the next to be read; it is passed over where it is not."""
        body, match = self._body, names.pattern.match
        for _ in self._inside(b"{", b"}"):
            found = match(body, self._at)
            if found is None:
                raise self._broken()
            value = self._at = found.end()
            if found[1] is not None:
                yield found[1].decode()
            if self._at == value:
                self.skip()

    def items(self) -> Iterator[None]:
        """Once for each item of a list. It is the next to be read; it is passed over where it is
        not."""
        return self._inside(b"[", b"]")

    def beginning(self) -> bytes:
        """The first bytes of an object, up to its first value; no byte of that."""
        found = _BEGINNING.match(self._body, self._at)
        return b"" if found is None else found[0]

    def opens(self) -> bytes:
        """The first byte of the value here, which tells its kind. It stays to be read."""
        return self._here()

    def scalar(self, longest: int) -> Scalar:
        """A text, of which `longest` characters are read; a number; a truth value. None for null,
        for objects and lists, and for what has no meaning."""
        begin, first = self._at, self._here()
        self.skip()
        if first == b'"':
            return self._text(begin, longest)
        if first in b"{[":
            return None
        word = self._body[begin : min(self._at, begin + LONGEST_NUMBER + 1)]
        if word in _WORDS:
            return _WORDS[word]
        if len(word) > LONGEST_NUMBER or _NUMBER.fullmatch(word) is None:
            return None
        return int(word) if word.lstrip(b"-").isdigit() else float(word)

    def size(self) -> int:
        """How many bytes the value takes, which is passed over."""
        begin = self._at
        self.skip()
        return self._at - begin

    def skip(self) -> None:
        """Passes over any value."""
        first = self._here()
        if first in b"{[":
            self._at += 1
            self.leave()
        elif first == b'"':
            self._at = self._text_end(self._at)
        elif (found := _WORD.match(self._body, self._at)) is not None:
            self._at = found.end()
        else:
            raise self._broken()

    def leave(self) -> None:
        """From inside an object or list, behind its end. Whoever walks its parts stops there."""
        body, at, depth = self._body, self._at, 1
        found = _RUN.match(body, at, at + _NEAR)
        near = at if found is None else found.end()
        if near < at + _NEAR and body[near : near + 1] in (b"]", b"}"):
            self._at = near + 1
            return
        at, depth = self._far(at)
        while depth:
            found = _RUN.match(body, at)
            at = at if found is None else found.end()
            byte = body[at : at + 1]
            if not byte or byte == b'"':
                raise Unreadable("it is cut off")
            depth += 1 if byte in b"{[" else -1
            at += 1
        self._at = at

    def leave_before(self, next_item: bytes) -> None:
        """The same where an item of a list is left and the next one is likely to begin with these
        bytes: where it does, that is found at once."""
        body, begin = self._body, self._at
        found = body.find(next_item, begin, begin + 4 * _FAR)
        end = body.rfind(b"}", begin, found) if found > 0 else -1
        # The bracket at the end closes what is left, and nothing closed it before.
        if (
            end >= 0
            and body[end + 1 : found].strip() == b","
            and _structure(body[begin:end], False) == (0, 0, False)
        ):
            self._at = end + 1
            return
        self.leave()

    def _far(self, at: int) -> tuple[int, int]:
        """A place near the end of what begins before `at`, outside of texts, and how many levels
        are open there."""
        body, depth, in_text = self._body, 1, False
        size, shrinks = _FAR // 4, False
        while size >= _NEAR:
            end = at + size
            while body[end - 1 : end] == b"\\":  # what it stands for follows
                end += 1
            closing, opening, text_goes_on = _structure(body[at:end], in_text)
            if closing >= depth:
                size, shrinks = size // 2, True
                continue
            if end >= len(body):
                raise Unreadable("it is cut off")
            at, in_text, depth = end, text_goes_on, depth + opening - closing
            if depth > DEEPEST:
                raise Oversized(f"it is nested too deeply (more than {DEEPEST} levels)")
            if not shrinks:
                size = min(2 * size, _FAR)
        return (self._text_end(at - 1) if in_text else at), depth

    def _inside(self, opening: bytes, closing: bytes) -> Iterator[None]:
        """Stands at each part of what `opening` begins, and at last behind it."""
        if self._here() != opening:
            self.skip()
            return
        self._at += 1
        self._blank()
        if self._here() == closing:
            self._at += 1
            return
        for _ in range(MOST):
            self._look()
            part = self._at
            yield None
            if self._at == part:
                self.skip()
            self._blank()
            if self._here() == closing:
                self._at += 1
                return
            if self._here() != b",":
                raise self._broken()
            self._at += 1
            self._blank()
        self.leave()

    def _text_end(self, begin: int) -> int:
        """Behind the text that begins, or goes on, after the byte at `begin`."""
        body, quote = self._body, begin
        for _ in range(_ESCAPED):
            quote = body.find(b'"', quote + 1)
            before = quote - 1
            while before > begin and body[before] == _BACKSLASH:
                before -= 1
            if quote < 0:
                break
            if (quote - before) % 2:
                return quote + 1
        else:
            if (found := _REST.match(body, quote + 1)) is not None:
                return found.end()
        raise Unreadable("it is cut off in a text")

    def _look(self) -> None:
        self._looks -= 1
        if self._looks < 0:
            raise Oversized("it holds more values than are looked at")

    def _text(self, begin: int, longest: int) -> str | None:
        kept = _beginning(longest).match(self._body, begin, self._at)
        if kept is None:
            return None
        try:
            text = json.loads(kept[0].decode("utf-8", "replace") + '"', strict=False)
        except ValueError:
            return None
        text = text[:longest].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return str(text)

    def _blank(self) -> None:
        found = _BLANK.match(self._body, self._at)
        if found is not None:
            self._at = found.end()

    def _here(self) -> bytes:
        byte = self._body[self._at : self._at + 1]
        if not byte:
            raise Unreadable("it is empty, or cut off")
        return byte

    def _broken(self) -> Unreadable:
        return Unreadable(f"it is not JSON, or cut off at byte {self._at}")


def _structure(piece: bytes, in_text: bool) -> tuple[int, int, bool]:
    """How many brackets a piece closes that it did not open, how many it opens and does not close,
    and whether it ends in a text. `in_text`: whether it begins in one. It does not begin or end
    between a backslash and what that stands for."""
    if b"\\" in piece:
        piece = _ESCAPE.sub(b"", piece)
    # Two quotes side by side have no bracket between them: whatever they begin or end, all else
    # stays inside or outside of texts as it was.
    left = piece.translate(_BRACKETS, _OTHERS).replace(b'""', b"")
    parts = left.split(b'"')
    left = b"".join(parts[int(in_text) :: 2])
    for _ in range(DEEPEST):
        shorter = left.replace(_OPEN + _CLOSED, b"")
        if len(shorter) == len(left):
            closing = left.count(_CLOSED)
            return closing, len(left) - closing, in_text ^ (len(parts) % 2 == 0)
        left = shorter
    raise Oversized(f"it is nested too deeply (more than {DEEPEST} levels)")
