"""How long an execution takes from its createdAt to the collector, at several collection intervals.

The simulated Alloy's clock is the real one, executions end at random moments, and each interval has
a process of its own: the command, with its default settings but for the interval and the request
budget. An arrival is the moment at which the OTLP request is read, before it is acknowledged. What
ended before the command's first request does not count. Arguments: `--intervals`, `--rate`,
`--seconds`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack

from otel_alloy.testing.otlp_endpoint import OtlpEndpoint, Received
from otel_alloy.testing.simulator import Simulator, Traffic, live


class Command:
    """The command at one interval, and the latencies of what arrives from it, in seconds."""

    def __init__(self, interval: float, alloy: str, folder: str, stack: ExitStack) -> None:
        self.latencies: list[float] = []
        self.interval = interval
        self.began = time.time()
        self._lock = threading.Lock()
        otlp = stack.enter_context(OtlpEndpoint(self._arrived, store=False))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "otel_alloy", "run"],
            env={
                "PATH": os.environ.get("PATH", ""),
                "ALLOY_API_KEY": "bench",
                "ALLOY_ENDPOINT": alloy,
                "OTEL_EXPORTER_OTLP_ENDPOINT": otlp.http_endpoint,
                "OTEL_ALLOY_STORAGE": f"sqlite:///{folder}/{interval:g}.db",
                "OTEL_ALLOY_COLLECTION_INTERVAL": f"{interval:g}s",
                "OTEL_ALLOY_REQUESTS_PER_MINUTE": "0",
                "OTEL_ALLOY_ENRICH": "off",
                "OTEL_ALLOY_INITIAL_LOOKBACK": "0",
                "OTEL_ALLOY_HEALTH_ENDPOINT": "",
            },
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _arrived(self, received: Received) -> None:
        now = time.time()
        if received.signal != "logs":
            return
        for item in received.items():
            # The observed time of a log record is the notification's createdAt.
            created = getattr(item.record, "observed_time_unix_nano", 0) / 1e9
            with self._lock:
                if created > self.began:
                    self.latencies.append(now - created)

    def end(self) -> None:
        """Ends the command."""
        self._process.terminate()
        self._process.wait()


def share(latencies: list[float], part: float) -> float:
    """The latency that `part` of them do not exceed."""
    return sorted(latencies)[min(len(latencies) - 1, int(len(latencies) * part))]


def main() -> None:
    """Prints a line per interval; see the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--intervals", default="30,5,1", help="seconds, with commas")
    parser.add_argument("--rate", type=float, default=2.0, help="executions a second")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long it is watched")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        commands: list[tuple[Command, Simulator]] = []
        for interval in map(float, options.intervals.split(",")):
            alloy = stack.enter_context(Simulator())
            traffic = Traffic(seed=1, lifecycle="terminal")
            alloy.store.feed(live(start=time.time(), rate=options.rate, traffic=traffic))
            command = Command(interval, alloy.endpoint, folder, stack)
            stack.callback(command.end)
            commands.append((command, alloy))
        for command, alloy in commands:
            while not alloy.requests:
                time.sleep(0.01)
            command.began = max(command.began, time.time())
        time.sleep(options.seconds)
        for command, alloy in commands:
            found = list(command.latencies)
            if not found:
                raise SystemExit(f"nothing arrived at an interval of {command.interval:g} s")
            print(
                f"interval {command.interval:>3g} s: {len(found)} executions, "
                f"p50 {share(found, 0.5):5.2f} s, p95 {share(found, 0.95):5.2f} s, "
                f"max {max(found):5.2f} s; {60 * len(alloy.requests) / options.seconds:.0f} "
                "requests a minute"
            )


if __name__ == "__main__":
    main()
