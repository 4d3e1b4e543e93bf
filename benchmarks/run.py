"""`make bench`: what otel-alloy costs, beside a plain SDK script on the same data in the same run.

Times on shared machines are noisy, so the figure that counts is the ratio of CPU times, each the
best of several alternating runs. Arguments: `--executions N`, `--rounds N`, `--check` (exit code 1
where a ratio is more than a quarter worse than what `CASES` promises).
"""

from __future__ import annotations

import argparse
from typing import Any

from common import both_ends, measure

CASES = ((1000, "none", 1 / 8), (1000, "gzip", 1 / 6), (30, "none", 1 / 4))
"""Page size, compression, and the share of the script's CPU that otel-alloy keeps to."""
TOLERANCE = 1.25


def main() -> None:
    """Prints one line per case; see the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--executions", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    lost: list[str] = []
    with both_ends(options.executions) as (alloy, otlp):
        print(f"{options.executions} executions, span and log record each; CPU of the process")
        for page, compression, promised in CASES:
            ours: list[dict[str, Any]] = []
            script: list[dict[str, Any]] = []
            for _ in range(options.rounds):
                for results, name in ((ours, "otel_alloy_once.py"), (script, "sdk_script.py")):
                    result = measure(name, alloy, otlp, str(page), compression)
                    if result["executions"] != options.executions:
                        raise SystemExit(f"{name} sent {result['executions']} executions")
                    results.append(result)
            best = min(ours, key=lambda r: r["cpu"] - r["imports"])
            cost = (best["cpu"] - best["imports"]) / options.executions * 1e6
            other = min(r["cpu"] for r in script) / options.executions * 1e6
            words = (
                f"page {page:>4}, {compression:<4}: otel-alloy {cost:6.1f} us per execution, "
                f"SDK script {other:6.1f} us, ratio 1/{other / cost:.1f}; "
                f"{best['requests']} requests, peak {best['peak_mb']:.0f} MB, "
                f"imports {best['imports']:.2f} s"
            )
            print(words, flush=True)
            if cost / other > promised * TOLERANCE:
                lost.append(f"{words} (promised: 1/{1 / promised:g}, less a quarter)")
    if options.check and lost:
        raise SystemExit("otel-alloy has become more expensive:\n" + "\n".join(lost))


if __name__ == "__main__":
    main()
