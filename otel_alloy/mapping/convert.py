"""The mapping of the README, one execution at a time: decisions here, bytes in `encode.py`.

A converter is pure in what it returns; it remembers only what is serialized of what repeats
(workflow, integration, version, user), at most `_CACHE` of them. The same execution always gives
the same bytes: attributes in one fixed order, all times from the notification.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal, NamedTuple, Protocol

from otel_alloy.alloy.models import ERROR, Common, Integration, Notification, Workflow
from otel_alloy.alloy.timestamps import object_id_ns, to_ns
from otel_alloy.durations import duration_text
from otel_alloy.mapping import encode, forms, semconv
from otel_alloy.mapping.encode import fixed64
from otel_alloy.mapping.enriched import (
    enriched_log,
    enriched_span,
    reason_text,
    span_attributes,
)
from otel_alloy.mapping.enrichment import Enrichment
from otel_alloy.mapping.execution_url import ExecutionUrl
from otel_alloy.mapping.facts import ExecutionFacts, Failed, Glance
from otel_alloy.mapping.ids import execution_ids

Privacy = Literal["keep", "hash", "drop"]

_CACHE = 10_000
_FORMS = 64
_CUT_MARK = "…[cut]"


class Role(enum.Enum):
    """What a notification is in the life of its execution; decides what is made of it."""

    ENDED = "ended"  # span and log record
    ENDED_AGAIN = "ended again"  # a later terminal record: log record only
    STARTED = "started"  # log record only
    INCOMPLETE = "incomplete"  # a start whose end did not come: span and log record
    OTHER = "other"  # a message this version does not know: log record only


_NO_INTEGRATION = Integration()
# For speed: an enum finds its members slowly.
_ENDED, _ENDED_AGAIN, _STARTED, _OTHER = Role.ENDED, Role.ENDED_AGAIN, Role.STARTED, Role.OTHER
_INCOMPLETE = Role.INCOMPLETE


@dataclass(slots=True)
class Execution:
    """One thing to convert: a notification, its role, and the `startedAt` that its start record
    told (used where the notification itself has none). `trace_id`: set by the converter where there
    is a hook, which may have moved the execution to another trace. `enrichment`: what is known of
    its blocks and of why it failed, where it was asked for."""

    notification: Notification
    role: Role
    started_at: str | int | float | None = None
    trace_id: bytes | None = None
    enrichment: Enrichment | None = None


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


_KINDS = {
    Role.INCOMPLETE: forms.INCOMPLETE,
    Role.STARTED: forms.STARTED,
    Role.OTHER: forms.OTHER,
}


_Sizes = tuple[forms.Kind, bool, int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Repeating:
    """What becomes of `common`: its `fields`, serialized, how the log's body begins (`label`), what
    its executions' pages have in common (`url`), and the forms of those that ended, by their kind,
    whether a time was made up, and the lengths of their ids and of that address."""

    common: Common
    fields: forms.Repeating
    label: bytes
    url: ExecutionUrl | None
    ended: dict[_Sizes, tuple[encode.SpanForm, encode.LogForm]] = field(default_factory=dict)


class Converter:
    """Converts executions to framed OTLP items.

    `value_limit`: characters kept of a text value. `email`, `full_name`: what becomes of personal
    data; "hash" writes HMAC-SHA-256 under `privacy_key` into `user.hash`. `started_logs`: whether
    a start makes a log record. `event_name_attribute`: whether log records name their event also in
    the attribute `event.name`. `execution_url`: where Alloy's own page of an execution is.
    `attach`: the hook, which is asked last of all.
    """

    def __init__(
        self,
        *,
        value_limit: int = 2048,
        email: Privacy = "keep",
        full_name: Privacy = "keep",
        privacy_key: bytes = b"",
        started_logs: bool = False,
        event_name_attribute: bool = False,
        execution_url: ExecutionUrl | None = None,
        attach: Attach | None = None,
    ) -> None:
        self._limit = value_limit
        self._email = email
        self._full_name = full_name
        self._key = privacy_key
        self._started_logs = started_logs
        self._event_attribute = event_name_attribute
        self._execution_url = execution_url
        self._attach = attach
        self._cache: dict[int, _Repeating] = {}  # by the id of their `common`, which they keep

    @property
    def hook_failures(self) -> int:
        """How often the hook failed so far; 0 where there is none."""
        return 0 if self._attach is None else self._attach.failures

    def convert(self, execution: Execution) -> tuple[bytes | None, bytes | None]:
        """The framed span and the framed log record; None where there is none to send. Behind the
        span of an execution whose blocks are known stand theirs, framed as well.

        Raises Unconvertible when the notification has no identity or no usable time.
        """
        n, role = execution.notification, execution.role
        if role is _STARTED and not self._started_logs:
            return None, None
        uuid, execution_id, notification_id = identities_of(n)
        trace_id, span_id = execution_ids(uuid or execution_id or notification_id)
        start, end, observed, adjusted = times_of(execution)
        repeating = self._repeating(n)
        one, two, three = self._texts(execution_id, uuid, notification_id)
        uid = three
        span_url = log_url = b""
        if repeating.url is not None and (url := self._url(repeating.url, execution_id, uuid)):
            span_url, log_url = forms.url(url.encode())

        attached = _NOT_ATTACHED
        if self._attach is not None:
            attached = self._attach(n, span_id, self.clean)
            execution.trace_id = trace_id = attached.trace_id or trace_id
        if role is _ENDED or role is _ENDED_AGAIN:
            kind = _ended_kind(n)
            body = repeating.label + kind.words + _duration(end - start)
            sizes = kind, adjusted, len(one), len(two), len(three), len(span_url)
            span_form, log_form = repeating.ended.get(sizes) or _ended_forms(
                repeating, sizes, self._event_attribute
            )
        else:
            kind = _KINDS[role]
            body = repeating.label + kind.words
            sizes = kind, adjusted, len(one), len(two), len(three), len(span_url)
            message = b""
            if role is _INCOMPLETE and uid:
                # A start may be sent twice, as `started` and as this: two records, two uids.
                uid += b":incomplete"
            elif role is _OTHER:
                text = self.clean(n.message or "").encode()
                message = forms.log_message(len(text)) + text
            span_form = forms.span_form(repeating.fields, *sizes)
            log_form = forms.log_form(
                repeating.fields, *sizes, len(uid), message, self._event_attribute
            )
        if attached.parent or attached.links:
            span_form = forms.span_form(repeating.fields, *sizes, attached.parent, attached.links)
        span, ended = None, fixed64(end)
        if role is _ENDED or role is _INCOMPLETE:
            began = fixed64(start)
            texts = one, two, three + span_url
            span = span_form.fill(trace_id, span_id, began, ended, texts)
        seen = ended if observed == end else fixed64(observed)
        texts_of_log = one, two, three + log_url, uid
        record = log_form.fill(trace_id, span_id, ended, seen, body, texts_of_log)
        if execution.enrichment is not None:
            identity = uuid or execution_id or notification_id
            if span is not None:
                span = enriched_span(span, execution.enrichment, identity, self.clean)
            record = enriched_log(record, execution.enrichment, self.clean)
        return span, record

    def facts(self, execution: Execution) -> ExecutionFacts | None:
        """What the span of `execution` tells, without making the span; None where it has none.

        The hook is asked only where `convert` has not asked it. Raises Unconvertible as `convert`.
        """
        n, role = execution.notification, execution.role
        if role is not _ENDED and role is not _INCOMPLETE:
            return None
        uuid, execution_id, notification_id = identities_of(n)
        trace_id, span_id = execution_ids(uuid or execution_id or notification_id)
        start, end, _, adjusted = times_of(execution)
        if execution.trace_id is None and self._attach is not None:
            execution.trace_id = self._attach(n, span_id, self.clean).trace_id
        ids = (
            (semconv.EXECUTION_ID, execution_id),
            (semconv.EXECUTION_UUID, uuid),
            (semconv.NOTIFICATION_ID, notification_id),
        )
        attributes = self._attributes(n)
        common = self._common_url(attributes)
        attributes.update((key, self.clean(value)) for key, value in ids if value)
        if common is not None and (url := self._url(common, execution_id, uuid)):
            attributes[semconv.URL_FULL] = url
        attributes.update(
            _ended_kind(n).attributes if role is _ENDED else forms.INCOMPLETE.attributes
        )
        if adjusted:
            attributes[semconv.TIME_ADJUSTED] = True
        name = str(attributes.get(semconv.WORKFLOW_NAME, semconv.SPAN_NAME_FALLBACK))
        found = ExecutionFacts(
            execution.trace_id or trace_id, span_id, start, end, name, attributes
        )
        if execution.enrichment is None:
            return found
        return self.explained(found, execution.enrichment)

    def explained(self, facts: ExecutionFacts, enrichment: Enrichment) -> ExecutionFacts:
        """The facts of an execution together with what else is known of it."""
        failed = semconv.ERROR_TYPE in facts.attributes
        more = span_attributes(enrichment, failed, self.clean)
        reason = reason_text(enrichment, self.clean) if failed else ""
        return replace(facts, attributes={**facts.attributes, **more}, reason=reason)

    def ended(self, executions: Iterable[Execution]) -> Iterator[ExecutionFacts]:
        """The facts of those that have a span, one by one; what cannot be converted is left out."""
        for execution in executions:
            with suppress(Unconvertible):
                if (facts := self.facts(execution)) is not None:
                    yield facts

    def glance(self, executions: Iterable[Execution], newest: int, since: int) -> Glance:
        """Those that have a span, at a glance: the facts of so many `newest`, and those that failed
        `since` (Unix ns), with the facts of the last of them. Costs a twentieth of `ended`: the
        facts of all others are not made."""
        ended = [e for e in executions if e.role is _ENDED or e.role is _INCOMPLETE]
        failed, last = [], None
        for execution in ended:
            n = execution.notification
            if n.message == ERROR and execution.role is _ENDED:
                with suppress(Unconvertible):
                    end = times_of(execution)[1]
                    if end >= since:
                        failed.append(Failed(end, *self._workflow(n)))
                        last = execution
        facts = islice(self.ended(reversed(ended)), newest)
        last_failed = None if last is None else self.facts(last)
        return Glance(len(ended), failed, tuple(facts), last_failed)

    def _workflow(self, n: Notification) -> tuple[str, str]:
        """Name and id, as `_attributes` has them."""
        workflow = n.forgeWorkflow
        name = workflow.name if isinstance(workflow, Workflow) else None
        key = n.forgeWorkflowId or (workflow if isinstance(workflow, str) else "")
        return self.clean(name) if name else semconv.SPAN_NAME_FALLBACK, self.clean(key)

    def _repeating(self, n: Notification) -> _Repeating:
        common = n.common
        found = self._cache.get(id(common))
        if found is None:
            if len(self._cache) >= _CACHE:
                self._cache.clear()
            found = self._cache[id(common)] = self._serialize(n)
        return found

    def _serialize(self, n: Notification) -> _Repeating:
        values = self._attributes(n)
        attributes = [encode.attribute(key, value) for key, value in values.items()]
        label = str(values.get(semconv.WORKFLOW_NAME, semconv.SPAN_NAME_FALLBACK))
        version = "" if n.workflowVersion is None else f" v{n.workflowVersion}"
        fields = forms.Repeating(
            encode.span_name(label),
            encode.span_attributes(attributes),
            encode.log_attributes(attributes),
        )
        return _Repeating(n.common, fields, (label + version).encode(), self._common_url(values))

    def _common_url(self, attributes: Mapping[str, encode.Value]) -> ExecutionUrl | None:
        """The page of an execution with these attributes, but for its own ids; None where there is
        none to tell."""
        return None if self._execution_url is None else self._execution_url.common(attributes)

    def _url(self, common: ExecutionUrl, execution_id: str, uuid: str) -> str:
        """The page of an execution; "" where an id is missing, or where it would have to be cut."""
        url = common.of(execution_id, uuid)
        return url if len(url) <= self._limit else ""

    def _attributes(self, n: Notification) -> dict[str, encode.Value]:
        """What executions of one workflow, version and user have in common, as it is sent."""
        workflow, user = n.forgeWorkflow, n.user
        integration = workflow.integrationId if isinstance(workflow, Workflow) else None
        whole = integration if isinstance(integration, Integration) else _NO_INTEGRATION
        email, full_name, user_hash = self._personal(n)
        values: tuple[tuple[str, str | int | bool | None], ...] = (
            (semconv.WORKFLOW_NAME, workflow.name if isinstance(workflow, Workflow) else None),
            (
                semconv.WORKFLOW_ID,
                n.forgeWorkflowId or (workflow if isinstance(workflow, str) else None),
            ),
            (semconv.WORKFLOW_INSTALLATION_ID, n.workflowId),
            (semconv.WORKFLOW_VERSION, n.workflowVersion),
            (semconv.WORKFLOW_CUSTOM_VERSION, n.customVersion),
            (semconv.INTEGRATION_ID, integration if isinstance(integration, str) else whole.id),
            (semconv.INTEGRATION_NAME, whole.name),
            (semconv.INTEGRATION_BLOCK_ID, whole.blockId),
            (semconv.USER_ID, n.userId or (user if isinstance(user, str) else None)),
            (semconv.USER_EMAIL, email),
            (semconv.USER_FULL_NAME, full_name),
            (semconv.USER_HASH, user_hash),
            (semconv.TEAM_ID, n.teamId),
        )
        return {
            key: self.clean(value) if isinstance(value, str) else encode.fit(value)
            for key, value in values
            if value is not None and value != ""
        }

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

    def clean(self, text: str) -> str:
        """What every backend takes: no NUL, no lone surrogate, at most `value_limit` characters,
        a cut being visible."""
        if len(text) > self._limit:
            text = text[: max(0, self._limit - len(_CUT_MARK))] + _CUT_MARK
        if text.isprintable():  # neither NUL nor surrogates are
            return text
        text = text.replace("\x00", "\N{REPLACEMENT CHARACTER}")
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _texts(self, one: str, two: str, three: str) -> tuple[bytes, bytes, bytes]:
        """The ids, cleaned, as UTF-8. They hardly ever need cleaning, which one check shows."""
        together = one + two + three
        if not (together.isascii() and "\x00" not in together and len(together) <= self._limit):
            one, two, three = self.clean(one), self.clean(two), self.clean(three)
        return one.encode(), two.encode(), three.encode()


_MILLISECONDS = tuple([duration_text(ms * 10**6).encode() for ms in range(1000)])
_TENTHS = tuple([duration_text(tenth * 10**8).encode() for tenth in range(600)])


def _duration(nanoseconds: int) -> bytes:
    """The same as `duration_text`; most are short."""
    if nanoseconds < 10**9:
        return _MILLISECONDS[nanoseconds // 10**6]
    if nanoseconds < 60 * 10**9:
        return _TENTHS[nanoseconds // 10**8]
    return duration_text(nanoseconds).encode()


def _ended_forms(
    repeating: _Repeating, sizes: _Sizes, event_attribute: bool
) -> tuple[encode.SpanForm, encode.LogForm]:
    span = forms.span_form(repeating.fields, *sizes)
    *_, notification, _ = sizes
    log = forms.log_form(repeating.fields, *sizes, notification, b"", event_attribute)
    if len(repeating.ended) >= _FORMS:
        repeating.ended.clear()
    repeating.ended[sizes] = span, log
    return span, log


def _ended_kind(n: Notification) -> forms.Kind:
    return forms.FAILED if n.message == ERROR else forms.FINISHED


def identities_of(n: Notification) -> tuple[str, str, str]:
    """executionUuid, executionId and _id, "" for what is missing. Raises Unconvertible where all
    are."""
    data = n.data
    uuid = data.executionUuid or "" if data else ""
    execution_id = data.executionId or "" if data else ""
    notification_id = n.id or ""
    if not (uuid or execution_id or notification_id):
        raise Unconvertible("it has neither executionUuid, executionId nor _id")
    return uuid, execution_id, notification_id


def times_of(execution: Execution) -> tuple[int, int, int, bool]:
    """start, end, observed (Unix ns) and whether start or end had to be made up.

    A missing one falls back to the other, then to createdAt; an end before its start becomes the
    start, so that a duration is never negative.
    """
    n, role = execution.notification, execution.role
    start = to_ns(n.startedAt) or to_ns(execution.started_at)
    completed = to_ns(n.completedAt)
    created = completed if n.createdAt == n.completedAt else to_ns(n.createdAt)
    fallback = created or object_id_ns(n.id)
    if role is _ENDED or role is _ENDED_AGAIN or role is _OTHER:
        end, adjusted = completed, start is None or completed is None
    else:  # there is no end to be known
        end = start if role is _STARTED else created or start
        adjusted = start is None
    start = start or end or fallback
    if start is None:
        raise Unconvertible("it has no usable startedAt, completedAt or createdAt")
    if end is None:
        end = start
    elif end < start:
        end, adjusted = start, True
    return start, end, fallback or end, adjusted
