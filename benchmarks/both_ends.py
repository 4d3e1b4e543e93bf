"""Both both ends of a benchmark in one process of their own: simulated Alloy and an OTLP endpoint.

Prints their two addresses, serves until standard input ends. The endpoint acknowledges and
counts, and keeps nothing. Executions are those of the simulator's own customers, or, where a number
of customers is given, each of one of these by chance: `u0`, `u1` and so on.
"""

from __future__ import annotations

import random
import sys
import time

from common import END_MS, of_customers

from otel_alloy.testing.otlp_endpoint import OtlpEndpoint
from otel_alloy.testing.simulator import Config, Simulator, Traffic, timeline

END = END_MS / 1000


def main() -> None:
    """Arguments: executions, the seconds that a request and an export take, customers."""
    executions, delay = int(sys.argv[1]), float(sys.argv[2])
    export = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    customers = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    span = min(59 * 86400.0, executions * 5.0)

    def wait(received: object) -> None:
        time.sleep(export)

    config = Config(max_limit=10_000, delay=delay, request_log=1)
    with Simulator(config, clock=lambda: END) as alloy, OtlpEndpoint(wait, store=False) as otlp:
        traffic = Traffic(seed=1, lifecycle="terminal")
        executed = timeline(executions, start=END - span, end=END, traffic=traffic)
        if customers:
            chance = random.Random(4)
            executed = of_customers(executed, lambda: f"u{chance.randrange(customers)}")
        alloy.store.feed(executed)
        alloy.store.advance()
        print(alloy.endpoint, otlp.http_endpoint, END - span, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
