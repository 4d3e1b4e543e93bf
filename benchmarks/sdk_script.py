"""The comparison: what a team would write in an afternoon with the SDK. Not part of otel-alloy.

Pages `GET /logs` oldest first with httpx, reads the answer into pydantic models, makes one span
and one log record per terminal notification with Tracer and Logger, and exports them through the
SDK's batch processors and OTLP/HTTP exporters. No checkpoint, no retries, no overlap, random ids:
less than otel-alloy does.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from typing import Any

import httpcore  # noqa: F401  httpx loads it with its first client; imports are not counted
import httpx
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from pydantic import BaseModel, Field


class Reference(BaseModel):
    """`data`."""

    executionId: str
    executionUuid: str


class User(BaseModel):
    """`user`."""

    email: str
    fullName: str


class Integration(BaseModel):
    """`integrationId`."""

    id: str = Field(alias="_id")
    name: str
    blockId: str


class Workflow(BaseModel):
    """`forgeWorkflow`."""

    name: str
    integrationId: Integration


class Notification(BaseModel):
    """One of `notifications`."""

    id: str = Field(alias="_id")
    message: str
    data: Reference
    startedAt: str
    completedAt: str | None
    createdAt: str
    customVersion: bool
    workflowVersion: int
    teamId: str
    forgeWorkflowId: str
    workflowId: str
    userId: str
    user: User
    forgeWorkflow: Workflow


class Answer(BaseModel):
    """The answer of `GET /logs`."""

    notifications: list[Notification]


def nanoseconds(text: str) -> int:
    """Unix ns of an ISO 8601 timestamp."""
    return int(datetime.fromisoformat(text).timestamp() * 1_000_000) * 1000


def run(alloy: str, otlp: str, page_size: int, gzip: bool) -> int:
    """Sends everything once; how many executions."""
    compression = Compression.Gzip if gzip else Compression.NoCompression
    resource = Resource({"service.name": "runalloy"})
    traces = TracerProvider(resource=resource)
    queue: dict[str, Any] = {"max_queue_size": 1_000_000, "max_export_batch_size": 1000}
    span_exporter = OTLPSpanExporter(f"{otlp}/v1/traces", compression=compression)
    traces.add_span_processor(BatchSpanProcessor(span_exporter, **queue))
    logs = LoggerProvider(resource=resource)
    log_exporter = OTLPLogExporter(f"{otlp}/v1/logs", compression=compression)
    logs.add_log_record_processor(BatchLogRecordProcessor(log_exporter, **queue))
    tracer, logger = traces.get_tracer("script"), logs.get_logger("script")
    sent, after = 0, "1970-01-01T00:00:00.000Z"
    with httpx.Client(headers={"Authorization": "bearer bench"}) as http:
        while True:
            column = {"columns": {"value": "createdAt"}, "operators": {"value": "greaterthan"}}
            filters = [{**column, "userinput": {"value": after}, "condition": {"value": "and"}}]
            parameters: dict[str, Any] = {"limit": page_size, "sortBy": "createdAt"}
            parameters |= {"sortOrder": "asc", "filters": json.dumps(filters)}
            answer = http.get(f"{alloy}/logs", params=parameters)
            page = Answer.model_validate_json(answer.content).notifications
            if not page:
                break
            after = page[-1].createdAt
            for n in page:
                if n.message == "executionStarted" or n.completedAt is None:
                    continue
                sent += 1
                failed = n.message == "executionError"
                workflow, user = n.forgeWorkflow, n.user
                integration = workflow.integrationId
                attributes: dict[str, Any] = {
                    "runalloy.workflow.name": workflow.name,
                    "runalloy.workflow.id": n.forgeWorkflowId,
                    "runalloy.workflow.installation.id": n.workflowId,
                    "runalloy.workflow.version": n.workflowVersion,
                    "runalloy.workflow.custom_version": n.customVersion,
                    "runalloy.integration.id": integration.id,
                    "runalloy.integration.name": integration.name,
                    "runalloy.block.id": integration.blockId,
                    "user.id": n.userId,
                    "user.email": user.email,
                    "user.full_name": user.fullName,
                    "runalloy.team.id": n.teamId,
                    "runalloy.execution.id": n.data.executionId,
                    "runalloy.execution.uuid": n.data.executionUuid,
                    "runalloy.notification.id": n.id,
                    "runalloy.execution.outcome": "error" if failed else "success",
                }
                start, end = nanoseconds(n.startedAt), nanoseconds(n.completedAt)
                span = tracer.start_span(
                    workflow.name, kind=SpanKind.SERVER, attributes=attributes, start_time=start
                )
                if failed:
                    span.set_status(Status(StatusCode.ERROR))
                span.end(end)
                logger.emit(
                    LogRecord(
                        timestamp=end,
                        observed_timestamp=nanoseconds(n.createdAt),
                        context=set_span_in_context(span),
                        severity_number=SeverityNumber.ERROR if failed else SeverityNumber.INFO,
                        severity_text="ERROR" if failed else "INFO",
                        body=f"{workflow.name} {'failed' if failed else 'finished'}",
                        attributes=attributes,
                        event_name="runalloy.workflow.execution.finished",
                    )
                )
    traces.shutdown()
    logs.shutdown()
    return sent


if __name__ == "__main__":
    begun = time.process_time()
    count = run(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "gzip")
    print(json.dumps({"executions": count, "cpu": time.process_time() - begun}))
