"""The blocks of the documentation: which there are, where they stand, what commands they hold.

Found by CommonMark's rules, so that a block is what a forge shows as one. How a block is run is the
matter of `table.py`.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt

REPOSITORY = Path(__file__).parents[3]
UNREAD = frozenset(("CHANGELOG.md",))
"""What was true once need not be true now."""


@dataclass(frozen=True)
class Command:
    """What is typed at once: a line, or several that backslashes join."""

    page: str
    line: int
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def essence(self) -> str:
        """The command without variables before it and comments after it."""
        return re.sub(r"^(\w+=\S* +)*|(?m:\s+#.*$)", "", self.text)


@dataclass(frozen=True)
class Block:
    """A fenced or indented block of a page."""

    page: str
    line: int
    """Of its first line of text."""
    section: str
    language: str
    """As its fence says; empty where it says none."""
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> Iterator[Command]:
        """The commands of a shell block, without those lines that are comments or empty."""
        held: list[str] = []
        for number, line in enumerate(self.text.splitlines()):
            held.append(line)
            if not line.endswith("\\"):
                text = "\n".join(held)
                if not re.match(r"\s*(#|$)", text):
                    yield Command(self.page, self.line + number - len(held) + 1, text)
                held = []
        assert not held, f"{self.where}: the block ends in a backslash"


def blocks_of(page: str, text: str) -> list[Block]:
    """The blocks of one page, in order."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    found, section = [], ""
    for before, token in zip([None, *tokens], tokens, strict=False):
        if before is not None and before.type == "heading_open":
            section = token.content
        if token.type in ("fence", "code_block") and token.map is not None:
            line = token.map[0] + (2 if token.type == "fence" else 1)
            found.append(Block(page, line, section, token.info.strip(), token.content))
    return found


def code_in(page: str, text: str) -> Iterator[Command]:
    """What stands as code within the words of a page."""
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        for child in token.children or ():
            if child.type == "code_inline" and token.map is not None:
                yield Command(page, token.map[0] + 1, child.content)


@cache
def pages() -> dict[str, str]:
    """The text of each page of the repository, by its path, in order."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = sorted(set(filter(None, listed.split("\0"))) - UNREAD)
    return {
        name: (REPOSITORY / name).read_text("utf-8")
        for name in names
        if (REPOSITORY / name).exists()
    }
