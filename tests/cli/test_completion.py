"""Completion in real shells: what Tab makes of a line, typed into bash and zsh on a terminal, and
asked of fish; and that it is silent where there is nothing to say."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from otel_alloy.checkpoint.store import Progress, RejectedRecord, Settlement, open_store

COMMAND = Path(sys.executable).with_name("otel-alloy")
PATIENCE = 60.0

SETTINGS = """\
api_key: canary-4711
storage: sqlite:///kept.db
sources: [{name: europe}, {name: east}, {name: us}]
"""

LINES = [
    ("ba", "backfill"),
    ("checkpoint re", "checkpoint reset"),
    ("run --log-f", "run --log-format"),
    ("run --log-format ", "run --log-format console json"),
    ("completion ", "completion bash zsh fish"),
    ("summary --by cu", "summary --by customer"),
    ("check --config mine", "check --config mine.yaml"),
    (
        "tail --config mine.yaml --source e",
        "tail --config mine.yaml --source europe east",
    ),
    (
        "checkpoint reset --config mine.yaml u",
        "checkpoint reset --config mine.yaml us",
    ),
    ("rejected drop --config mine.yaml ", "rejected drop --config mine.yaml 1 2"),
    ("tail --source d", "tail --source default"),
    ("rejected drop ", "rejected drop"),
    ("tail --config broken.yaml --source ", "tail --config broken.yaml --source"),
]
"""What is typed, and the words with all completions instead of the last one."""

_SAY = """
otel-alloy() { printf 'words<%s>\\n' "$*"; }
PS1='ready>'
"""
"""What the shell then runs in place of the command tells how the line was completed."""

BASH = """
bind '"\\C-g": insert-completions'
source <(otel-alloy completion bash)
"""
ZSH = """
autoload -Uz compinit && compinit -u -D
zstyle ':completion:all-matches::::' completer _all_matches _complete
zstyle ':completion:all-matches:*' insert true
zle -C all-matches complete-word _generic
bindkey '^G' all-matches
unsetopt zle_bracketed_paste prompt_sp
source <(otel-alloy completion zsh)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A settings file with three sources, one that cannot be read, and a checkpoint with two
    records set aside."""
    (tmp_path / "mine.yaml").write_text(SETTINGS)
    (tmp_path / "broken.yaml").write_text("sources: [")
    aside = [RejectedRecord("us", "traces", f"quota, {n}", "ended", f"[{n}]") for n in range(2)]
    with closing(open_store(f"sqlite:///{tmp_path}/kept.db")) as store:
        store.load("us", "f")
        store.settle("us", Settlement(Progress(1), rejected=aside))
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    return {
        "PATH": f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "ZDOTDIR": str(folder),
        "TERM": "dumb",
        "COLUMNS": "200",
        "LC_ALL": "C.UTF-8",
    }


def on_a_terminal(words: list[str], folder: Path) -> Iterator[str]:
    """Types the lines into an interactive shell, each with ^G (insert all completions) and Enter;
    what it then ran."""
    ours, terminal = pty.openpty()
    shell = subprocess.Popen(
        words,
        cwd=folder,
        env=environment(folder),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    seen = ""

    def wait_for(pattern: str) -> re.Match[str]:
        nonlocal seen
        deadline = time.monotonic() + PATIENCE
        while (match := re.search(pattern, seen)) is None:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([ours], [], [], left)[0], seen
            seen += os.read(ours, 4096).decode()
        seen = seen[match.end() :]
        return match

    try:
        for typed, _ in LINES:
            wait_for("ready>")
            os.write(ours, f"otel-alloy {typed}\x07\r".encode())
            yield wait_for(r"words<([^>\r\n]*)>")[1]
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


def with_bash(folder: Path) -> Iterator[str]:
    (folder / ".rc").write_text(BASH + _SAY)
    yield from on_a_terminal(["bash", "--noprofile", "--rcfile", str(folder / ".rc"), "-i"], folder)


def with_zsh(folder: Path) -> Iterator[str]:
    (folder / ".zshrc").write_text(ZSH + _SAY)
    yield from on_a_terminal(["zsh", "-d", "-i"], folder)


def with_fish(folder: Path) -> Iterator[str]:
    script = "otel-alloy completion fish | source\n" + "".join(
        f"complete -C 'otel-alloy {typed}'; echo end\n" for typed, _ in LINES
    )
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stderr == ""
    for (typed, _), found in zip(LINES, done.stdout.split("end\n"), strict=False):
        before = typed.rpartition(" ")[0]
        yield " ".join([before, *(line.split("\t")[0] for line in found.splitlines())])


@pytest.mark.parametrize("shell", [with_bash, with_zsh, with_fish])
def test_lines(shell: Callable[[Path], Iterator[str]], folder: Path) -> None:
    """Commands, options, choices, files, the sources of the settings file and the numbers of
    rejected records are completed; a broken file or a missing checkpoint completes nothing, says
    nothing, and no checkpoint comes into being."""
    name = shell.__name__.removeprefix("with_")
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}")
    for (typed, wanted), found in zip(LINES, shell(folder), strict=True):
        assert sorted(found.split()) == sorted(wanted.split()), typed
    assert {p.name for p in folder.iterdir() if p.suffix == ".db"} == {"kept.db"}
