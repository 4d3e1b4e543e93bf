"""`docs/what-was-run.md` speaks of every file that ships, and of tests that there are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("collector-config", "examples", "deploy", "propagator")
ROWS = re.findall(
    r"^\| (`.+?) \| (.+?) \| (.+?) \| (.+?) \|$",
    (ROOT / "docs" / "what-was-run.md").read_text("utf-8"),
    re.MULTILINE,
)


def test_every_file_that_ships_is_spoken_of() -> None:
    """By its name or by its folder's; each name is one that there is."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", *FOLDERS], capture_output=True, text=True, check=True
    )
    files = set(filter(None, listed.stdout.split("\0")))
    named = [name for row in ROWS for name in re.findall(r"`(.+?)`", row[0])]
    assert len(named) == len(set(named)) > 20
    for name in named:
        if name.endswith("/"):
            assert any(file.startswith(name) for file in files), name
        else:
            assert name in files, name
    folders = tuple(name for name in named if name.endswith("/"))
    left = [file for file in files if file not in named and not file.startswith(folders)]
    assert not left


def test_every_test_is_there() -> None:
    """And names what it is said to have run."""
    for what, _, _, tests in ROWS:
        for name in re.findall(r"`(.+?)`", tests):
            assert (ROOT / name).is_file(), f"{what}: {name}"
