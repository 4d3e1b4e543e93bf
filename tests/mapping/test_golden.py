"""Golden pairs: a notification as the API sends it, and the span and log record made of it.

`tests/testdata/NAME.input.json` goes through the models and the converter; what comes out, decoded
by the protobuf library, is `NAME.expected.json`. Where there is a `NAME.enrichment.json`, that is
known of the execution, as the store keeps it; the spans of its blocks come out too. With
OTEL_ALLOY_TEST_WRITE_GOLDEN=1 the expected files are written anew: look at the difference before
you commit it.
"""

import base64
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.logs.v1.logs_pb2 import ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from otel_alloy.alloy.models import read_page
from otel_alloy.mapping.convert import Converter, Execution, Role
from otel_alloy.mapping.enrichment import Enrichment
from otel_alloy.mapping.execution_url import ExecutionUrl

TESTDATA = Path(__file__).parents[1] / "testdata"
WRITE = bool(os.environ.get("OTEL_ALLOY_TEST_WRITE_GOLDEN"))


@dataclass(frozen=True)
class Case:
    role: Role = Role.ENDED
    started_at: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


PAGE = ExecutionUrl.parse(
    "https://alloy.example.com/{team.id}/{integration.id}/{workflow.id}/{workflow.installation.id}"
    "/{user.id}?execution={execution.id}#{execution.uuid}"
)
HASH = {"email": "hash", "full_name": "hash", "privacy_key": b"a test's key"}
CASES = {
    "vendor-sample": Case(),
    "finished": Case(),
    "event-name-attribute": Case(settings={"event_name_attribute": True}),
    "second-terminal": Case(Role.ENDED_AGAIN),
    "started": Case(Role.STARTED, settings={"started_logs": True}),
    "incomplete": Case(Role.INCOMPLETE),
    "unknown-message": Case(Role.OTHER),
    "missing-start": Case(),
    "missing-start-known-from-its-start-record": Case(started_at="2025-04-29T17:44:09.000Z"),
    "missing-completed": Case(),
    "missing-start-and-completed": Case(),
    "no-times-at-all": Case(),
    "reversed-times": Case(),
    "null-references": Case(),
    "bare-ids": Case(),
    "bare-integration": Case(),
    "only-id-and-message": Case(),
    "long-name": Case(settings={"value_limit": 64}),
    "hard-text": Case(),
    "huge-version": Case(),
    "odd-times": Case(),
    "privacy-hash": Case(settings=HASH),
    "privacy-drop": Case(settings={"email": "drop", "full_name": "drop"}),
    "extra-and-wrong-fields": Case(),
    "execution-url": Case(settings={"execution_url": PAGE}),
    "execution-url-hard-ids": Case(settings={"execution_url": PAGE}),
    "execution-url-without-an-id": Case(settings={"execution_url": PAGE}),
    "execution-url-of-blocks": Case(settings={"execution_url": PAGE}),
    "enriched-failed": Case(),
    "enriched-success": Case(),
    "enriched-odd-times": Case(),
    "enriched-without-ids": Case(),
    "enriched-hard-text": Case(settings={"value_limit": 64}),
    "enriched-reason-alone": Case(),
}


def readable(message: dict[str, Any]) -> dict[str, Any]:
    """protobuf's JSON with ids in hexadecimal, as OTLP/JSON has them."""
    for name in {"traceId", "spanId", "parentSpanId"} & message.keys():
        message[name] = base64.b64decode(message[name]).hex()
    return message


def converted(name: str) -> dict[str, Any]:
    case = CASES[name]
    notification = (TESTDATA / f"{name}.input.json").read_bytes()
    (record,) = read_page(b'{"notifications":[%b]}' % notification).records
    execution = Execution(record.notification, case.role, case.started_at)
    known = TESTDATA / f"{name}.enrichment.json"
    if known.exists():
        execution.enrichment = Enrichment.read(known.read_text("utf-8"))
        assert execution.enrichment != Enrichment()
    span, log = Converter(**case.settings).convert(execution)
    out: dict[str, Any] = {"span": None, "log": None}
    if span is not None:
        decoded, *blocks = ScopeSpans.FromString(span).spans
        out["span"] = readable(MessageToDict(decoded))
        if blocks:
            out["blocks"] = [readable(MessageToDict(block)) for block in blocks]
    if log is not None:
        (record_,) = ScopeLogs.FromString(log).log_records
        out["log"] = readable(MessageToDict(record_))
    return out


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    """The notification becomes exactly the span and the log record of its golden file."""
    path = TESTDATA / f"{name}.expected.json"
    made = converted(name)
    if WRITE:
        path.write_text(json.dumps(made, indent=2, ensure_ascii=True) + "\n")
    assert made == json.loads(path.read_text("utf-8"))


