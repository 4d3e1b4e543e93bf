"""What the benchmarks share: both ends in a process of their own, and scripts that print JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    executions: int, *, request: float = 0.0, export: float = 0.0
) -> Iterator[tuple[str, str]]:
    """The endpoints of a simulated Alloy with so many executions and of an OTLP endpoint, which
    take `request` and `export` seconds to answer."""
    far = subprocess.Popen(
        [sys.executable, str(HERE / "both_ends.py"), str(executions), str(request), str(export)],
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
