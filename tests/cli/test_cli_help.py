"""`--help`: complete, true, and fit for a page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from otel_alloy.cli import commands
from otel_alloy.settings.models import Settings
from otel_alloy.version import __version__

WIDTH = 80


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(path), command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from walk(below, (*path, name))


ALL = dict(walk(commands))


def page(path: str) -> str:
    """What `otel-alloy PATH --help` prints on a terminal of 80 columns."""
    context = click.Context(ALL[path], info_name=f"otel-alloy {path}".strip())
    context.terminal_width = WIDTH - 2  # what click leaves free
    return ALL[path].get_help(context)


def parse(words: list[str]) -> click.Context:
    """The context of the command that these words name. Raises UsageError where they are wrong."""
    command: click.Command = commands
    context: click.Context | None = None
    while isinstance(command, click.Group):
        context = command.make_context("otel-alloy", list(words), parent=context)
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
    return command.make_context("otel-alloy", words[:], parent=context)


@pytest.mark.parametrize("path", ALL)
def test_every_command_and_option_has_help(path: str) -> None:
    """Every command says in a short sentence what it does, every option what it is, every argument
    stands in the text; the page is as wide as a terminal, and the list of commands cuts none."""
    command = ALL[path]
    assert command.help
    first = command.help.split("\n\n")[0].strip()
    assert re.fullmatch(r"[A-Z][^\n]+\.", first), first
    assert not path or not command.get_short_help_str(WIDTH - 16).endswith("...")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, (path, parameter.opts)
            assert not path or not parameter.help.endswith("."), parameter.opts
            assert (
                parameter.is_flag or parameter.metavar or isinstance(parameter.type, click.Choice)
            )
        elif parameter.name != "execution_uuid":
            assert str(parameter.name).upper() in command.help, (path, parameter.name)
    assert max(map(len, page(path).splitlines())) <= WIDTH


@pytest.mark.parametrize("path", [p for p, c in ALL.items() if not isinstance(c, click.Group)])
def test_examples_are_right(path: str) -> None:
    """Each example is a line that the command line takes, and of the command that it explains;
    a command that takes more than where to look has one."""
    whole = re.sub(r" *\\\n *", " ", page(path))
    examples = re.findall(r"^ +.*?(otel-alloy [^)|#\n]+)", whole, re.MULTILINE)
    for example in examples:
        words = shlex.split(example)[1:]
        assert words[: len(path.split())] == path.split()
        parse(words)
    assert examples or path in ("checkpoint show", "rejected list")


def test_a_wrong_example_is_seen() -> None:
    """What the test above relies on: a line that is wrong is refused."""
    for line in ("run --sinse 60d", "summary --by colour", "checkpoint set default", "rum"):
        with pytest.raises(click.UsageError):
            parse(line.split())


def test_defaults_are_true() -> None:
    """The default that the help tells of a setting is the one that holds without it."""
    without = Settings.model_validate({"api_key": "k", "environment": {}})
    told = {}
    for option in ALL["run"].params:
        assert isinstance(option, click.Option)
        if match := re.search(r"\[default: (.*)\]$", option.help or ""):
            told[str(option.name)] = match[1]
    assert len(told) > 15
    with_them = Settings.model_validate({"api_key": "k", "environment": {}, **told})
    assert with_them == without


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` tells the version of the package."""
    commands.main(["--version"], prog_name="otel-alloy", standalone_mode=False)
    assert capsys.readouterr().out == f"otel-alloy, version {__version__}\n"
