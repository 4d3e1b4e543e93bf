"""Does an execution cost more where there are more of them? Requests, CPU, memory, checkpoint.

Two drains, of N and of 100 N executions. The first batches of a process cost more than the others
(caches, connections), so a small drain looks dearer than it is; what shows growth is the deep
drain's last fifth beside its second one. Argument: `--executions N`.
"""

from __future__ import annotations

import argparse
from typing import Any

from common import both_ends, measure


def cost(marks: list[list[float]], begin: float, end: float) -> float:
    """Microseconds per execution between two shares of a drain."""
    total = marks[-1][0]
    first = next(m for m in marks if m[0] >= total * begin)
    last = next(m for m in marks if m[0] >= total * end)
    return (last[1] - first[1]) / (last[0] - first[0]) * 1e6


def main() -> None:
    """Prints a line per depth and the growth; see the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--executions", type=int, default=20_000)
    parser.add_argument("--page", type=int, default=1000)
    options = parser.parse_args()
    result: dict[str, Any] = {}
    for number in (options.executions, 100 * options.executions):
        with both_ends(number) as (alloy, otlp):
            result = measure("otel_alloy_once.py", alloy, otlp, str(options.page), "none")
        assert result["executions"] == number, result
        micros = (result["cpu"] - result["imports"]) / number * 1e6
        print(
            f"{number:>9} executions: {micros:5.1f} us and "
            f"{1000 * result['requests'] / number:.2f} requests per 1,000 of them, "
            f"peak {result['peak_mb']:.0f} MB, checkpoint {result['checkpoint_mb']:.2f} MB",
            flush=True,
        )
    early, late = cost(result["marks"], 0.2, 0.4), cost(result["marks"], 0.8, 1.0)
    print(f"second fifth {early:.1f} us, last fifth {late:.1f} us, ratio {late / early:.3f}")


if __name__ == "__main__":
    main()
