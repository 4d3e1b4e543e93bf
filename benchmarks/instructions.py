"""The comparison with the SDK script in machine instructions, which do not depend on other load.

Counted by valgrind, about fifty times slower than life; what a process costs before its first
execution is taken out by running N and 3 N. Arguments:
`--executions N`, `--check` (exit code 1 where the ratio is a quarter worse than `RATIO`).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys

from common import HERE, both_ends

RATIO = 8.9
"""How many times otel-alloy's instructions the script takes."""
TOLERANCE = 1.25


def instructions(script: str, *arguments: str) -> int:
    """How many instructions a script of this folder takes from its start to its end."""
    done = subprocess.run(
        [
            *("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"),
            *(sys.executable, str(HERE / script), *arguments),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if found is None:
        raise SystemExit(f"valgrind said something else:\n{done.stderr[-500:]}")
    return int(found[1].replace(",", ""))


def main() -> None:
    """Prints thousands of instructions per execution, and the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--executions", type=int, default=2_000)
    parser.add_argument("--page", type=int, default=1000)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("needs valgrind, which counts the instructions")
    few, many = options.executions, 3 * options.executions
    costs = {}
    for script in ("otel_alloy_once.py", "sdk_script.py"):
        counts = []
        for number in (few, many):
            with both_ends(number) as (alloy, otlp):
                counts.append(instructions(script, alloy, otlp, str(options.page), "none"))
        costs[script] = (counts[1] - counts[0]) / (many - few)
        print(
            f"{script:<18}: {costs[script] / 1000:7.1f} thousand instructions per execution, "
            f"{counts[0] / 1e9:.2f} billion for {few}",
            flush=True,
        )
    ratio = costs["sdk_script.py"] / costs["otel_alloy_once.py"]
    print(f"ratio 1/{ratio:.1f}")
    if options.check and ratio * TOLERANCE < RATIO:
        raise SystemExit(f"otel-alloy has become more expensive: it was 1/{RATIO} of the script")


if __name__ == "__main__":
    main()
