"""Puts what is made from the code into the pages: `python docs/generated.py [--check]`.

A page wants it between two lines, which no forge shows::

    <!-- generated: NAME -->

    … whatever `reference.TABLES[NAME]` makes …

    <!-- end of generated -->

What is between them is committed, so a page is whole wherever it is read. `--check` writes nothing
and names what is not as the code has it now. How a table looks is `reference`'s matter.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from reference import REPOSITORY, TABLES

COMMAND = "make reference"
_BLOCK = re.compile(
    r"(^<!-- generated: (.+?) -->\n)(.*?)(^<!-- end of generated -->$)", re.M | re.S
)
_START = re.compile(r"^<!-- generated: (.+?) -->$", re.M)


class WrongPage(Exception):
    """A page wants what nothing makes, or does not say where it ends."""


def renewed(text: str, tables: Mapping[str, Callable[[], str]]) -> tuple[str, list[str]]:
    """The page `text` with each block made anew, and the names of those that were stale. Raises
    `WrongPage`."""
    stale: list[str] = []

    def replaced(block: re.Match[str]) -> str:
        start, name, old, end = block.groups()
        if name not in tables:
            raise WrongPage(f"nothing makes {name!r}; reference.TABLES has the names")
        new = f"\n{tables[name]()}\n\n"
        if new != old:
            stale.append(name)
        return start + new + end

    if _START.findall(text) != [block[2] for block in _BLOCK.finditer(text)]:
        raise WrongPage("a generated block has no line `<!-- end of generated -->`")
    return _BLOCK.sub(replaced, text), stale


def pages(repository: Path = REPOSITORY) -> Iterator[Path]:
    """Every page of the repository, which is every Markdown file that Git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=repository,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    yield from sorted({repository / name for name in listed.split("\0") if name})


def stale() -> list[str]:
    """What is not as the code has it now, each as `page: name`. Raises `WrongPage`."""
    return [f"{_shown(page)}: {name}" for page, _, names in _renewed() for name in names]


def write() -> list[Path]:
    """Makes every block of every page anew; the pages that changed. Raises `WrongPage`."""
    changed = [(page, text) for page, text, names in _renewed() if names]
    for page, text in changed:
        page.write_text(text, "utf-8")
    return [page for page, _ in changed]


def _renewed() -> Iterator[tuple[Path, str, list[str]]]:
    for page in pages():
        if page.exists():
            try:
                text, names = renewed(page.read_text("utf-8"), TABLES)
            except WrongPage as wrong:
                raise WrongPage(f"{_shown(page)}: {wrong}") from None
            yield page, text, names


def _shown(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Puts what is made from the code into the pages.")
    parser.add_argument("--check", action="store_true", help="write nothing, name what is stale")
    try:
        if parser.parse_args().check:
            if found := stale():
                raise SystemExit("\n".join([f"stale, `{COMMAND}` writes them:", *found]))
        else:
            for written in write():
                print(f"written: {_shown(written)}")
    except WrongPage as wrong:
        raise SystemExit(str(wrong)) from None