def test_every_golden_file_is_used() -> None:
    """No pair lies about that no test looks at."""
    found = {p.name.removesuffix(".input.json") for p in TESTDATA.glob("*.input.json")}
    assert found == set(CASES)
    assert found == {
        p.name.removesuffix(".expected.json") for p in TESTDATA.glob("*.expected.json")
    }
    assert found > {
        p.name.removesuffix(".enrichment.json") for p in TESTDATA.glob("*.enrichment.json")
    }


def test_the_vendors_sample_in_words() -> None:
    """The vendor's sample: the published ids, ERROR, 96 ms, every attribute of the mapping table;
    said here once more so that a regenerated golden file cannot hide a change."""
    made = converted("vendor-sample")
    span, log = made["span"], made["log"]
    digest = hashlib.sha256(b"runalloy.execution:35SnGU0DUSNP5L26fsmnq").hexdigest()
    assert span["traceId"] == log["traceId"] == digest[:32]
    assert span["spanId"] == log["spanId"] == digest[32:48]
    assert "parentSpanId" not in span
    assert span["status"] == {"code": "STATUS_CODE_ERROR"}
    assert span["kind"] == "SPAN_KIND_SERVER"
    assert span["name"] == "order_id example"
    assert int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"]) == 96_000_000
    assert span["startTimeUnixNano"] == "1745948650336000000"
    assert log["timeUnixNano"] == log["observedTimeUnixNano"] == span["endTimeUnixNano"]
    assert (log["severityNumber"], log["severityText"]) == ("SEVERITY_NUMBER_ERROR", "ERROR")
    assert log["flags"] == 1 and log["eventName"] == "runalloy.workflow.execution.failed"
    assert log["body"] == {"stringValue": "order_id example v1 failed after 96 ms"}
    both = {
        "runalloy.workflow.name": "order_id example",
        "runalloy.workflow.id": "67ef017d8eaeb50b18e635a1",
        "runalloy.workflow.installation.id": "67ef01ed8eaeb50b18e646ea",
        "runalloy.workflow.version": "1",
        "runalloy.workflow.custom_version": False,
        "runalloy.integration.id": "67d8875977ce6522e517a382",
        "runalloy.integration.name": "Eduardo looper",
        "runalloy.integration.block.id": "MuK2Kk9lu0v8N86brS3x",
        "user.id": "67a21c7d10e1dee8d5ec3a3d",
        "user.email": "eduardo.souza@runalloy.com",
        "user.full_name": "Eduardo Souza",
        "runalloy.team.id": "63fcaa053522280b5357aeec",
        "runalloy.execution.id": "68110fea7d181f356acd1bf1",
        "runalloy.execution.uuid": "35SnGU0DUSNP5L26fsmnq",
        "runalloy.notification.id": "68110feaa81a0e507fbdd36a",
        "runalloy.execution.outcome": "error",
        "error.type": "executionError",
    }
    only_log = {
        "log.record.uid": "68110feaa81a0e507fbdd36a",
    }
    assert attributes(span) == both
    assert attributes(log) == both | only_log
    assert {a["key"]: list(a["value"]) for a in span["attributes"]}[
        "runalloy.workflow.version"
    ] == ["intValue"]


def attributes(message: dict[str, Any]) -> dict[str, Any]:
    """Attributes as protobuf's JSON has them (64-bit integers are text); keys are unique."""
    pairs = [(a["key"], next(iter(a["value"].values()))) for a in message["attributes"]]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@pytest.mark.parametrize("name", ["privacy-hash", "privacy-drop"])
def test_personal_data_is_gone(name: str) -> None:
    """Under hash and drop neither address nor name is in the span or the log record."""
    text = json.dumps(converted(name))
    assert "eduardo.souza" not in text and "Eduardo Souza" not in text


def test_no_body_holds_personal_data() -> None:
    """The sentence in the log record's body never names a person."""
    for name in CASES:
        body = converted(name)["log"]["body"]["stringValue"]
        assert "eduardo.souza" not in body and "Souza" not in body
