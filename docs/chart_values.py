"""The table of the Helm chart's values, in its README: `python docs/chart_values.py` writes it.

What it says is the comment above each value in `values.yaml`; a test holds that the committed table
is the one that this makes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[1] / "deploy/helm/otel-alloy"
README = CHART / "README.md"
_MARK = "<!-- Made by docs/chart_values.py from values.yaml. -->\n"
_KEY = re.compile(r"^( *)(\w+):")


def rows(text: str) -> Iterator[tuple[str, str, str]]:
    """Path, default as JSON, and meaning of each value that has a comment; in the file's order."""
    values = yaml.safe_load(text)
    path: list[str] = []
    above = ""
    for line in text.splitlines():
        if (key := _KEY.match(line)) is not None:
            path[len(key[1]) // 2 :] = [key[2]]
            if above:
                yield ".".join(path), json.dumps(_at(values, path)), above
        above = line.strip().removeprefix("# ") if line.lstrip().startswith("# ") else ""


def _at(values: Any, path: list[str]) -> Any:
    for name in path:
        values = values[name]
    return values


def table(text: str) -> str:
    """The table for such a `values.yaml`."""
    lines = [f"| `{name}` | `{default}` | {what} |" for name, default, what in rows(text)]
    return "\n".join(["| value | default | meaning |", "|---|---|---|", *lines]) + "\n"


def renewed(readme: str, values: str) -> str:
    """The README with its table made anew."""
    before, mark, after = readme.partition(_MARK)
    following = after.index("\n## ")
    return f"{before}{mark}\n{table(values)}{after[following:]}"


if __name__ == "__main__":
    values = (CHART / "values.yaml").read_text()
    README.write_text(renewed(README.read_text(), values))
