"""Every block of the documentation is run as it stands, or has its reason in `table.py`."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..conftest import program
from .blocks import REPOSITORY, blocks_of, code_in, pages
from .reader import Mistake, Reader, elsewhere_of, how_of, kind_of, part_of
from .stage import WORLD, NoStage, Stage, stage
from .table import COMMANDS, LANGUAGES, PAGES, Page
from .world import servers_with_tls

BLOCKS = [block for name, text in pages().items() for block in blocks_of(name, text)]
RUN = [
    block
    for block in BLOCKS
    if block.language in LANGUAGES and not elsewhere_of(block) and kind_of(block) != "shown"
]
"""Those that are run here."""
LINES = [command for block in RUN if kind_of(block) == "shell" for command in block.commands()]


def test_every_block_is_accounted_for() -> None:
    """Each block has a language of which it is known what is done with it, or a test elsewhere that
    is there. No page, command or test is spoken of that does not exist any more, and whatever is
    not run as it stands says why."""
    for block in BLOCKS:
        if test := elsewhere_of(block):
            file, _, name = test.partition("::")
            found = re.search(rf"^def {name}\(", (REPOSITORY / file).read_text("utf-8"), re.M)
            assert found, f"{block.where}: there is no {test}"
        else:
            kind_of(block)
    assert set(PAGES) <= {part_of(block) for block in BLOCKS}
    unlike = set(COMMANDS) - {how_of(command) for command in LINES}
    assert not unlike, f"no command is like {unlike}"
    assert all(bool(how.instead) == bool(how.why) for how in COMMANDS)
    assert len(LINES) > 100


def test_benchmarks_have_the_options_that_are_given() -> None:
    """Scripts of the repository, which take too long to be run here, are there and have every
    option that is given, in blocks and in what stands as code within the words."""
    spans = [command for name, text in pages().items() for command in code_in(name, text)]
    common = (REPOSITORY / "benchmarks/common.py").read_text("utf-8")
    seen = 0
    for command in (*LINES, *spans):
        if command.text.startswith("python "):
            _, script, *words = shlex.split(command.text, comments=True)
            text = (REPOSITORY / script).read_text("utf-8") + common
            for word in words:
                known = not word.startswith("--") or f'"{word}"' in text
                assert known, f"{command.where}: {script} has no {word}"
            seen += 1
    assert seen > 20


@contextmanager
def staged(folder: Path, page: Page) -> Iterator[Stage]:
    """A stage with what the page needs around it. Skips the test where this machine has none of it,
    unless a variable says that it has to."""
    programs = {
        "real-helm" if server == "helm" else server: program(server) for server in page.servers
    }
    if "postgres" in page.world and not servers_with_tls():
        missing("POSTGRES", "no PostgreSQL with TLS is installed")
    try:
        with stage(folder, programs) as at:
            at.start("python", str(WORLD), str(folder), *page.world, ready="ready")
            at.environment.update(page.environment)
            yield at
    except NoStage as error:
        missing("NAMESPACES", f"no namespaces can be made here: {error}")


def missing(what: str, words: str) -> None:
    if os.environ.get(f"OTEL_ALLOY_TEST_{what}") == "required":
        pytest.fail(words)
    pytest.skip(words)


@pytest.mark.e2e
@pytest.mark.parametrize("name", dict.fromkeys(part_of(block) for block in RUN))
def test_page(name: str, tmp_path: Path) -> None:
    """Whoever types the blocks of a page one after the other, on a machine with nothing but a clean
    clone, Python, an Alloy and a Collector, gets what the page promises."""
    page = PAGES.get(name, Page())
    told = ""
    with staged(tmp_path, page) as at:
        try:
            Reader(at, page).read(name, [block for block in RUN if part_of(block) == name])
        except Mistake as mistake:
            told = str(mistake)
    if told:
        pytest.fail(told, pytrace=False)


WRONG: Sequence[tuple[str, str, str]] = (
    ("sh", "otel-alloy id x\notel-alloy run --twice", "page.md:4: otel-alloy run --twice\n"),
    ("sh", "otel-alloy chekc", "did you mean check"),
    ("sh", "exit_code() { return 7; }; exit_code", "it ended with 7"),
    ("python", "import otel_alloy.nothing", "page.md:3: python 1.py\n"),
    ("yaml", "collection_intervall: 30s", "collection_intervall"),
)


@pytest.mark.e2e
def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    """A block that does not do what it should is a failure that says which one it is, and what came
    of it; one in a language that nobody runs is a failure before anything is run."""
    page = Page(environment={"ALLOY_API_KEY": "your-key"})
    with staged(tmp_path, page) as at:
        for language, text, told in WRONG:
            blocks = blocks_of("page.md", f"# Page\n```{language}\n{text}\n```\n")
            with pytest.raises(Mistake) as mistake:
                Reader(at, page).read("page.md", blocks)
            assert told in str(mistake.value)
    (block,) = blocks_of("page.md", "# Page\n\n```ruby\nputs 1\n```\n")
    with pytest.raises(Mistake, match=r"page\.md:4 \(Page\): nothing runs a block of 'ruby'"):
        kind_of(block)
