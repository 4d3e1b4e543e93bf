"""Addresses with `{field}`s that the user sets, and links made of them.

A pattern is checked as a whole before anything is made of it, and what is filled in is
percent-encoded, so that whatever a value holds, the link is printable ASCII, leads to the host
that the pattern names, and can stand in a terminal's escape sequence, in HTML and in JSON. Nothing
is printed here, and nothing fetched.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import quote

MOST_CHARACTERS = 1500
"""Terminals take links of about 2,000; what is filled in needs room."""

_FIELD = re.compile(r"\{([^{}]*)\}")
_USUAL = re.compile(r"[A-Za-z0-9_-]+")
"""What ids are made of, and needs no encoding."""
_BEGIN = re.compile(r"(?i:https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>\d{1,5}))?")
_REST = re.compile(r"([/?#]([A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)?")


@dataclass(frozen=True, slots=True)
class UrlPattern:
    """`parts`: text as it stands and names of fields, in turn; the first and the last are text."""

    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, *, fields: Collection[str], required: Collection[str]) -> UrlPattern:
        """`text`, understood. It may have `fields`, and `required` ones have to be there, after
        the host. Raises ValueError with the mistake and what to write."""
        known = " or ".join(f"{{{name}}}" for name in fields)
        if len(text) > MOST_CHARACTERS:
            raise ValueError(f"it is longer than {MOST_CHARACTERS:,} characters; shorten it")
        parts = tuple(_FIELD.split(text))
        begin = _BEGIN.match(text)
        if begin is None or (begin["port"] and not 0 < int(begin["port"]) < 65536):
            raise ValueError(
                "write a URL with http:// or https:// and a host, without user and password"
            )
        for name in parts[1::2]:
            if name not in fields:
                raise ValueError(f"there is no {{{name[:40]}}}; it may have {known}")
        # A stand-in for the fields that may stand where a value may: not in the host.
        if not _REST.fullmatch("a".join((parts[0][begin.end() :], *parts[2::2]))):
            raise ValueError(
                "after the host it may hold only what URLs may, from a / on; write other "
                "characters percent-encoded, such as %7B for {"
            )
        for name in required:
            if name not in parts[1::2]:
                raise ValueError(f"{{{name}}} is missing; write it where the value belongs")
        return cls(parts)

    def has(self, fields: Collection[str]) -> bool:
        """Whether any of these has a place in it."""
        return not set(fields).isdisjoint(self.parts[1::2])

    def partly(self, values: Mapping[str, str]) -> UrlPattern | None:
        """The pattern with these fields filled in, the others as they are; None where a value is
        missing that has a place in it."""
        made = [self.parts[0]]
        for name, text in zip(self.parts[1::2], self.parts[2::2], strict=True):
            if name not in values:
                made += name, text
                continue
            value = _encoded(values[name])
            if not value:
                return None
            made[-1] += value + text
        return UrlPattern(tuple(made))

    def fill(self, values: Mapping[str, str]) -> str | None:
        """The link with these values; None where one is missing."""
        parts = self.parts
        if len(parts) == 3:  # by far the most, and for each execution
            value = _encoded(values.get(parts[1], ""))
            return parts[0] + value + parts[2] if value else None
        pattern = self.partly(values)
        return None if pattern is None or len(pattern.parts) > 1 else pattern.parts[0]


def _encoded(value: str) -> str:
    """Percent-encoded; "" for what is no segment of a path: nothing, and what would move it."""
    if _USUAL.fullmatch(value):
        return value
    return "" if value in (".", "..") else quote(value, safe="", errors="replace")


@dataclass(frozen=True, slots=True)
class TraceUrl:
    """Where a trace can be looked at: in Jaeger, Grafana or whatever shows traces."""

    pattern: UrlPattern

    @classmethod
    def parse(cls, text: str) -> TraceUrl:
        """A pattern such as `http://localhost:16686/trace/{trace_id}`. Raises ValueError."""
        fields = ("trace_id", "span_id")
        return cls(UrlPattern.parse(text, fields=fields, required=fields[:1]))

    def link(self, trace_id: bytes, span_id: bytes) -> str:
        """The link to a span in its trace."""
        made = self.pattern.fill({"trace_id": trace_id.hex(), "span_id": span_id.hex()})
        if made is None:
            raise ValueError("an id is empty")
        return made
