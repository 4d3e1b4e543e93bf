"""What the benchmarks share: both ends in a process of their own, scripts that print JSON, and
executions of given customers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from otel_alloy.testing.simulator import Execution

HERE = Path(__file__).parent
END_MS = 1_760_000_000_000
"""The simulated Alloy's now, Unix ms: its newest execution ended just before."""


def measure(script: str, *arguments: str) -> dict[str, Any]:
    """Runs a script of this folder; what it prints."""
    command = [sys.executable, str(HERE / script), *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@contextmanager
def both_ends(
    executions: int, *, request: float = 0.0, export: float = 0.0, customers: int = 0
) -> Iterator[tuple[str, str]]:
    """The endpoints of a simulated Alloy with so many executions and of an OTLP endpoint, which
    take `request` and `export` seconds to answer. `customers`: see `both_ends.py`."""
    arguments = map(str, (executions, request, export, customers))
    far = subprocess.Popen(
        [sys.executable, str(HERE / "both_ends.py"), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert far.stdout is not None
    assert far.stdin is not None
    try:
        alloy, otlp, _ = far.stdout.readline().split()
        yield alloy, otlp
    finally:
        far.stdin.close()
        far.wait()


def of_customers(executions: Iterator[Execution], chosen: Callable[[], str]) -> Iterator[Execution]:
    """The same executions, each of a customer that `chosen` names."""
    for execution in executions:
        customer = chosen()
        for step in execution.steps:
            if "userId" in step.body:
                step.body["userId"] = customer
        yield execution
