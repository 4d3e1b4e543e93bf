"""The mapping of the README, one execution at a time: decisions here, bytes in `encode.py`.

A converter is pure in what it returns; it remembers only the serialized attributes that repeat
(workflow, integration, version, user), at most `_CACHE` of them. The same execution always gives
the same bytes: attributes in one fixed order, all times from the notification.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol

from otel_alloy.alloy.models import Integration, Notification, User, Workflow
from otel_alloy.alloy.timestamps import object_id_ns, to_ns
from otel_alloy.mapping import encode, semconv
from otel_alloy.mapping.ids import execution_ids

Privacy = Literal["keep", "hash", "drop"]

_CACHE = 20_000
_CUT_MARK = "…[cut]"


class Role(enum.Enum):
    """What a notification is in the life of its execution; decides what is made of it."""

    ENDED = "ended"  # span and log record
    ENDED_AGAIN = "ended again"  # a later terminal record: log record only
    STARTED = "started"  # log record only
    INCOMPLETE = "incomplete"  # a start whose end did not come: span and log record
    OTHER = "other"  # a message this version does not know: log record only


@dataclass(slots=True)
class Execution:
    """One thing to convert: a notification, its role, and the `startedAt` that its start record
    told (used where the notification itself has none). `trace_id`: set by the converter where a
    hook attached the execution to another trace."""

    notification: Notification
    role: Role
    started_at: str | int | float | None = None
    trace_id: bytes | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """An execution that ended, as metrics see it: nothing of its user. Times in Unix ns."""

    workflow: str | None
    integration: str | None
    outcome: Literal["success", "error", "incomplete"]
    start: int
    end: int
    trace_id: bytes
    span_id: bytes


class Attached(NamedTuple):
    """What a hook adds: the trace that the execution goes into (None: its own), and the serialized
    fields of its parent and its links."""

    trace_id: bytes | None = None
    parent: bytes = b""
    links: bytes = b""


class Attach(Protocol):
    """Asks a hook about a notification; never raises an Exception. `failures`: how often the hook
    failed so far."""

    failures: int

    def __call__(
        self, notification: Notification, span_id: bytes, clean: Callable[[str], str], /
    ) -> Attached: ...


_NOT_ATTACHED = Attached()


class Unconvertible(ValueError):
    """The notification cannot become telemetry; the message says what is missing."""


def _log_kind(severity: int, text: str, event: str, *extra: tuple[str, str]) -> _LogKind:
    pairs = (*extra, (semconv.EVENT_NAME, event))
    fixed = encode.log_attributes([encode.attribute(k, v) for k, v in pairs])
    return _LogKind(encode.log_head(severity, text), encode.log_event(event), fixed)


@dataclass(frozen=True, slots=True)
class _LogKind:
    head: bytes
    event: bytes
    attributes: bytes


_OUTCOME, _ERROR_TYPE = semconv.EXECUTION_OUTCOME, (semconv.ERROR_TYPE, "executionError")
_FINISHED = _log_kind(9, "INFO", semconv.EVENT_FINISHED, (_OUTCOME, "success"))
_FAILED = _log_kind(17, "ERROR", semconv.EVENT_FAILED, (_OUTCOME, "error"), _ERROR_TYPE)
_INCOMPLETE = _log_kind(13, "WARN", semconv.EVENT_INCOMPLETE, (_OUTCOME, "incomplete"))
_STARTED = _log_kind(9, "INFO", semconv.EVENT_STARTED)
_OTHER = _log_kind(9, "INFO", semconv.EVENT_OTHER)

_ADJUSTED = encode.attribute(semconv.TIME_ADJUSTED, True)
_SPAN_ADJUSTED = encode.span_attributes([_ADJUSTED])
_LOG_ADJUSTED = encode.log_attributes([_ADJUSTED])


def _span_kind(outcome: str, *extra: tuple[str, str]) -> bytes:
    pairs = ((_OUTCOME, outcome), *extra)
    return encode.span_attributes([encode.attribute(k, v) for k, v in pairs])


_SPAN_SUCCESS = _span_kind("success")
_SPAN_ERROR = _span_kind("error", _ERROR_TYPE)
_SPAN_INCOMPLETE = _span_kind("incomplete")


def _text(key: str) -> tuple[Callable[[int], bytes], Callable[[int], bytes]]:
    span = encode.TextAttribute(encode.SPAN_ATTRIBUTE, key)
    log = encode.TextAttribute(encode.LOG_ATTRIBUTE, key)
    return span.head, log.head


_span_execution_id, _log_execution_id = _text(semconv.EXECUTION_ID)
_span_execution_uuid, _log_execution_uuid = _text(semconv.EXECUTION_UUID)
_span_notification_id, _log_notification_id = _text(semconv.NOTIFICATION_ID)
_, _log_record_uid = _text(semconv.LOG_RECORD_UID)
_, _log_message = _text(semconv.MESSAGE)


class _Heads(NamedTuple):
    """What stands before the ids of an execution, for ids of certain lengths (bytes)."""

    span_execution: bytes
    span_uuid: bytes
    span_notification: bytes
    log_execution: bytes
    log_uuid: bytes
    log_notification: bytes
    log_uid: bytes


@lru_cache(maxsize=1024)
def _heads(execution: int, uuid: int, notification: int) -> _Heads:
    """An id that is missing has length 0, and no head."""
    return _Heads(
        _span_execution_id(execution) if execution else b"",
        _span_execution_uuid(uuid) if uuid else b"",
        _span_notification_id(notification) if notification else b"",
        _log_execution_id(execution) if execution else b"",
        _log_execution_uuid(uuid) if uuid else b"",
        _log_notification_id(notification) if notification else b"",
        _log_record_uid(notification) if notification else b"",
    )


@dataclass(frozen=True, slots=True)
class _Repeating:
    """What executions of one workflow, version and user have in common, serialized."""

    name: bytes
    span: bytes
    log: bytes
    label: str


class Converter:
    """Converts executions to framed OTLP items.

    `value_limit`: characters kept of a text value. `email`, `full_name`: what becomes of personal
    data; "hash" writes HMAC-SHA-256 under `privacy_key` into `user.hash`. `started_logs`: whether
    a start makes a log record. `attach`: the hook, which is asked last of all.
    """

    def __init__(
        self,
        *,
        value_limit: int = 2048,
        email: Privacy = "keep",
        full_name: Privacy = "keep",
        privacy_key: bytes = b"",
        started_logs: bool = False,
        attach: Attach | None = None,
    ) -> None:
        self._limit = value_limit
        self._email = email
        self._full_name = full_name
        self._key = privacy_key
        self._started_logs = started_logs
        self._attach = attach
        self._cache: dict[object, _Repeating] = {}

    @property
    def hook_failures(self) -> int:
        """How often the hook failed so far; 0 where there is none."""
        return 0 if self._attach is None else self._attach.failures

    def convert(self, execution: Execution) -> tuple[bytes | None, bytes | None]:
        """The framed span and the framed log record; None where there is none to send.

        Raises Unconvertible when the notification has no identity or no usable time.
        """
        n, role = execution.notification, execution.role
        if role is Role.STARTED and not self._started_logs:
            return None, None
        data = n.data
        uuid = data.executionUuid if data else None
        execution_id = data.executionId if data else None
        key = uuid or execution_id or n.id
        if not key:
            raise Unconvertible("it has neither executionUuid, executionId nor _id")
        trace_id, span_id = execution_ids(key)
        start, end, observed, adjusted = _times(execution)
        common = self._repeating(n)

        texts = self._texts(execution_id or "", uuid or "", n.id or "")
        execution_bytes, uuid_bytes, notification_bytes = texts
        heads = _heads(len(execution_bytes), len(uuid_bytes), len(notification_bytes))

        error = n.message == "executionError"
        attached = _NOT_ATTACHED
        if self._attach is not None:
            attached = self._attach(n, span_id, self._clean)
            execution.trace_id = attached.trace_id
            trace_id = attached.trace_id or trace_id
        span = None
        if role is Role.ENDED or role is Role.INCOMPLETE:
            kind = _SPAN_ERROR if error else _SPAN_SUCCESS
            if role is Role.INCOMPLETE:
                kind = _SPAN_INCOMPLETE
            span = encode.span(
                trace_id,
                span_id,
                common.name,
                start,
                end,
                (
                    common.span,
                    heads.span_execution,
                    execution_bytes,
                    heads.span_uuid,
                    uuid_bytes,
                    heads.span_notification,
                    notification_bytes,
                    kind,
                    _SPAN_ADJUSTED if adjusted else b"",
                ),
                encode.STATUS_ERROR if error else encode.STATUS_UNSET,
                attached.parent,
                attached.links,
            )

        message = b""
        uid_head, uid = heads.log_uid, notification_bytes
        if role is Role.INCOMPLETE:
            log, words = _INCOMPLETE, "has not reported its end"
            if uid:
                # A start may be sent twice, as `started` and as this: two records, two uids.
                uid += b":incomplete"
                uid_head = _log_record_uid(len(uid))
        elif role is Role.STARTED:
            log, words, end = _STARTED, "started", start
        elif role is Role.OTHER:
            log, words = _OTHER, "reported something this version does not know"
            text = self._clean(n.message or "").encode()
            message = _log_message(len(text)) + text
        elif error:
            log, words = _FAILED, "failed after " + duration_text(end - start)
        else:
            log, words = _FINISHED, "finished after " + duration_text(end - start)
        record = encode.log_record(
            trace_id,
            span_id,
            log.head,
            end,
            observed,
            f"{common.label} {words}".encode(),
            (
                common.log,
                heads.log_execution,
                execution_bytes,
                heads.log_uuid,
                uuid_bytes,
                heads.log_notification,
                notification_bytes,
                message,
                uid_head,
                uid,
                log.attributes,
                _LOG_ADJUSTED if adjusted else b"",
            ),
            log.event,
        )
        return span, record

    def _repeating(self, n: Notification) -> _Repeating:
        workflow, user = n.forgeWorkflow, n.user
        integration = workflow.integrationId if isinstance(workflow, Workflow) else None
        key = (
            n.forgeWorkflowId,
            n.workflowId,
            n.workflowVersion,
            n.customVersion,
            n.teamId,
            n.userId,
            workflow.name if isinstance(workflow, Workflow) else (workflow,),
            integration.id if isinstance(integration, Integration) else (integration,),
            integration.name if isinstance(integration, Integration) else None,
            integration.blockId if isinstance(integration, Integration) else None,
            user.email if isinstance(user, User) else (user,),
            user.fullName if isinstance(user, User) else None,
        )
        found = self._cache.get(key)
        if found is None:
            if len(self._cache) >= _CACHE:
                self._cache.clear()
            found = self._cache[key] = self._serialize(n, integration)
        return found

    def _serialize(self, n: Notification, integration: Integration | str | None) -> _Repeating:
        workflow, user = n.forgeWorkflow, n.user
        name = workflow.name if isinstance(workflow, Workflow) else None
        workflow_id = n.forgeWorkflowId or (workflow if isinstance(workflow, str) else None)
        user_id = n.userId or (user if isinstance(user, str) else None)
        if isinstance(integration, Integration):
            integration_values = (integration.id, integration.name, integration.blockId)
        else:
            integration_values = (integration, None, None)
        email, full_name, user_hash = self._personal(n)
        values: tuple[tuple[str, str | int | bool | None], ...] = (
            (semconv.WORKFLOW_NAME, name),
            (semconv.WORKFLOW_ID, workflow_id),
            (semconv.WORKFLOW_INSTALLATION_ID, n.workflowId),
            (semconv.WORKFLOW_VERSION, n.workflowVersion),
            (semconv.WORKFLOW_CUSTOM_VERSION, n.customVersion),
            (semconv.INTEGRATION_ID, integration_values[0]),
            (semconv.INTEGRATION_NAME, integration_values[1]),
            (semconv.INTEGRATION_BLOCK_ID, integration_values[2]),
            (semconv.USER_ID, user_id),
            (semconv.USER_EMAIL, email),
            (semconv.USER_FULL_NAME, full_name),
            (semconv.USER_HASH, user_hash),
            (semconv.TEAM_ID, n.teamId),
        )
        attributes = [
            encode.attribute(key, self._clean(value) if isinstance(value, str) else value)
            for key, value in values
            if value is not None and value != ""
        ]
        label = self._clean(name) if name else semconv.SPAN_NAME_FALLBACK
        version = "" if n.workflowVersion is None else f" v{n.workflowVersion}"
        return _Repeating(
            encode.span_name(label),
            encode.span_attributes(attributes),
            encode.log_attributes(attributes),
            label + version,
        )

    def _personal(self, n: Notification) -> tuple[str | None, str | None, str | None]:
        """user.email, user.full_name and user.hash under the privacy settings. The hash is of the
        e-mail address where that is to be hashed and known, else of the full name."""
        user = n.user
        if user is None or isinstance(user, str):
            return None, None, None
        secret = user.email if self._email == "hash" else None
        if not secret and self._full_name == "hash":
            secret = user.fullName
        digest = None
        if secret:
            text = secret.encode("utf-8", "replace")
            digest = hmac.new(self._key, text, hashlib.sha256).hexdigest()
        return (
            user.email if self._email == "keep" else None,
            user.fullName if self._full_name == "keep" else None,
            digest,
        )

    def _clean(self, text: str) -> str:
        """What every backend takes: no NUL, no lone surrogate, at most `value_limit` characters,
        a cut being visible."""
        if len(text) > self._limit:
            text = text[: max(0, self._limit - len(_CUT_MARK))] + _CUT_MARK
        if text.isprintable():  # neither NUL nor surrogates are
            return text
        text = text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _texts(self, *texts: str) -> list[bytes]:
        """The ids as cleaned UTF-8; they hardly ever need cleaning, which is seen at one look."""
        together = "".join(texts)
        if together.isascii() and together.isprintable() and len(together) <= self._limit:
            return [text.encode() for text in texts]
        return [self._clean(text).encode() for text in texts]


def _times(execution: Execution) -> tuple[int, int, int, bool]:
    """start, end, observed (Unix ns) and whether start or end had to be made up.

    A missing one falls back to the other, then to createdAt; an end before its start becomes the
    start, so that a duration is never negative.
    """
    n = execution.notification
    start = to_ns(n.startedAt)
    if start is None and execution.started_at is not None:
        start = to_ns(execution.started_at)
    completed = to_ns(n.completedAt)
    created = completed if n.createdAt == n.completedAt else to_ns(n.createdAt)
    if execution.role is Role.INCOMPLETE:
        last_seen = created if created is not None else start
        end, known = last_seen, True
    elif execution.role is Role.STARTED:
        end, known = start, True
    else:
        end = completed
        known = end is not None
    fallback = created if created is not None else object_id_ns(n.id)
    adjusted = start is None or not known
    if start is None:
        start = end if end is not None else fallback
    if start is None:
        raise Unconvertible("it has no usable startedAt, completedAt or createdAt")
    if end is None:
        end = start
    if end < start:
        end, adjusted = start, True
    observed = fallback if fallback is not None else end
    return start, end, observed, adjusted


def ended(execution: Execution) -> Ended | None:
    """The facts of an execution that makes a span; None for any other, and where its id is
    missing or its times would be made up."""
    n = execution.notification
    if execution.role not in (Role.ENDED, Role.INCOMPLETE):
        return None
    key = (n.data.executionUuid if n.data else None) or n.execution or n.id
    try:
        start, end, _, adjusted = _times(execution)
    except Unconvertible:
        return None
    if not key or adjusted:
        return None
    trace_id, span_id = execution_ids(key)
    workflow = n.forgeWorkflow if isinstance(n.forgeWorkflow, Workflow) else None
    integration = workflow.integrationId if workflow is not None else None
    outcome: Literal["success", "error", "incomplete"] = "success"
    if execution.role is Role.INCOMPLETE:
        outcome = "incomplete"
    elif n.message == "executionError":
        outcome = "error"
    return Ended(
        workflow.name if workflow is not None else None,
        integration.name if isinstance(integration, Integration) else None,
        outcome,
        start,
        end,
        execution.trace_id or trace_id,
        span_id,
    )


def duration_text(nanoseconds: int) -> str:
    """A duration for people: `96 ms`, `1.2 s`, `2 min 5 s`, `3 h 12 min`."""
    ms = nanoseconds // 1_000_000
    if ms < 1000:
        return f"{ms} ms"
    if ms < 60_000:
        return f"{ms // 100 / 10} s"
    seconds = ms // 1000
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
