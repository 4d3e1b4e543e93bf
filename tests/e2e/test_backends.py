"""The settings that docs/backends.md gives, as they stand, with the real programs as people start
them: each at its own default port."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from .conftest import REPOSITORY, Apart

PAGE = REPOSITORY / "docs" / "backends.md"
SIMULATED = ("otel-alloy simulate --executions 20 --rate 0", "http://127.0.0.1:8080/logs")


def settings(heading: str, **besides: str) -> str:
    """The variables of a backend, and others, as `env` takes them."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## )", PAGE.read_text("utf-8"), re.S | re.M)
    (block,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    given = [line.removeprefix("export ") for line in block.splitlines()]
    more = [f"{name}={value}" for name, value in besides.items()]
    return "env " + " ".join(shlex.quote(word) for word in (*given, *more))


@pytest.mark.e2e
def test_jaeger_by_itself(apart: Apart, tmp_path: Path) -> None:
    """Jaeger, started without a word, takes traces over HTTP, and nothing is sent that it does not
    take."""
    receive = settings(
        "Jaeger", ALLOY_API_KEY="any", ALLOY_ENDPOINT="http://127.0.0.1:8080", HOME=str(tmp_path)
    )
    said = apart(
        tmp_path,
        [
            ("jaeger", "http://127.0.0.1:16686/"),
            SIMULATED,
            (f"{receive} otel-alloy run --once --since 2d", None),
        ],
        found=[("http://127.0.0.1:16686/api/traces?service=runalloy&lookback=2d", "otel_alloy")],
    )
    assert "20 spans and 0 log records delivered" in said
