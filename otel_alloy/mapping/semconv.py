"""Every attribute key and event name of executions, and what else their telemetry is called.

What a name means, its type and when it is there is told by the registry in `semconv/`, which tests
hold against this module and against what is sent. Keys that OpenTelemetry's semantic conventions
define are used as they define them; the rest is under `runalloy.`, because `alloy` already names
Grafana Alloy in many installations. Nothing but names may live here: the propagator has this
module too.
"""

from __future__ import annotations

SCOPE_NAME = "otel_alloy"
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
"""The version of OpenTelemetry's semantic conventions whose names are used. It stands on whatever
is sent; the registry in `semconv/` depends on the same version."""
DEFAULT_SERVICE_NAME = "runalloy"
DISTRO_NAME = "otel-alloy"

# OpenTelemetry semantic conventions
ERROR_TYPE = "error.type"
EVENT_NAME = "event.name"
EXCEPTION_MESSAGE = "exception.message"
EXCEPTION_TYPE = "exception.type"
HTTP_RESPONSE_STATUS_CODE = "http.response.status_code"
LOG_RECORD_UID = "log.record.uid"
SERVICE_NAME = "service.name"
SERVICE_PEER_NAME = "service.peer.name"
TELEMETRY_DISTRO_NAME = "telemetry.distro.name"
URL_FULL = "url.full"
USER_ID = "user.id"
USER_EMAIL = "user.email"
USER_FULL_NAME = "user.full_name"
USER_HASH = "user.hash"

# Our own
WORKFLOW_NAME = "runalloy.workflow.name"
WORKFLOW_ID = "runalloy.workflow.id"
WORKFLOW_INSTALLATION_ID = "runalloy.workflow.installation.id"
WORKFLOW_VERSION = "runalloy.workflow.version"
WORKFLOW_CUSTOM_VERSION = "runalloy.workflow.custom_version"
INTEGRATION_ID = "runalloy.integration.id"
INTEGRATION_NAME = "runalloy.integration.name"
INTEGRATION_BLOCK_ID = "runalloy.integration.block.id"
BLOCK_ID = "runalloy.block.id"
BLOCK_NAME = "runalloy.block.name"
BLOCK_TYPE = "runalloy.block.type"
BLOCK_INDEX = "runalloy.block.index"
TEAM_ID = "runalloy.team.id"
EXECUTION_ID = "runalloy.execution.id"
EXECUTION_UUID = "runalloy.execution.uuid"
EXECUTION_OUTCOME = "runalloy.execution.outcome"
EXECUTION_BLOCKS = "runalloy.execution.blocks"
NOTIFICATION_ID = "runalloy.notification.id"
MESSAGE = "runalloy.message"
REASON_SOURCE = "runalloy.reason.source"
TIME_ADJUSTED = "runalloy.time.adjusted"

EVENT_STARTED = "runalloy.workflow.execution.started"
EVENT_FINISHED = "runalloy.workflow.execution.finished"
EVENT_FAILED = "runalloy.workflow.execution.failed"
EVENT_INCOMPLETE = "runalloy.workflow.execution.incomplete"
EVENT_OTHER = "runalloy.workflow.execution.other"

SPAN_NAME_FALLBACK = "workflow execution"
