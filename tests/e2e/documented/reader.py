"""Somebody who reads a page at a stage and does what it says, as `table.py` has it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .blocks import Block, Command
from .stage import Done, Stage
from .table import COMMANDS, ENDLESS_PYTHON, LANGUAGES, PAGES, How, Kind, Page

PLAIN = How("")
"""Typed as it stands, and ends with 0."""
LINES = 30
"""How much is told of what a command said."""


class Mistake(Exception):
    """The documentation says what is not so: where, what, and what came of it."""


def part_of(block: Block) -> str:
    """What is read together: a page, or a section of it that `PAGES` names."""
    section = f"{block.page}#{block.section}"
    return section if section in PAGES else block.page


def page_of(block: Block) -> Page:
    """What its part of the documentation needs."""
    return PAGES.get(part_of(block), Page())


def elsewhere_of(block: Block) -> str:
    """The test elsewhere that runs a block; empty where there is none."""
    return page_of(block).elsewhere.get(block.language, "")


def kind_of(block: Block) -> Kind:
    """What is done with a block. Raises `Mistake` where nobody has said it."""
    kind = LANGUAGES.get(block.language)
    if kind is None:
        raise Mistake(
            f"{block.where} ({block.section}): nothing runs a block of {block.language!r}; "
            "tests/e2e/documented/table.py has LANGUAGES, and `elsewhere` for a test that does"
        )
    return page_of(block).kinds.get(kind, kind)


def how_of(command: Command) -> How:
    """How a command is run."""
    return next((how for how in COMMANDS if re.search(how.pattern, command.essence)), PLAIN)


class Reader:
    """One of them. Each method raises `Mistake`."""

    def __init__(self, at: Stage, page: Page) -> None:
        self._stage = at
        self._page = page
        self._terminal = at.terminal(page.folder)
        self._printed = ""
        self._has_settings = False
        """The first settings of a page are those that its commands find."""

    def read(self, name: str, blocks: Iterable[Block]) -> None:
        """Brings what the page needs, does what its blocks say, and looks at what came of it."""
        for path, text in self._page.files.items():
            self._save(path, text)
        for line in self._page.first:
            self._type(line, f"before {name}", PLAIN)
        for number, block in enumerate(blocks, 1):
            self._do(block, number)
        for line in self._page.after:
            self._type(line, f"after {name}", PLAIN)

    def _do(self, block: Block, number: int) -> None:
        kind = kind_of(block)
        if kind == "shell":
            for command in block.commands():
                self._run(command)
        elif kind == "python":
            self._save(f"{number}.py", f"{self._page.before_python}\n{block.text}")
            how = ENDLESS_PYTHON if "receiver.run()" in block.text else PLAIN
            self._type(f"python {number}.py", block.where, how)
        elif kind == "settings":
            name = f"settings-{number}.yaml" if self._has_settings else "settings.yaml"
            self._has_settings = True
            self._save(name, block.text)
            self._type(f"load-settings {name}", block.where, PLAIN)
        elif kind == "values":
            self._save("values.yaml", block.text)
            chart = Path(block.page).parent
            self._type(f"helm install try {chart} -f values.yaml", block.where, PLAIN)
        elif kind == "printed" and self._printed != block.text:
            raise Mistake(f"{block.where}: what is printed is\n{self._printed}")

    def _save(self, path: str, text: str) -> None:
        self._stage.write(self._stage.checkout / self._page.folder / path, text)

    def _run(self, command: Command) -> None:
        how = how_of(command)
        line = command.text
        if how.instead:
            match = re.search(how.pattern, command.essence)
            assert match is not None
            line = match.expand(how.instead)
        for beginning, before in self._page.given.items():
            if line.startswith(beginning):
                self._type(before, command.where, PLAIN)
        other = next((o for b, o in self._page.beside.items() if line.startswith(b)), "")
        if other:
            with self._beside(Command(command.page, command.line, other)):
                self._type(line, command.where, how)
        else:
            self._type(line, command.where, how)

    @contextmanager
    def _beside(self, command: Command) -> Iterator[None]:
        how = how_of(command)
        terminal = self._stage.terminal(self._page.folder)
        before = terminal.type(command.text, until=how.until, stay=True)
        yield
        after = terminal.interrupt()
        _judge(Done(after.code, before.output + after.output), command.text, command.where, how)

    def _type(self, line: str, where: str, how: How) -> None:
        delivered = self._stage.delivered()
        try:
            done = self._terminal.type(
                line,
                until=how.until,
                once=(lambda: self._stage.delivered() > delivered) if how.delivers else None,
                stay=how.stays,
            )
        except TimeoutError as error:
            raise Mistake(f"{where}: {line}\n{error}") from None
        _judge(done, line, where, how)
        self._printed = done.output
        if done.code is None:
            self._terminal = self._stage.terminal(self._page.folder)


def _judge(done: Done, line: str, where: str, how: How) -> None:
    wrong = ""
    if not re.search(how.until, done.output):
        wrong = f"it does not print {how.until!r}"
    elif done.code not in ((None,) if how.stays else how.codes):
        wrong = f"it ended with {done.code}"
    elif "Traceback (most recent call last)" in done.output and not how.delivers:
        wrong = "it ended with a traceback"
    elif not re.search(how.shows, done.output):
        wrong = f"it does not print {how.shows!r}"
    if wrong:
        said = "\n".join(done.output.splitlines()[-LINES:])
        raise Mistake(f"{where}: {line}\n{wrong}; it said:\n{said}")
