"""What a person did who wrote YAML that is none, and the line where that is, as it may be shown.

PyYAML's words are a parser's ("mapping values are not allowed here"), and its place is where it
gave up, which for a quote that is not closed is the end of the file. Here they become a cause and
the place where somebody has to look.

The line may hold a part of a key, and a broken file does not say what belongs to what. So of a line
only what cannot be one is shown: names of settings, and numbers, durations and the like behind
them; signs; and nothing at all behind or below a name that promises a secret.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import yaml

from otel_alloy.near import nearest

_QUOTE = "a quote begins here and does not end; close it, or write no quotes at all"
_TAB = "a tab stands where only spaces may; indent with spaces"
_NO_COLON = "there is no colon in this line; write `name: value`, with a space behind the colon"
_COLON = "there is a second colon in this line; put a value with a colon in it into quotes"
_INDENT = (
    "this line is indented otherwise than those it belongs to; names of one level begin in one "
    "column"
)
_SPECIAL = "no text may begin with the character here; put the text into quotes"
_ALIAS = (
    "an undefined alias: a text that begins with * repeats what is marked with & elsewhere; put it "
    "into quotes where a text is meant"
)
_BRACKET = "a {sign} begins here and does not end, or a comma is missing in it"
_OPEN = "a { or [ before this place does not end, or a value is missing here"
_NOTHING = "a value is missing here, or a character stands here that nobody needs"
_INNER_QUOTE = (
    "a quote within quotes ends them; write '' for one within single quotes, or put double quotes "
    "around"
)
_ESCAPE = "in double quotes \\ begins an escape, and this is none; write \\\\, or use single quotes"
_TAG = "a text that begins with ! is a tag, and not one that is known; put it into quotes"
_TWO = "a second document begins here; write one, without a line --- in between"
_CONTROL = "there is a control character in the text; remove it"
_OTHER = "it is not YAML"


class _At(NamedTuple):
    """From 0, as PyYAML's marks."""

    line: int
    column: int


def cause(error: yaml.YAMLError, text: str) -> tuple[str, int, int]:
    """What is wrong, in words that may be shown; and line and column, from 1, or 0 where they
    cannot be told."""
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        line = before.count("\n") + 1
        return f"{_OTHER}: {_CONTROL}", line, error.position - before.rfind("\n")
    problem, context = getattr(error, "problem", None) or "", getattr(error, "context", None) or ""
    mark, context_mark = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    lines = text.splitlines()
    words, at = _cause(problem, context, mark, context_mark, lines)
    if at is None:
        return words, 0, 0
    return words, at.line + 1, at.column + 1


def _cause(
    problem: str, context: str, mark: Any, begun: Any, lines: Sequence[str]
) -> tuple[str, Any]:
    """The words, and the mark at which to look."""
    here = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    if "quoted scalar" in context and ("end of stream" in problem or "document sep" in problem):
        return f"{_OTHER}: {_QUOTE}", begun or mark
    if "escape" in problem:
        return f"{_OTHER}: {_ESCAPE}", mark
    if problem.startswith("found character"):
        tab = here[mark.column : mark.column + 1] == "\t" if mark is not None else False
        return f"{_OTHER}: {_TAB if tab else _SPECIAL}", mark
    if "could not find expected ':'" in problem:
        return f"{_OTHER}: {_NO_COLON}", begun or mark
    if "mapping values are not allowed" in problem:
        return _second_colon(mark, here, lines)
    if problem.startswith("found undefined alias"):
        return f"{_OTHER}: {_ALIAS}", mark
    if "single document" in context:
        return f"{_OTHER}: {_TWO}", mark
    if "alias" in context or "anchor" in context:
        return f"{_OTHER}: {_SPECIAL}", begun or mark
    if "flow node" in context:
        return f"{_OTHER}: {_OPEN}", mark
    if "flow" in context:
        return f"{_OTHER}: {_BRACKET.format(sign='{' if 'mapping' in context else '[')}", begun
    if "tag" in problem or "tag" in context:
        return f"{_OTHER}: {_TAG}", mark or begun
    if "but found '<scalar>'" in problem and here[: mark.column].count("'") > 1:
        return f"{_OTHER}: {_INNER_QUOTE}", mark
    if re.search(r"but found '[]},]'", problem):
        return f"{_OTHER}: {_NOTHING}", mark
    if "block" in context or "unexpected indent" in problem:
        return f"{_OTHER}: {_INDENT}", mark
    if "expected the node content" in problem or "expected '<document start>'" in problem:
        return f"{_OTHER}: {_NOTHING}", mark
    return _OTHER, mark or begun


