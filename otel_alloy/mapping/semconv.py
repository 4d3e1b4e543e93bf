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


On = Literal["span", "log record", "block span", "service span", "resource"]
_BOTH: tuple[On, ...] = ("span", "log record")


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute. `example`: of the error record in Alloy's own documentation, where that has
    the attribute. `present`: when it is there. `on`: where it may stand; "block span" is the span
    of a block, below its execution's; "service span" a server span of a service that Alloy calls
    and that has `AlloySpanProcessor`."""

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
        URL_FULL,
        "https://alloy.example.com/executions/68110fea7d181f356acd1bf1",
        "Alloy's own page of the execution, as `execution_url` says",
        "where `execution_url` is set, and Alloy tells the ids that it has",
    ),
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
        "A time was missing, an end lay before its start or a block outside its execution, so that "
        "another time stands in for it",
        "where that is so",
        on=(*_BOTH, "block span"),
    ),
    Attribute(
        BLOCK_ID,
        "0f8b6c1e-5d0a-4a57-9c7e-2f3d1b8a4e60",
        "The block: on an execution's own span and log record the one at which it failed",
        "where it is known",
        on=(*_BOTH, "block span"),
    ),
    Attribute(
        BLOCK_NAME,
        "Create customer",
        "Its name; on a server span of yours that of the event block that started the workflow "
        "(header `X-Alloy-BlockName`)",
        "where it is known",
        on=(*_BOTH, "block span", "service span"),
    ),
    Attribute(
        BLOCK_TYPE,
        "shopify",
        "Its type; on a server span of yours that of the event block (header `X-Alloy-BlockType`)",
        "where it is known",
        on=(*_BOTH, "block span", "service span"),
    ),
    Attribute(
        BLOCK_INDEX,
        2,
        "The block's place in its execution, from 0; one that ran twice has two",
        "always",
        on=("block span",),
    ),
    Attribute(
        REASON_SOURCE,
        "webhook",
        "Where the reason of a failure is known from: `webhook` (Alloy's error webhook, for this "
        "very execution) or `errors` (the workflow's errors, of which exactly one fits)",
        "after an error, where the reason is known",
    ),
    Attribute(
        EXECUTION_BLOCKS,
        3,
        "How many blocks the execution ran; where it has fewer block spans there was no room for "
        "them",
        "where they are known",
        on=("span",),
    ),
    Attribute(
        EXCEPTION_TYPE,
        "NodeApiError",
        "The kind of the error that the block met",
        "after an error, where Alloy tells it",
        on=("log record",),
    ),
    Attribute(
        EXCEPTION_MESSAGE,
        "The customer failed to create due to an invalid Id",
        "Why the execution failed, in the words of Alloy or of the app; also the description of "
        "the span's status. It may hold personal data",
        "after an error, where the reason is known and is to be told",
        on=("log record",),
    ),
    Attribute(
        SERVICE_PEER_NAME,
        "shopify",
        "The app that the block calls",
        "where it calls one",
        on=("block span",),
    ),
    Attribute(
        HTTP_RESPONSE_STATUS_CODE,
        422,
        "What the app answered",
        "where Alloy tells it",
        on=("block span",),
    ),
    Attribute(
        SERVICE_NAME,
        DEFAULT_SERVICE_NAME,
        "`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` or a source's `resource` change it",
        "always",
        on=("resource",),
    ),
    Attribute(
        TELEMETRY_DISTRO_NAME,
        DISTRO_NAME,
        "What made this telemetry; its version is the scope's. `OTEL_RESOURCE_ATTRIBUTES` and a "
        "source's `resource` change it",
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
