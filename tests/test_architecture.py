"""What the house rests on, held by reading the code: who takes time, chance and threads, and that
no test exchanges a part behind the program's back. Who imports whom is import-linter's business
(`make lint`)."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TAKEN = {
    "time": {"time", "monotonic", "sleep", "time_ns", "monotonic_ns", "perf_counter"},
    "random": {"random", "randint", "uniform", "choice"},
    "threading": {"Thread", "Timer"},
    "os": {"urandom"},
    "secrets": {"token_hex", "token_bytes", "randbelow"},
    "datetime": {"now", "utcnow"},
}
ELSEWHERE = ("runtime.py", "http_server.py", "testing/")
"""`Runtime` itself, and servers that are no part of the receiver's work."""


def taken(path: Path) -> list[str]:
    """Where a module takes time, chance or a thread by itself."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = [(node.value.id, node.attr)]
        elif isinstance(node, ast.ImportFrom) and node.module in TAKEN:
            names = [(node.module, alias.name) for alias in node.names]
        else:
            continue
        found += [
            f"{path.relative_to(ROOT)}:{node.lineno}: {module}.{name}"
            for module, name in names
            if name in TAKEN.get(module, ()) and not _is_annotation(path, node)
        ]
    return found


def _is_annotation(path: Path, node: ast.AST) -> bool:
    line = path.read_text("utf-8").splitlines()[getattr(node, "lineno", 1) - 1]
    return bool(re.search(r"(:|->|\[) *threading\.Thread\b(?!\()", line))


def test_time_chance_and_threads_are_handed_in() -> None:
    """Only `Runtime` asks the machine for the time, waits, draws a number or starts a thread."""
    package = ROOT / "otel_alloy"
    modules = [p for p in package.rglob("*.py")]
    found = [
        place
        for path in modules
        if not str(path.relative_to(package)).startswith(ELSEWHERE)
        for place in taken(path)
    ]
    assert len(modules) > 90
    assert not found, "take these from Runtime:\n" + "\n".join(found)
    assert len(taken(package / "runtime.py")) >= 3


def test_no_test_patches_a_module_of_ours() -> None:
    """Collaborators are handed in: no test sets a name in a module of the package."""
    patches = re.compile(
        r"""monkeypatch\.setattr\(\s*(["']otel_alloy|[a-z_]+,)"""
        r"""|patch\.object\(\s*[a-z_]+,|patch\(\s*["']otel_alloy|mock\.patch"""
    )
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in (ROOT / "tests").rglob("*.py")
        if path != Path(__file__)
        for match in patches.finditer(path.read_text("utf-8"))
    ]
    assert not found, "hand these in instead:\n" + "\n".join(found)


HEAVY = ("httpx", "pydantic", "grpc", "opentelemetry.sdk", "rich")
"""What takes its time to import."""


def imported(*words: str, **environment: str) -> set[str]:
    """The modules that the command imports, run with these words and variables."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "otel_alloy", *words],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-500:]
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["--version"], ""),
        (["--help"], ""),
        (["completion", "bash"], ""),
        (["id", "6810a8e3f4c2b1a0d9e8f7c6"], ""),
        ([], "otel-alloy ba"),
    ],
)
def test_what_needs_little_imports_little(words: list[str], completed: str) -> None:
    """`--version`, the list of commands, the completion of their names: nothing of the libraries
    that only work on executions needs, so that they are there at once."""
    variables = {}
    if completed:
        count = str(completed.count(" "))
        variables = {"_OTEL_ALLOY_COMPLETE": "bash_complete", "COMP_WORDS": completed}
        variables["COMP_CWORD"] = count
    modules = imported(*words, **variables)
    assert "otel_alloy.cli" in modules and "click" in modules
    assert not [m for m in modules if m.startswith(tuple(HEAVY))]
