"""The comparison with the SDK script in machine instructions, which do not depend on other load.

Counted by valgrind, about fifty times slower than life; what a process costs before its first
execution is taken out by running N and 4 N, of the script N and 3 N. The script is counted once:
hardly anything of what it costs depends on the page size; with fewer executions, what it does by
the clock would show. Arguments: `--executions N`, `--pages 30,100,1000`, `--check` (exit
code 1 where a ratio is more than `TOLERANCE` worse than in `RATIOS`).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from common import HERE, both_ends

RATIOS = {30: 7.1, 100: 8.4, 1000: 9.1}
"""By page size, how many times otel-alloy's instructions the script takes."""
TOLERANCE = 1.06
"""Below a tenth, and above what two runs differ by, as batches end by the clock, too."""
_TOGETHER = 2


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


def per_execution(script: str, page: int, few: int, many: int) -> float:
    """Instructions that each execution beyond `few` takes."""
    counts = []
    for number in (few, many):
        with both_ends(number) as (alloy, otlp):
            counts.append(instructions(script, alloy, otlp, str(page), "none"))
    return (counts[1] - counts[0]) / (many - few)


def main() -> None:
    """Prints thousands of instructions per execution, and the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--executions", type=int, default=1_000)
    parser.add_argument("--pages", default=",".join(map(str, RATIOS)))
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("needs valgrind, which counts the instructions")
    few, pages = options.executions, [int(page) for page in options.pages.split(",")]
    with ThreadPoolExecutor(_TOGETHER) as pool:
        script = pool.submit(per_execution, "sdk_script.py", max(RATIOS), few, 3 * few)
        ours = {
            page: pool.submit(per_execution, "otel_alloy_once.py", page, few, 4 * few)
            for page in pages
        }
        other = script.result()
        print(f"SDK script: {other / 1000:7.1f} thousand instructions per execution", flush=True)
        worse = []
        for page, counted in ours.items():
            cost = counted.result()
            ratio = other / cost
            line = f"page {page:>4}: {cost / 1000:7.1f} thousand, 1/{ratio:.2f} of the script"
            print(line, flush=True)
            if ratio * TOLERANCE < RATIOS.get(page, 0.0):
                worse.append(f"{line}; it was 1/{RATIOS[page]}")
    if options.check and worse:
        raise SystemExit("otel-alloy has become more expensive:\n" + "\n".join(worse))


if __name__ == "__main__":
    main()