def _second_colon(mark: Any, here: str, lines: Sequence[str]) -> tuple[str, Any]:
    """A colon where none may be: because there was one before, because the line before has none,
    or because the line is indented as if it belonged to one that has a value."""
    if re.search(r":\s", here[: mark.column]):
        return f"{_OTHER}: {_COLON}", mark
    for number in range(mark.line - 1, -1, -1):
        before = lines[number]
        if before.strip() and not before.lstrip().startswith("#"):
            if re.search(r":(\s|$)", before):
                break
            return f"{_OTHER}: {_NO_COLON}", _At(number, _depth(before))
    return f"{_OTHER}: {_INDENT}", _At(mark.line, _depth(here))


# The line itself ----------------------------------------------------------------------------------

_SECRETIVE = re.compile(
    r"key|secret|token|passw|auth|credential|cookie|header|bearer|storage", re.IGNORECASE
)
_PIECE = re.compile(r"[\w.][\w.+-]*|[\s:,{}\[\]\"'#|>?-]|.", re.DOTALL)
_PLAIN = re.compile(r"\d{1,6}(ms|s|m|min|h|d|w)?|true|false|yes|no|null", re.IGNORECASE)
_SIGNS = frozenset(" :,{}[]\"'#|>?-&*!%")
_HIDDEN = "…"
_WIDEST = 100


def shown_line(lines: Sequence[str], line: int, column: int, known: Collection[str]) -> list[str]:
    """The line (from 1) with its number, as it may be shown, and a line with a caret below
    `column`. `known`: names of settings and of their choices. Empty where there is no such line."""
    if not 0 < line <= len(lines):
        return []
    text = ""
    caret = 0
    for begin, piece, hidden in _pieces(lines, line - 1, known):
        if begin < column:
            caret = len(text) + (0 if hidden else column - 1 - begin)
        if not (hidden and text.endswith(_HIDDEN)):
            text += _HIDDEN if hidden else piece.replace("\t", "→")
        elif begin < column:
            caret = len(text) - 1
    first = max(0, min(caret - _WIDEST // 2, len(text) - _WIDEST))
    number = f"{line:>5} | "
    return [
        number + text[first : first + _WIDEST].rstrip(),
        " " * (len(number) - 2) + "| " + " " * (caret - first) + "^",
    ]


def _pieces(
    lines: Sequence[str], index: int, known: Collection[str]
) -> Iterator[tuple[int, str, bool]]:
    """What the line consists of: where it begins, the text, and whether it has to be hidden."""
    secret = _below_secret(lines, index)
    named = promised = False
    at_start = True
    for found in _PIECE.finditer(lines[index]):
        piece = found[0]
        if promised and piece not in ": ":  # but for the colon, nothing more
            secret, promised = True, False
        if piece in _SIGNS or piece == "\t":
            yield found.start(), piece, secret and not at_start
            at_start = at_start and piece in " -{[\t"
            continue
        is_name = piece in known and (at_start or not secret)
        if at_start and not secret and re.fullmatch(r"[a-z_.]+", piece):
            is_name = is_name or nearest(piece, known) is not None
        is_plain = named and not secret and _PLAIN.fullmatch(piece) is not None
        yield found.start(), piece, not (is_name or is_plain)
        promised = promised or (not secret and _SECRETIVE.search(piece) is not None)
        named = named or is_name
        at_start = False


def _below_secret(lines: Sequence[str], index: int) -> bool:
    """Whether a line above, to which this one may belong, promises a secret."""
    depth = _depth(lines[index])
    for before in reversed(lines[:index]):
        if not before.strip():
            continue
        if _depth(before) < depth:
            depth = _depth(before)
            if _SECRETIVE.search(before):
                return True
        if not depth:
            break
    return False


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())
