"""Reads chosen parts of a JSON text and passes over the rest, from front to back.

Answers about steps hold customers' payload. What is not asked for by name is never built here: no
text, no list, no number of it exists as an object, so that none can be kept, logged or sent, and
memory does not grow with it. What is asked for are short texts, numbers and truth values; the
structure around them is walked by whoever asks. No field of Alloy's is known here.

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
"""Members, items and deep brackets looked at in one text: about four seconds."""
DEEPEST = 1000
"""Levels of what is passed over."""
LONGEST_NUMBER = 30
"""Digits; a longer one is nothing that Alloy counts."""

# Possessive throughout: else the engine keeps a way back for each character.
_SPACE = rb"[ \t\r\n]*+"
_REST_OF_TEXT = rb'(?:[^"\\]++|\\.)*+"'


def _run(levels: int) -> bytes:
    """What stands side by side, with what is nested in it by so many levels, up to a bracket that
    nests deeper or that closes what is open."""
    nested = rb"|[\[{]" + _run(levels - 1) + rb"[\]}]" if levels else b""
    return rb'(?:[^"\[\]{}]++|"' + _REST_OF_TEXT + nested + rb")*+"


_RUN = re.compile(_run(8), re.DOTALL)
_TEXT = re.compile(rb'"' + _REST_OF_TEXT, re.DOTALL)
_WORD = re.compile(rb'[^\s,:"\[\]{}]++')
_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_BLANK = re.compile(_SPACE)
_WORDS = {b"true": True, b"false": False}
_MARK = b"\xef\xbb\xbf"

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
            self._leave()
            return
        found = (_TEXT if first == b'"' else _WORD).match(self._body, self._at)
        if found is None:
            raise self._broken()
        self._at = found.end()

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
        self._leave()

    def _leave(self) -> None:
        """From anywhere inside an object or list to behind its end."""
        body, depth = self._body, 1
        while depth:
            found = _RUN.match(body, self._at)
            end = self._at if found is None else found.end()
            byte = body[end : end + 1]
            if not byte or byte == b'"':
                raise self._broken()
            depth += 1 if byte in b"{[" else -1
            self._at = end + 1
            self._look()
            if depth > DEEPEST:
                raise Oversized(f"it is nested too deeply (more than {DEEPEST} levels)")

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
