"""Every attribute key and event name that otel-alloy writes, and what it means; nothing else.

Keys that OpenTelemetry's semantic conventions (v1.44.0) define are used as they define them;
the rest is under `runalloy.`, because `alloy` already names Grafana Alloy in many installations.
`ATTRIBUTES` and `EVENTS` are what the documentation's tables are made from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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


On = Literal["span", "log record", "service span", "resource"]
_BOTH: tuple[On, ...] = ("span", "log record")


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute. `example`: of the error record in Alloy's own documentation, where that has
    the attribute. `present`: when it is there. `on`: where it may stand; "service span" is a server
    span of a service that Alloy calls and that has `AlloySpanProcessor`."""

    key: str
    example: str | int | bool
    meaning: str
    present: str = "where Alloy tells it"
    on: tuple[On, ...] = _BOTH

    @property
    def type(self) -> str:
        """The OTLP type of the value."""
        return {str: "string", int: "int", bool: "boolean"}[type(self.example)]


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of log record. `severity`: number and text; `span`: whether a span comes with it."""

    name: str
    severity: tuple[int, str]
    span: bool
    meaning: str


ATTRIBUTES = (
    Attribute(
        WORKFLOW_NAME,
        "order_id example",
        "The workflow's name (`forgeWorkflow.name`); also the name of the span",
    ),
    Attribute(
        WORKFLOW_ID,
        "67ef017d8eaeb50b18e635a1",
        "The workflow that you built (`forgeWorkflowId`), of which each user has a copy",
    ),
    Attribute(
        WORKFLOW_INSTALLATION_ID,
        "67ef01ed8eaeb50b18e646ea",
        "The user's installed copy of it (`workflowId`; header `X-Alloy-WorkflowId`)",
        on=(*_BOTH, "service span"),
    ),
    Attribute(WORKFLOW_VERSION, 1, "The version that ran (`workflowVersion`)"),
    Attribute(
        WORKFLOW_CUSTOM_VERSION,
        False,
        "Whether that version was made for this one user (`customVersion`)",
    ),
    Attribute(
        INTEGRATION_ID,
        "67d8875977ce6522e517a382",
        "The integration that the workflow belongs to (`forgeWorkflow.integrationId._id`)",
    ),
    Attribute(INTEGRATION_NAME, "Eduardo looper", "Its name (`forgeWorkflow.integrationId.name`)"),
    Attribute(
        INTEGRATION_BLOCK_ID,
        "MuK2Kk9lu0v8N86brS3x",
        "The app that the integration is built around (`forgeWorkflow.integrationId.blockId`); "
        "not the step that failed",
    ),
    Attribute(
        USER_ID,
        "67a21c7d10e1dee8d5ec3a3d",
        "The user that the execution ran for (`userId`; header `X-Alloy-UserId`)",
        on=(*_BOTH, "service span"),
    ),
    Attribute(
        USER_EMAIL,
        "eduardo.souza@runalloy.com",
        "The user's e-mail address (`user.email`); personal data",
        "where Alloy tells it, and `privacy` says `keep` (default)",
    ),
    Attribute(
        USER_FULL_NAME,
        "Eduardo Souza",
        "The user's name (`user.fullName`); personal data",
        "where Alloy tells it, and `privacy` says `keep` (default)",
    ),
    Attribute(
        USER_HASH,
        "64 hexadecimal digits",
        "HMAC-SHA-256 under your key of the e-mail address, where that is to be hashed and known, "
        "else of the name",
        "where `privacy` says `hash`",
    ),
    Attribute(TEAM_ID, "63fcaa053522280b5357aeec", "The Alloy account (`teamId`)"),
    Attribute(
        EXECUTION_ID,
        "68110fea7d181f356acd1bf1",
        "The execution in Alloy's API (`data.executionId`)",
    ),
    Attribute(
        EXECUTION_UUID,
        "35SnGU0DUSNP5L26fsmnq",
        "What trace id and span id are computed from (`data.executionUuid`; header "
        "`X-Alloy-ExecutionUuid`)",
        on=(*_BOTH, "service span"),
    ),
    Attribute(NOTIFICATION_ID, "68110feaa81a0e507fbdd36a", "The record in Alloy's log (`_id`)"),
    Attribute(
        LOG_RECORD_UID,
        "68110feaa81a0e507fbdd36a",
        "Identifies the log record: `_id`, with `:incomplete` after it for an execution whose end "
        "did not come",
        "where the record has an `_id`",
        on=("log record",),
    ),
    Attribute(
        EXECUTION_OUTCOME,
        "error",
        "`success`, `error` or `incomplete`",
        "on every span; on the log record of an end, and of an end that did not come",
    ),
    Attribute(ERROR_TYPE, "executionError", "Alloy's word for a failure", "after an error"),
    Attribute(
        EVENT_NAME,
        "runalloy.workflow.execution.failed",
        "The event, again: some backends drop the field that OTLP has for it",
        "always",
        on=("log record",),
    ),
    Attribute(
        MESSAGE,
        "executionPaused",
        "Alloy's word for what happened, as it came (`message`)",
        "where this version does not know the word",
        on=("log record",),
    ),
    Attribute(
        TIME_ADJUSTED,
        True,
        "A time was missing or an end lay before its start, so that one stands in for another",
        "where that is so",
    ),
    Attribute(
        BLOCK_NAME,
        "Order created",
        "The event block that started the workflow (header `X-Alloy-BlockName`)",
        "where the header came",
        on=("service span",),
    ),
    Attribute(
        BLOCK_TYPE,
        "shopify",
        "Its type (header `X-Alloy-BlockType`)",
        "where the header came",
        on=("service span",),
    ),
    Attribute(
        SERVICE_NAME,
        DEFAULT_SERVICE_NAME,
        "`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` or a source's `resource` change it",
        "always",
        on=("resource",),
    ),
)
"""In the order in which they are written."""

EVENTS = (
    Event(EVENT_FINISHED, (9, "INFO"), True, "The execution ended well"),
    Event(EVENT_FAILED, (17, "ERROR"), True, "The execution ended with an error"),
    Event(
        EVENT_INCOMPLETE,
        (13, "WARN"),
        True,
        "The execution started, and its end did not come within `incomplete_after`",
    ),
    Event(EVENT_STARTED, (9, "INFO"), False, "The execution started; only with `started_logs`"),
    Event(
        EVENT_OTHER,
        (9, "INFO"),
        False,
        "Alloy told something that this version does not know; the word is in `runalloy.message`",
    ),
)
