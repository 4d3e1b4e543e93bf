"""What the customer on the resource costs: CPU of the sender, requests and bytes, with 10, 1,000
and 10,000 customers, without it, with `resource_per`, and with a header as well.

Batches of 1,000 executions, each of a customer by chance, are converted and delivered over
OTLP/HTTP to a process of its own that acknowledges; reading them, and the store, are not part of
it. The three ways take turns in one run, and each figure is the best of its rounds, so ratios hold
where microseconds do not. Arguments: `--batches N`, `--rounds N`.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from common import END_MS, both_ends

from otel_alloy.alloy.models import read_page
from otel_alloy.mapping.convert import Converter, Execution, Role
from otel_alloy.mapping.encode import Envelope
from otel_alloy.otlp.delivery import Delivery, Report
from otel_alloy.otlp.http import HttpSender
from otel_alloy.routing.customers import Customers, GroupedEnvelope
from otel_alloy.routing.headers import Template
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.otlp import OtlpSettings
from otel_alloy.testing.simulator import Traffic, generate

BATCH = 1000
FIELDS = ("user.id",)
RESOURCE = {"service.name": "runalloy"}
ENVELOPE = partial(Envelope, scope_name="otel_alloy", scope_version="1")
TENANT = Template.of("X-Scope-OrgID", "{user.id}", FIELDS)
WAYS = ("neither", "resource_per", "with a header")


@dataclass
class Way:
    """One way to deliver, and what it took: seconds of CPU and of the clock in its best round."""

    customers: Customers | None
    converter: Converter
    delivery: Delivery
    reports: list[Report]
    cpu: float = float("inf")
    elapsed: float = float("inf")

    def deliver(self, batch: list[Execution]) -> None:
        """A batch, as `BatchProcessor` does."""
        spans, logs = [], []
        for execution in batch:
            span, record = self.converter.convert(execution)
            spans.append(span)
            logs.append(record)
        if self.customers is None:
            plain = ENVELOPE(RESOURCE)
            self.delivery.deliver(spans, logs, plain, plain)
            return
        grouped = GroupedEnvelope(self.customers.groups(batch))
        self.delivery.deliver(spans, logs, grouped, grouped)


def batches(number: int, customers: int) -> list[list[Execution]]:
    """Executions as pages bring them, each of a customer by chance."""
    chance = random.Random(4)
    end = END_MS / 1000
    traffic = Traffic(lifecycle="terminal")
    records = list(generate(number * BATCH, start=end - 86_400, end=end, traffic=traffic))
    found = []
    for begin in range(0, number * BATCH, BATCH):
        page = [
            record | {"userId": f"{chance.randrange(customers):024x}"}
            for record in records[begin : begin + BATCH]
        ]
        read = read_page(json.dumps({"notifications": page}).encode()).records
        found.append([Execution(one.notification, Role.ENDED) for one in read])
    return found


def open_way(name: str, otlp: str) -> Way:
    """As the settings would have it."""
    runtime = system_runtime()
    converter = Converter()
    customers = None
    if name != "neither":
        templates = [TENANT] if name == "with a header" else []
        customers = Customers(FIELDS, templates, RESOURCE, ENVELOPE, converter.clean)
    reports: list[Report] = []
    traces, logs = (
        OtlpSettings("traces", endpoint=f"{otlp}/v1/traces"),
        OtlpSettings("logs", endpoint=f"{otlp}/v1/logs"),
    )
    delivery = Delivery(
        HttpSender(traces, "bench", runtime),
        HttpSender(logs, "bench", runtime),
        max_request_bytes=3_670_016,
        runtime=runtime,
        report=reports.append,
    )
    return Way(customers, converter, delivery, reports)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print("customers, in a batch | way | CPU | of neither | requests a batch | bytes | s a batch")
    with both_ends(1) as (_, otlp):
        for customers in (10, 1_000, 10_000):
            work = batches(options.batches, customers)
            executions = sum(map(len, work))
            present = sum(len({e.notification.userId for e in b}) for b in work) // len(work)
            ways = {name: open_way(name, otlp) for name in WAYS}
            for number in range(options.rounds + 1):
                for way in ways.values():
                    way.reports.clear()
                    cpu, begun = time.process_time(), time.monotonic()
                    for batch in work:
                        way.deliver(batch)
                    if number:  # the first one fills what is remembered
                        way.cpu = min(way.cpu, time.process_time() - cpu)
                        way.elapsed = min(way.elapsed, time.monotonic() - begun)
            for name, way in ways.items():
                with closing(way.delivery):
                    print(
                        f"{customers:,}, {present:,} | {name} "
                        f"| {way.cpu / executions * 1e6:.1f} µs "
                        f"| {way.cpu / ways['neither'].cpu:.2f} "
                        f"| {len(way.reports) / len(work):,.0f} "
                        f"| {sum(r.bytes for r in way.reports) / executions:,.0f} "
                        f"| {way.elapsed / len(work):.3f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
