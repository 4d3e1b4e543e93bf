"""victorialogs.yaml: log records from simulated Alloy through otel-alloy and a real Collector into
a real VictoriaLogs, and what the documentation says of it."""

from __future__ import annotations

import re
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from otel_alloy.alloy.timestamps import to_ns
from otel_alloy.mapping.ids import execution_ids

from .conftest import (
    CONFIGURATIONS,
    Collector,
    StartCollector,
    StartVictoriaLogs,
    VictoriaLogs,
    free_port,
    wait_until,
)
from .test_configs import TRACE
from .test_configs import logs as export_logs

if TYPE_CHECKING:
    from conftest import Place

KEEP = "-retentionPeriod=100d"
DAYS = 59


def behind(collector: StartCollector, logs: VictoriaLogs) -> Collector:
    """A Collector with the configuration; nobody is in Jaeger's place."""
    return collector(
        "jaeger.yaml",
        "victorialogs.yaml",
        environment={
            "VICTORIALOGS_ENDPOINT": logs.url,
            "JAEGER_OTLP_ENDPOINT": f"127.0.0.1:{free_port()}",
        },
    )


def filled(place: Place, executions: int) -> list[dict[str, Any]]:
    """Ended executions of the last 59 days, by this machine's clock, at Alloy."""
    place.now = time.time()
    return place.fill(executions, days=DAYS, lifecycle="terminal", error_rate=0.3)


def count(logs: VictoriaLogs, pipe: str = "count()") -> int:
    """How many records it finds in our stream; a stream that is new on a day is found by its name a
    little later than its records are."""
    (row,) = logs.ask(f'{{service.name="runalloy"}} | stats {pipe} n')
    return int(row["n"])


def queries() -> list[str]:
    """What the README asks VictoriaLogs, each with its comment."""
    text = (CONFIGURATIONS / "README.md").read_text("utf-8")
    (block,) = re.findall(r"```logsql\n(.*?)```", text, re.DOTALL)
    return [query.strip() for query in block.split("\n\n")]


@pytest.mark.e2e
def test_each_record_is_found_once_by_the_queries_of_the_documentation(
    collector: StartCollector, victorialogs: StartVictoriaLogs, place: Place
) -> None:
    """Every execution of 59 days has one record, with its own time, in one stream; the queries of
    the README give what Alloy's own records say."""
    records = filled(place, 150)
    logs = victorialogs(KEEP)
    place.once(
        OTEL_EXPORTER_OTLP_ENDPOINT=behind(collector, logs).http,
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
    )
    wait_until(lambda: count(logs) >= len(records), otherwise="not everything arrived")

    by_uuid = {record["data"]["executionUuid"]: record for record in records}
    rows = logs.ask("*")
    assert Counter(row["runalloy.execution.uuid"] for row in rows) == Counter(list(by_uuid))
    assert {row["_stream"] for row in rows} == {'{service.name="runalloy"}'}
    for row in rows:
        record = by_uuid[row["runalloy.execution.uuid"]]
        ended = datetime.fromisoformat(row["_time"])
        assert abs(ended.timestamp() - (to_ns(record["completedAt"]) or 0) / 1e9) < 0.001
        assert row["trace_id"] == execution_ids(row["runalloy.execution.uuid"])[0].hex()

    failed = [r for r in records if r["message"] == "executionError"]
    names = Counter(record["forgeWorkflow"]["name"] for record in records)
    name, most = names.most_common(1)[0]
    one = failed[-1]
    trace = execution_ids(one["data"]["executionUuid"])[0].hex()
    failures, of_trace, of_workflow, by_workflow, by_customer = (
        logs.ask(
            re.sub(r"trace_id:=\w+", f"trace_id:={trace}", query).replace(
                "Shopify orders to NetSuite", name
            )
        )
        for query in queries()
    )
    assert Counter(row["runalloy.execution.uuid"] for row in failures) == Counter(
        record["data"]["executionUuid"] for record in failed
    )
    assert [row["_time"] for row in failures] == sorted(
        (row["_time"] for row in failures), reverse=True
    )
    assert [row["runalloy.execution.uuid"] for row in of_trace] == [one["data"]["executionUuid"]]
    assert len(of_workflow) == most
    failed_names = Counter(record["forgeWorkflow"]["name"] for record in failed)
    assert {
        row["runalloy.workflow.name"]: (int(row["executions"]), int(row["failed"]))
        for row in by_workflow
    } == {name: (names[name], failed_names[name]) for name in names}
    lately = (place.now - 30 * 86400) * 1e9
    customers = Counter(r["userId"] for r in failed if (to_ns(r["completedAt"]) or 0) > lately)
    assert customers and {row["user.id"]: int(row["failed"]) for row in by_customer} == customers
    assert [int(row["failed"]) for row in by_customer] == sorted(customers.values(), reverse=True)


@pytest.mark.e2e
def test_what_comes_twice_is_kept_twice_and_counted_once(
    collector: StartCollector, victorialogs: StartVictoriaLogs, place: Place
) -> None:
    """As the README says: rows double, the records' own ids do not."""
    records = filled(place, 40)
    logs = victorialogs(KEEP)
    running = behind(collector, logs)
    for _ in range(2):
        place.once(OTEL_EXPORTER_OTLP_ENDPOINT=running.http)
        place.storage.unlink()
    wait_until(lambda: count(logs) >= 2 * len(records), otherwise="not everything arrived twice")
    assert count(logs) == 2 * len(records)
    assert count(logs, "count_uniq(log.record.uid)") == len(records)


@pytest.mark.e2e
def test_without_longer_retentions_records_are_dropped_in_silence(
    victorialogs: StartVictoriaLogs, place: Place
) -> None:
    """With VictoriaLogs's own settings, records older than 7 days are answered like all others and
    gone, in a counter and a line of its log; nothing is set aside. So is one that lies 3 days
    ahead. It is sent directly, with the variables that docs/backends.md gives."""
    records = filled(place, 60)
    logs = victorialogs()
    page = (CONFIGURATIONS.parent / "docs" / "backends.md").read_text("utf-8")
    given = dict(re.findall(r"^export (OTEL_EXPORTER_OTLP_LOGS_\w+)=(.*9428.*|vl-.*)$", page, re.M))
    assert len(given) == 2
    place.once(
        OTEL_TRACES_EXPORTER="none",
        **{name: value.replace("http://localhost:9428", logs.url) for name, value in given.items()},
    )
    edge = datetime.now(UTC) - timedelta(days=7)
    young = [r for r in records if (to_ns(r["completedAt"]) or 0) / 1e9 > edge.timestamp()]
    assert young and len(young) < len(records)
    wait_until(lambda: count(logs) >= len(young), otherwise="not everything arrived")
    assert count(logs) == len(young)
    wait_until(
        lambda: logs.metric("vl_rows_dropped_total") == len(records) - len(young),
        otherwise="nothing is counted as dropped",
    )
    assert "retention" in logs.output()
    assert place.rejected() == []

    ahead = export_logs(TRACE)
    (record,) = ahead.resource_logs[0].scope_logs[0].log_records
    record.time_unix_nano += 3 * 86400 * 10**9
    httpx.post(
        f"{logs.url}/insert/opentelemetry/v1/logs",
        content=ahead.SerializeToString(),
        headers={"Content-Type": "application/x-protobuf"},
        trust_env=False,
    ).raise_for_status()
    wait_until(
        lambda: logs.metric("vl_rows_dropped_total") == len(records) - len(young) + 1,
        otherwise="it is kept",
    )
