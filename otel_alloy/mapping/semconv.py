"""Every attribute key and event name that otel-alloy writes; nothing else.

Keys that OpenTelemetry's semantic conventions (v1.44.0) define are used as they define them;
the rest is under `runalloy.`, because `alloy` already names Grafana Alloy in many installations.
"""

from __future__ import annotations

SCOPE_NAME = "otel_alloy"
DEFAULT_SERVICE_NAME = "runalloy"

# OpenTelemetry semantic conventions
ERROR_TYPE = "error.type"
EVENT_NAME = "event.name"
LOG_RECORD_UID = "log.record.uid"
SERVICE_NAME = "service.name"
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
BLOCK_NAME = "runalloy.block.name"
BLOCK_TYPE = "runalloy.block.type"
TEAM_ID = "runalloy.team.id"
EXECUTION_ID = "runalloy.execution.id"
EXECUTION_UUID = "runalloy.execution.uuid"
EXECUTION_OUTCOME = "runalloy.execution.outcome"
NOTIFICATION_ID = "runalloy.notification.id"
MESSAGE = "runalloy.message"
TIME_ADJUSTED = "runalloy.time.adjusted"

EVENT_STARTED = "runalloy.workflow.execution.started"
EVENT_FINISHED = "runalloy.workflow.execution.finished"
EVENT_FAILED = "runalloy.workflow.execution.failed"
EVENT_INCOMPLETE = "runalloy.workflow.execution.incomplete"
EVENT_OTHER = "runalloy.workflow.execution.other"

SPAN_NAME_FALLBACK = "workflow execution"
