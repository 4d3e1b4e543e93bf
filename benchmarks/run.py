"""`make bench`: what otel-alloy costs, beside a plain SDK script on the same data in the same run.

Times on shared machines are noisy, so the figure that counts is the ratio of CPU times, each the
best of several alternating runs. Arguments: `--executions N`, `--rounds N`, `--limit RATIO`
(exit code 1 when otel-alloy costs more than that share of the script).
"""

from __future__ import annotations

import argparse
from typing import Any

from common import far_ends, measure


def main() -> None:
    """Prints one line per case; see the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--executions", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=None)
    options = parser.parse_args()
    worst = 0.0
    with far_ends(options.executions) as (alloy, otlp):
        print(f"{options.executions} executions, span and log record each; CPU of the process")
        for page, compression in ((1000, "none"), (1000, "gzip"), (30, "none")):
            ours: list[dict[str, Any]] = []
            script: list[dict[str, Any]] = []
            for _ in range(options.rounds):
                for results, name in ((ours, "otel_alloy_once.py"), (script, "sdk_script.py")):
                    result = measure(name, alloy, otlp, str(page), compression)
                    if result["executions"] != options.executions:
                        raise SystemExit(f"{name} sent {result['executions']} executions")
                    results.append(result)
            best = min(ours, key=lambda r: r["cpu"])
            cost = (best["cpu"] - best["imports"]) / options.executions * 1e6
            other = min(r["cpu"] for r in script) / options.executions * 1e6
            ratio = cost / other
            worst = max(worst, ratio) if page == 1000 and compression == "none" else worst
            print(
                f"page {page:>4}, {compression:<4}: otel-alloy {cost:6.1f} us per execution, "
                f"SDK script {other:6.1f} us, ratio 1/{1 / ratio:.1f}; "
                f"{best['requests']} requests, peak {best['peak_mb']:.0f} MB, "
                f"imports {best['imports']:.2f} s"
            )
    if options.limit is not None and worst > options.limit:
        raise SystemExit(f"the ratio {worst:.3f} is above the limit {options.limit}")


if __name__ == "__main__":
    main()
