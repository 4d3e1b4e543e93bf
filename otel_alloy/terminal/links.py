"""Trace ids on a terminal: whole, and links where `trace_url` is set.

A terminal that knows hyperlinks (OSC 8) gets the id as one; any other gets the address in plain
text where a line has room for it, and most terminals make that a link by themselves. Nothing else
than a terminal gets an escape sequence. What a link holds is what `otel_alloy.links` makes: an id
is bytes, shown in hexadecimal, so no text from outside gets into a sequence.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import IO

from rich.console import Console
from rich.style import Style
from rich.text import Text

from otel_alloy.links import TraceUrl

ID_WIDTH = 32

_SINCE = {"iTerm.app": (3, 1), "vscode": (1, 72), "WezTerm": (20200620, 0)}
"""TERM_PROGRAM, and the version from which on it knows hyperlinks."""
_PROGRAMS = frozenset(("ghostty", "zed"))
_TERMS = frozenset(("alacritty", "foot", "foot-extra", "wezterm", "xterm-ghostty", "xterm-kitty"))
_VTE = 5000
"""0.50, as VTE_VERSION has it."""


def knows_hyperlinks(file: IO[str], environment: Mapping[str, str]) -> bool:
    """Whether `file` is a terminal that shows OSC 8 as links. None tells, so it goes by what is
    known of terminals, in the way of the npm package supports-hyperlinks; FORCE_HYPERLINK says it
    for a terminal (0: it does not), never for a pipe or a file."""
    try:
        if not file.isatty():
            return False
    except ValueError:  # closed
        return False
    if forced := environment.get("FORCE_HYPERLINK", "").strip():
        return not re.fullmatch(r"0+|false|no", forced, re.IGNORECASE)
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if term == "dumb" or environment.get("CI") or environment.get("TEAMCITY_VERSION"):
        return False
    if environment.get("WT_SESSION"):  # Windows Terminal
        return True
    if sys.platform == "win32":
        return False
    if program in _SINCE:
        return _version(environment.get("TERM_PROGRAM_VERSION", "")) >= _SINCE[program]
    vte = environment.get("VTE_VERSION", "")
    if vte.isascii() and vte.isdigit():
        return int(vte) >= _VTE
    return program in _PROGRAMS or term in _TERMS


def _version(text: str) -> tuple[int, int]:
    found = re.match(r"(\d{1,9})(?:\.(\d{1,9}))?", text)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


class TraceLinks:
    """How trace ids are shown. `url`: where traces can be looked at, None where that is not set;
    `hyperlinks`: whether the terminal knows them."""

    def __init__(self, url: TraceUrl | None = None, hyperlinks: bool = False) -> None:
        self._url = url
        self.hyperlinks = hyperlinks and url is not None
        """Whether ids are links as they stand."""

    @classmethod
    def on(
        cls, console: Console, url: TraceUrl | None, environment: Mapping[str, str]
    ) -> TraceLinks:
        """For this console. `environment`: of the process."""
        return cls(url, knows_hyperlinks(console.file, environment))

    def address(self, trace_id: bytes, span_id: bytes) -> str | None:
        """Where the trace can be looked at, for output that is text or JSON."""
        return None if self._url is None else self._url.link(trace_id, span_id)

    def id(self, trace_id: bytes, span_id: bytes) -> Text:
        """The trace id, whole, and a link where the terminal knows them."""
        address = self.address(trace_id, span_id) if self.hyperlinks else None
        # As a part of the text, so that what pads it in a cell is no link.
        return Text(no_wrap=True).append(trace_id.hex(), Style(color="cyan", link=address))

    def plain(self, trace_id: bytes, span_id: bytes, room: int) -> Text | None:
        """The address where the id is not a link by itself and `room` columns are enough for it."""
        address = None if self.hyperlinks else self.address(trace_id, span_id)
        if address is None or len(address) > room:
            return None
        return Text(address, "cyan", no_wrap=True)

    def within(self, words: str, trace_id: bytes, span_id: bytes) -> Text:
        """The words, with the trace id a link where they name it."""
        text, address = Text(words), self.address(trace_id, span_id)
        if address is not None:
            text.highlight_words([trace_id.hex()], Style(link=address))
        return text
