"""Both far ends of a benchmark in one process of their own: simulated Alloy and an OTLP endpoint.

Prints their two addresses, serves until standard input ends. The endpoint acknowledges and
counts, and keeps nothing.
"""

from __future__ import annotations

import sys

from otel_alloy.endpoint import OtlpEndpoint
from otel_alloy.simulator import Config, Simulator, Traffic, timeline

END = 1_760_000_000.0


def main() -> None:
    """Serves `executions` (argument 1) with at most `page` (argument 2) records a page."""
    executions, delay = int(sys.argv[1]), float(sys.argv[2])
    span = min(59 * 86400.0, executions * 5.0)
    config = Config(max_limit=10_000, delay=delay, request_log=1)
    with Simulator(config, clock=lambda: END) as alloy, OtlpEndpoint(store=False) as otlp:
        traffic = Traffic(seed=1, lifecycle="terminal")
        alloy.store.feed(timeline(executions, start=END - span, end=END, traffic=traffic))
        alloy.store.advance()
        print(alloy.endpoint, otlp.http_endpoint, END - span, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
