"""Every block of the documentation is run as it stands, or has its reason in `table.py`."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..conftest import program
from .blocks import REPOSITORY, Block, Command, documentation
from .stage import HERE, Done, NoStage, Stage, stage
from .table import COMMANDS, LANGUAGES, PAGES, How, Kind, Page

REQUIRED = "OTEL_ALLOY_TEST_NAMESPACES"
PLAIN = How("")


def page_of(name: str) -> Page:
    return PAGES.get(name, Page())


def elsewhere_of(block: Block) -> str:
    """The test elsewhere that runs a block; empty where there is none."""
    elsewhere = page_of(block.page).elsewhere
    return next(
        (test for key, test in elsewhere.items() if key in ("", block.language)), ""
    ) or next((test for key, test in elsewhere.items() if block.text.startswith(key)), "")


def kind_of(block: Block) -> Kind:
    """What is done with a block. Fails where nobody has said it."""
    kind = LANGUAGES.get(block.language)
    if kind is None:
        pytest.fail(
            f"{block.where} ({block.section}): nothing runs a block of {block.language!r}; "
            "tests/e2e/documented/table.py has LANGUAGES, and `elsewhere` for a test that does"
        )
    return page_of(block.page).yaml if kind == "settings" else kind


def how_of(command: Command) -> How:
    return next((how for how in COMMANDS if re.search(how.pattern, command.text)), PLAIN)


def runnable(blocks: tuple[Block, ...]) -> list[Block]:
    """Those that are run here."""
    return [block for block in blocks if not elsewhere_of(block) and kind_of(block) != "shown"]


ALL = documentation()
COMMAND_LINES = [
    command
    for blocks in ALL.values()
    for block in blocks
    if not elsewhere_of(block) and LANGUAGES.get(block.language) == "shell"
    for command in block.commands()
]


def test_every_block_is_accounted_for() -> None:
    """Each block has a language of which it is known what is done with it, or a test elsewhere that
    is there. No page, command or test is spoken of that does not exist any more, and whatever is
    not run as it stands says why."""
    for blocks in ALL.values():
        for block in blocks:
            if test := elsewhere_of(block):
                file, _, name = test.partition("::")
                assert re.search(rf"^def {name}\(", (REPOSITORY / file).read_text(), re.M), test
            else:
                kind_of(block)
    assert set(PAGES) <= {name for name, blocks in ALL.items() if blocks}
    used = {how_of(command) for command in COMMAND_LINES}
    assert set(COMMANDS) <= used, f"no command is like {set(COMMANDS) - used}"
    assert all(bool(how.instead) <= bool(how.why) for how in COMMANDS)
    assert len(COMMAND_LINES) > 100


@pytest.mark.parametrize(
    "command",
    [c for c in COMMAND_LINES if c.text.startswith("python benchmarks/")],
    ids=lambda command: command.where,
)
def test_benchmarks_know_their_options(command: Command) -> None:
    """Of a benchmark, which is not run, every option is one that it has."""
    words = shlex.split(command.text, comments=True)
    script = REPOSITORY / words[1]
    helped = subprocess.run(
        [REPOSITORY / ".venv/bin/python", script, "--help"], capture_output=True, text=True
    )
    for option in (word for word in words[2:] if word.startswith("--")):
        assert option in helped.stdout, f"{command.where}: {script.name} has no {option}"


class Reader:
    """Somebody who reads a page at a stage, and does what it says."""

    def __init__(self, at: Stage, page: Page) -> None:
        self._stage = at
        self._page = page
        self._terminal = at.terminal(page.folder)

    def prepare(self) -> None:
        """Brings what the page needs."""
        for name, text in self._page.files.items():
            folder, _, file = name.rpartition("/")
            place = shlex.quote(folder or ".")
            self.follow(f"mkdir -p {place} && printf %s {shlex.quote(text)} > {place}/{file}")
        for line in self._page.first:
            self.follow(line)

    def read(self, block: Block, number: int) -> None:
        """Does what one block says; it is the `number`th of its language."""
        kind = kind_of(block)
        if kind == "shell":
            for command in block.commands():
                self._run(command)
        elif kind == "python":
            self._save(f"block-{number}.py", f"{self._page.before_python}\n{block.text}")
            until = self._page.python_until if "receiver.run()" in block.text else ""
            self.follow(f"python block-{number}.py", block.where, once=until)
        elif kind == "settings":
            self._save(f"settings-{number}.yaml", block.text)
            self.follow(f"load-settings settings-{number}.yaml", block.where)
        elif kind == "values":
            self._save(f"values-{number}.yaml", block.text)
            chart = Path(block.page).parent
            self.follow(f"helm install try {chart} -f values-{number}.yaml", block.where)

    def _save(self, name: str, text: str) -> None:
        (self._stage.checkout / self._page.folder / name).write_text(text, "utf-8")

    def _run(self, command: Command) -> None:
        how = how_of(command)
        line = command.text
        if how.instead:
            match = re.search(how.pattern, line)
            assert match is not None
            line = line[: match.start()] + match.expand(how.instead) + line[match.end() :]
        other = next((c for b, c in self._page.beside.items() if line.startswith(b)), "")
        if other:
            with self._beside(Command(command.page, command.line, other)):
                self.follow(line, command.where, how)
        else:
            self.follow(line, command.where, how)

    @contextmanager
    def _beside(self, command: Command) -> Iterator[None]:
        how = how_of(command)
        terminal = self._stage.terminal(self._page.folder)
        terminal.type(command.text, until=how.until, stay=True)
        yield
        self._judge(terminal.interrupt(), command.text, command.where, how)

    def follow(self, line: str, where: str = "", how: How = PLAIN, once: str = "") -> Done:
        """Types a line, and sees that it came out as it should."""
        try:
            done = self._terminal.type(
                line,
                until=how.until,
                once=(lambda: self._stage.holds(once)) if once else None,
                stay=how.stays,
            )
        except AssertionError as error:
            pytest.fail(f"{where}: {line}\n{error}", pytrace=False)
        self._judge(done, line, where, PLAIN_OR_ENDED if once else how)
        if done.code is None:
            self._terminal = self._stage.terminal(self._page.folder)
        return done

    def _judge(self, done: Done, line: str, where: str, how: How) -> None:
        wrong = ""
        if not re.search(how.until, done.output):
            wrong = f"it does not print {how.until!r}"
        elif done.code not in ((None,) if how.stays else how.codes):
            wrong = f"it ended with {done.code}"
        elif "Traceback (most recent call last)" in done.output:
            wrong = "it ended with a traceback"
        elif not re.search(how.shows, done.output):
            wrong = f"it does not print {how.shows!r}"
        if wrong:
            end = "\n".join(done.output.splitlines()[-30:])
            pytest.fail(f"{where}: {line}\n{wrong}; it said:\n{end}", pytrace=False)


PLAIN_OR_ENDED = How("", codes=(0, 130))


@pytest.mark.e2e
@pytest.mark.parametrize(
    "name", [name for name, blocks in ALL.items() if runnable(blocks)], ids=lambda name: name
)
def test_page(name: str, tmp_path: Path) -> None:
    """Whoever types the blocks of a page one after the other, on a machine with nothing but a clean
    clone, Python, the simulated Alloy and a Collector, gets what the page promises."""
    page = page_of(name)
    programs = {
        "real-helm" if server == "helm" else server: program(server) for server in page.servers
    }
    with staged(tmp_path, page, programs) as at:
        reader = Reader(at, page)
        reader.prepare()
        numbers: dict[str, int] = {}
        for block in runnable(ALL[name]):
            number = numbers[block.language] = numbers.get(block.language, 0) + 1
            reader.read(block, number)
        for line in page.after:
            reader.follow(line, f"after {name}")


@contextmanager
def staged(folder: Path, page: Page, programs: dict[str, Path]) -> Iterator[Stage]:
    """A stage with the world around it, or a reason why there is none."""
    try:
        with stage(folder, programs) as at:
            at.start("python", str(HERE / "world.py"), str(folder), *page.world, ready="ready")
            at.environment.update(page.environment)
            yield at
    except NoStage as error:
        if os.environ.get(REQUIRED) == "required":
            pytest.fail(f"no namespaces can be made here: {error}")
        pytest.skip(f"no namespaces can be made here: {error}")
