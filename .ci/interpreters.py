"""The supported Pythons, and which of them this machine has: on PATH, or among those of pyenv."""

import os
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RIGHT = "import sys, ensurepip, venv; sys.exit(sys.version_info[:2] != (3, {}))"


def supported() -> list[int]:
    """The minor versions that the classifiers in pyproject.toml name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    last = [line.rpartition(" ")[2] for line in project["classifiers"]]
    return sorted(int(version[2:]) for version in last if version.startswith("3."))


def find(minor: int) -> Path | None:
    """An interpreter of 3.`minor` that works and can make environments."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders = [Path(p) for p in os.environ.get("PATH", "").split(os.pathsep)]
    candidates = [folder / f"python3.{minor}" for folder in folders]
    candidates += sorted(pyenv.glob(f"versions/3.{minor}.*/bin/python3.{minor}"))
    for candidate in candidates:
        if candidate.exists():
            command = [candidate, "-c", RIGHT.format(minor)]
            if subprocess.run(command, capture_output=True).returncode == 0:
                return candidate
    return None
