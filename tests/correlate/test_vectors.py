"""The published vectors, and everything in `examples/correlate` that claims to agree with them:
the lines of the README, and the propagators in other languages, each by its own test program."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from otel_alloy.mapping.ids import PREFIX, execution_ids

FOLDER = Path(__file__).parents[2] / "examples" / "correlate"
VECTORS: dict[str, Any] = json.loads((FOLDER / "vectors.json").read_text("utf-8"))
EXECUTIONS: list[dict[str, str]] = VECTORS["executions"] + VECTORS["not_from_headers"]
PATIENCE = 280
"""Seconds, within which a package manager has to fetch what it does not have yet."""


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command, which has to succeed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done


def needs(*programs: str) -> None:
    """Skips the test where one of the programs is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def line(language: str) -> str:
    """The README's line for a language (with its imports, if it has any)."""
    text = (FOLDER / "README.md").read_text("utf-8")
    found = re.search(r"prints the trace id.*?```" + language + r"\n(.+?)\n```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_vectors_hold() -> None:
    """Each vector is what otel-alloy itself computes; there are at least ten, among them what is
    odd, and none of an empty uuid."""
    for vector in EXECUTIONS:
        trace_id, span_id = execution_ids(vector["uuid"])
        assert (trace_id.hex(), span_id.hex()) == (vector["trace_id"], vector["span_id"])
    uuids = [v["uuid"] for v in VECTORS["executions"]]
    assert len(set(uuids)) == len(uuids) >= 10
    assert VECTORS["prefix"] == PREFIX
    assert {1, 21, 36, 256} <= set(map(len, uuids))
    assert any(max(u) > "\uffff" for u in uuids) and "" not in uuids


def test_older_vectors_are_the_same() -> None:
    """What is published here and what the id recipe was tested with before do not differ."""
    path = Path(__file__).parents[1] / "testdata" / "execution-id-vectors.json"
    here = {v["uuid"]: v for v in EXECUTIONS}
    both = [v for v in json.loads(path.read_text("utf-8")) if v["uuid"] in here]
    assert len(both) >= 5
    for vector in both:
        assert vector.items() <= here[vector["uuid"]].items()


@pytest.mark.parametrize("vector", EXECUTIONS, ids=lambda v: v["note"])
def test_shell(vector: dict[str, str], tmp_path: Path) -> None:
    """The README's line for the shell, with `sha256sum`, prints the ids of every vector."""
    needs("sh", "sha256sum")
    out = run("sh", "-c", line("sh"), cwd=tmp_path, UUID=vector["uuid"]).stdout
    assert out.strip() == vector["trace_id"] + vector["span_id"]


@pytest.mark.parametrize("language", ["python", "js", "go"])
def test_lines(language: str, tmp_path: Path) -> None:
    """So do those for Python, JavaScript and Go (three vectors; a UTF-8 one among them)."""
    command: tuple[str | Path, ...]
    if language == "python":
        command = (sys.executable, "-c", line(language))
    elif language == "js":
        needs("node")
        command = ("node", "-e", line(language))
    else:
        needs("go")
        imports = "\n".join(f'import "{name}"' for name in ("crypto/sha256", "fmt", "os"))
        source = tmp_path / "main.go"
        source.write_text(f"package main\n{imports}\nfunc main() {{\n{line(language)}\n}}\n")
        run("go", "build", "-o", "ids", source, cwd=tmp_path, GOWORK="off")
        command = (tmp_path / "ids",)
    for vector in (EXECUTIONS[0], EXECUTIONS[7], EXECUTIONS[12]):
        out = run(*command, cwd=tmp_path, UUID=vector["uuid"]).stdout
        assert out.strip() == vector["trace_id"] + vector["span_id"], vector["note"]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The example folder, where its package managers may write."""
    return Path(shutil.copytree(FOLDER, tmp_path / "correlate"))


def test_node(copy: Path) -> None:
    """The propagator for Node passes all vectors against the OpenTelemetry API, keeps a valid
    `traceparent`, and injects nothing."""
    needs("node", "npm")
    here = copy / "node"
    run("npm", "ci", "--prefer-offline", "--no-audit", "--no-fund", cwd=here)
    out = run("npm", "test", cwd=here).stdout
    assert re.search(r"^(#|ℹ) pass [1-9]", out, re.MULTILINE), out


def test_go(copy: Path) -> None:
    """So does the one for Go."""
    needs("go")
    out = run("go", "test", "-mod=readonly", "-v", "./...", cwd=copy / "go", GOWORK="off").stdout
    assert out.count("--- PASS") >= 5


def test_java(copy: Path) -> None:
    """So does the one for Java, and `OTEL_PROPAGATORS` finds it by its name."""
    needs("java", "javac", "mvn")
    run("mvn", "-q", "-B", "-ntp", "test", cwd=copy / "java")
    (report,) = (copy / "java" / "target" / "surefire-reports").glob("*.txt")
    assert re.search(r"Tests run: [5-9], Failures: 0, Errors: 0, Skipped: 0", report.read_text())
