"""The values of the Helm chart, as its `values.yaml` has them: the comment above each says what it
is. `reference` makes the table of the chart's README from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[1] / "deploy/helm/otel-alloy"
VALUES = CHART / "values.yaml"
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
