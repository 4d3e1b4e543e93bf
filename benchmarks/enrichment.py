"""What is told of failed executions: how many with their block and with their reason, whether any
reason is another's, and how many requests that takes.

A virtual hour, as in `reading.py`, with the default settings. Five customers have three workflows
each, and one in twenty executions fails: `spread`, nine in ten of them for a customer and workflow
that change every minute; or `outage`, where an app is away for every tenth minute, and half of what
happens then fails in one workflow of one customer. Many run at the same time, and fail in the same
block. Steps and errors can be seen three seconds
after the end. With the error webhook, 97 of 100 failures are posted, after a second. Arguments:
`--executions`.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, closing
from email.message import Message
from typing import Any

from reading import START, Clock

from otel_alloy.alloy.models import Page, read_page
from otel_alloy.alloy.query import Query
from otel_alloy.checkpoint.store import open_store
from otel_alloy.errors import RequestRefused
from otel_alloy.mapping.ids import execution_ids
from otel_alloy.pipeline.factory import Factory
from otel_alloy.pipeline.kept_report import KeptReport
from otel_alloy.pipeline.poller import Poller
from otel_alloy.privacy import masked
from otel_alloy.settings.models import Settings
from otel_alloy.testing.otlp_endpoint import OtlpEndpoint, Received
from otel_alloy.testing.simulator import Config, LogStore, iso
from otel_alloy.testing.simulator.inside import failure_of
from otel_alloy.testing.simulator.operations import answer

HOUR = 3600.0
_DAY_MS = 86_400_000


class Api:
    """Alloy without a socket."""

    def __init__(self, log: LogStore, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self.inside = 0

    def fetch(self, query: Query) -> Page:
        """Answers as the simulator does."""
        self._clock.wait(0.1)
        page = read_page(self._log.query(query.parameters()).body)
        page.server_date = int(self._clock.now * 1000)
        return page

    def get(self, path: str, parameters: Mapping[str, str]) -> bytes:
        """The same for the inside of executions."""
        self._clock.wait(0.1)
        self.inside += 1
        headers = Message()
        headers["x-api-version"] = "2025-09"
        told = answer(self._log, path, parameters, headers, self._clock.now)
        if told.status != 200:
            raise RequestRefused(str(told.status))
        return told.body

    def close(self) -> None:
        """Nothing is open."""


def executions(number: int, outage: bool) -> list[tuple[float, dict[str, Any]]]:
    """Ends of executions, with the moment of each."""
    chance = random.Random(3)
    found = []
    bad = (0, 0)
    for at in range(number):
        moment = START + 60 + at * (HOUR - 120) / number + chance.uniform(0, 1)
        minute = at // (number // 60)
        if at % (number // 60) == 0:
            bad = (chance.randrange(5), chance.randrange(3))
        failing = 0.05 if not outage else 0.5 if minute % 10 == 5 else 0.001
        failed = chance.random() < failing
        user, workflow = (
            bad if failed and chance.random() < 0.9 else (chance.randrange(5), chance.randrange(3))
        )
        uuid = hashlib.sha256(f"enrichment:{at}".encode()).hexdigest()[:21]
        ended = round(moment * 1000)
        record = {
            "_id": f"{at:024x}",
            "message": "executionError" if failed else "executionFinished",
            "data": {"executionId": f"{at:024x}", "executionUuid": uuid},
            "forgeWorkflowId": f"w{workflow}",
            "forgeWorkflow": {"name": f"orders {workflow}"},
            "workflowId": f"w{workflow}u{user}",
            "workflowVersion": 1,
            "userId": f"u{user}",
            "startedAt": iso(ended - round(chance.choice([300, 900, 2500]))),
            "completedAt": iso(ended),
            "createdAt": iso(ended),
        }
        found.append((moment, record))
    return sorted(found, key=lambda one: one[0])


def measure(number: int, outage: bool, webhook: bool) -> Counter[str]:
    """What became of the failed ones."""
    clock, told = Clock(), Counter[str]()
    log = LogStore(Config(inside_late=3.0), clock=lambda: clock.now)
    ends = executions(number, outage)
    for moment, record in ends:
        log.add(record, visible_at=moment)
    api, chance = Api(log, clock), random.Random(5)
    failures = {r["data"]["executionUuid"]: f for _, r in ends if (f := failure_of(r))}
    posted = sorted(
        (m + 1, str(r["data"]["executionUuid"]))
        for m, r in ends
        if r["data"]["executionUuid"] in failures and chance.random() < 0.97
    )
    by_trace = {execution_ids(uuid)[0]: uuid for uuid in failures}

    def arrived(received: Received) -> None:
        if received.signal != "logs":
            return
        for item in received.items():
            log_record: Any = item.record
            uuid = by_trace.get(log_record.trace_id)
            if uuid is None:
                continue
            attributes = {a.key: a.value.string_value for a in log_record.attributes}
            told["failed"] += 1
            told["block"] += "runalloy.block.id" in attributes
            message = attributes.get("exception.message")
            if message is not None:
                told["reason"] += 1
                told[attributes["runalloy.reason.source"]] += 1
                told["wrong"] += message != masked(failures[uuid].reason, "mask")

    with ExitStack() as stack:
        otlp = stack.enter_context(OtlpEndpoint(arrived, store=False))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        settings = Settings.model_validate(
            {
                "api_key": "bench",
                "storage": f"sqlite:///{folder}/checkpoint.db",
                "initial_lookback": 1,
                "webhook": {"listen": "127.0.0.1:1", "secret": "x" * 32} if webhook else {},
                "environment": {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp.http_endpoint},
            }
        )
        store = stack.enter_context(closing(open_store(settings.storage)))
        factory = Factory(settings, clock.runtime(), client=lambda source, runtime: api)
        poller = Poller(factory, settings.sources[0], store, lambda event: None)
        stack.enter_context(closing(poller))
        while clock.now < START + HOUR + 60:
            while webhook and posted and posted[0][0] <= clock.now:
                _, uuid = posted.pop(0)
                report = KeptReport(message=masked(failures[uuid].reason, "mask"))
                now = int(clock.now * 1000)
                store.write_reason(uuid, now, report.text(), now - _DAY_MS)
            begun = clock.now
            poller.cycle()
            clock.wait(poller.interval - (clock.now - begun))
    told["requests"] = api.inside
    return told


def main() -> None:
    """Prints a line per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=10_000)
    number = parser.parse_args().executions
    heads = ("failures", "webhook", "failed", "with block", "with reason", "another's reason")
    print(f"| {' | '.join(heads)} | requests a failure |")
    print("|---|---|---|---|---|---|---|")
    for outage, webhook in ((False, False), (False, True), (True, False), (True, True)):
        told = measure(number, outage, webhook)
        failed = max(1, told["failed"])
        print(
            f"| {'outage' if outage else 'spread'} | {'on' if webhook else 'off'} | {failed:,} "
            f"| {told['block'] / failed:.1%} "
            f"| {told['reason'] / failed:.1%} (webhook {told['webhook']:,}) | {told['wrong']} "
            f"| {told['requests'] / failed:.2f} |"
        )


if __name__ == "__main__":
    main()
