"""Guarantees of `errors`: problem and remedy stay two values, also from one process to another."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest

import otel_alloy
from otel_alloy.errors import (
    AccessRefused,
    AlloyReceiverError,
    ConfigurationError,
    ShutdownRequested,
    Throttled,
)

_SPLITS = {"partition", "rpartition", "split", "rsplit"}


def test_the_text_is_the_problem_and_then_the_remedy() -> None:
    """What people read did not change: `problem; remedy`, or the problem alone."""
    error = AccessRefused("example.com refuses the API key; (401)", "check ALLOY_API_KEY")
    assert str(error) == "example.com refuses the API key; (401); check ALLOY_API_KEY"
    assert (error.problem, error.remedy) == (error.args[0], "check ALLOY_API_KEY")
    assert (str(AccessRefused("no")), AccessRefused("no").remedy) == ("no", "")


@pytest.mark.parametrize(
    "error",
    [
        AccessRefused("no", "check the key"),
        Throttled("slow down", "wait", after=7.0),
        ConfigurationError(["one", "two"]),
    ],
)
def test_errors_pass_from_a_worker_process_unchanged(error: AlloyReceiverError) -> None:
    """Backfill's worker processes hand their errors up by pickle."""
    error.status = 429
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_a_shutdown_is_no_error() -> None:
    """Who handles errors does not take a shutdown for one."""
    assert not issubclass(ShutdownRequested, AlloyReceiverError)


def test_no_module_takes_a_text_apart_at_a_semicolon() -> None:
    """A remedy is never searched for in a message. (A media type ends at its semicolon.)"""
    package = Path(otel_alloy.__file__).parent
    found = [
        f"{path.relative_to(package)}:{node.lineno}"
        for path in sorted(package.rglob("*.py"))
        if path.name != "http.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in _SPLITS
        and any(isinstance(a, ast.Constant) and a.value in (";", "; ") for a in node.args)
    ]
    assert found == []
