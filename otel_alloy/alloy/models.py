"""The answer of `GET /logs` as pydantic models, after the vendor's OpenAPI description.

That description has no `required` list, so every field may be missing or null; references may
come populated or as a bare id; unknown fields and unknown messages pass. A page in which everything
has its documented type, as nearly all have, is only parsed. The models judge any other, as a whole,
and only where that fails record by record; only a record that cannot be read at all is left out,
with the reason. A page that is only parsed gives what the models would make of it. Field names are
the vendor's. What is too large to be expanded is found out before that (`outline`).
"""

from __future__ import annotations

import codecs
import gc
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from operator import itemgetter
from typing import Annotated, Any, Required

from pydantic import AliasChoices, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from pydantic_core import from_json
from typing_extensions import TypedDict

from otel_alloy.alloy import outline
from otel_alloy.alloy.timestamps import object_id_ns, to_ns

STARTED, FINISHED, ERROR = "executionStarted", "executionFinished", "executionError"
TERMINAL = frozenset((FINISHED, ERROR))

Timestamp = Any  # any JSON value: `timestamps.to_ns` decides what it can read


@dataclass(slots=True)
class ExecutionReference:
    """`data`: which execution the notification is about."""

    executionId: str | None = None
    executionUuid: str | None = None


@dataclass(frozen=True, slots=True)
class User:
    """The customer's user for whom the workflow ran."""

    email: str | None = None
    fullName: str | None = None


@dataclass(frozen=True, slots=True)
class Integration:
    """The integration that the workflow belongs to."""

    id: str | None = None
    name: str | None = None
    blockId: str | None = None


@dataclass(frozen=True, slots=True)
class Workflow:
    """`forgeWorkflow`: the parent workflow, the template of a user's installed copy."""

    name: str | None = None
    integrationId: Integration | str | None = None


@dataclass(frozen=True, slots=True)
class Common:
    """What notifications of one workflow, version and user have in common, in one object for
    all of them, as a rule."""

    customVersion: bool | None
    workflowVersion: int | None
    teamId: str | None
    forgeWorkflowId: str | None
    workflowId: str | None
    userId: str | None
    user: User | str | None
    forgeWorkflow: Workflow | str | None


@dataclass(slots=True)
class Notification:
    """One entry of `notifications`. The fields that repeat are those of `common`."""

    id: str | None
    message: str | None
    data: ExecutionReference | None
    startedAt: Timestamp
    completedAt: Timestamp
    createdAt: Timestamp
    common: Common

    @property
    def execution(self) -> str | None:
        """What identifies the execution: executionId, else executionUuid."""
        data = self.data
        return (data.executionId or data.executionUuid) if data else None

    @property
    def customVersion(self) -> bool | None:
        """Whether the workflow's version was made for this one user."""
        return self.common.customVersion

    @property
    def workflowVersion(self) -> int | None:
        """The workflow's version that ran."""
        return self.common.workflowVersion

    @property
    def teamId(self) -> str | None:
        """The account's team."""
        return self.common.teamId

    @property
    def forgeWorkflowId(self) -> str | None:
        """The parent workflow."""
        return self.common.forgeWorkflowId

    @property
    def workflowId(self) -> str | None:
        """The user's installed copy of the workflow."""
        return self.common.workflowId

    @property
    def userId(self) -> str | None:
        """The customer's user."""
        return self.common.userId

    @property
    def user(self) -> User | str | None:
        """The same, populated or as an id."""
        return self.common.user

    @property
    def forgeWorkflow(self) -> Workflow | str | None:
        """The parent workflow, populated or as an id."""
        return self.common.forgeWorkflow


@dataclass(slots=True)
class Pagination:
    """What the API says of its own paging; shown to people, never relied on."""

    totalItems: int | None = None
    totalPages: int | None = None
    currentPage: int | None = None
    pageSize: int | None = None


# The models: what JSON is taken, and what becomes of it ------------------------------------------

_lenient = with_config(ConfigDict(extra="ignore", coerce_numbers_to_str=True))
_Text = Annotated[str | None, Field(default=None)]
_Id = Annotated[str | None, Field(default=None, validation_alias=AliasChoices("_id", "id"))]
_Time = Annotated[Timestamp, Field(default=None)]
_Number = Annotated[int | None, Field(default=None)]


@_lenient
class _Data(TypedDict, total=False):
    executionId: _Text
    executionUuid: _Text


@_lenient
class _User(TypedDict, total=False):
    email: _Text
    fullName: _Text


@_lenient
class _Integration(TypedDict, total=False):
    _id: _Id
    name: _Text
    blockId: _Text


@_lenient
class _Workflow(TypedDict, total=False):
    name: _Text
    integrationId: Annotated[
        _Integration | str | None, Field(default=None, union_mode="left_to_right")
    ]


@_lenient
class _Entry(TypedDict, total=False):
    _id: _Id
    message: _Text
    data: Annotated[_Data | None, Field(default=None)]
    startedAt: _Time
    completedAt: _Time
    createdAt: _Time
    customVersion: Annotated[bool | None, Field(default=None)]
    workflowVersion: _Number
    teamId: _Text
    forgeWorkflowId: _Text
    workflowId: _Text
    userId: _Text
    user: Annotated[_User | str | None, Field(default=None, union_mode="left_to_right")]
    forgeWorkflow: Annotated[
        _Workflow | str | None, Field(default=None, union_mode="left_to_right")
    ]


@_lenient
class _Pagination(TypedDict, total=False):
    totalItems: _Number
    totalPages: _Number
    currentPage: _Number
    pageSize: _Number


@_lenient
class _Answer(TypedDict, total=False):
    notifications: Required[Annotated[list[_Entry], Field(max_length=outline.MOST_ENTRIES)]]
    lastFetched: _Time
    pagination: Annotated[_Pagination | None, Field(default=None)]


_answer = TypeAdapter(_Answer)
_pagination = TypeAdapter[_Pagination | None](_Pagination | None)
_one = TypeAdapter(_Entry)

_own = itemgetter("_id", "message", "data", "startedAt", "completedAt", "createdAt")
_plain = itemgetter(
    *("customVersion", "workflowVersion", "teamId", "forgeWorkflowId", "workflowId", "userId")
)
_of_data = itemgetter("executionId", "executionUuid")
_of_user = itemgetter("email", "fullName")
_of_workflow = itemgetter("name", "integrationId")
_of_integration = itemgetter("_id", "name", "blockId")
_new = object.__new__  # half the time of calling the class, for what every record has

_MOST_COMMON = 20_000
_commons: dict[tuple[Any, ...], Common] = {}
"""By their fields, each of its documented type, with tuples in the place of objects."""


class _Unusual(Exception):
    """Something has another type than the documented one: the models are to judge."""


def _notification(entry: Any) -> Notification:
    """The notification of an entry that has all fields, as those have that the models made.
    Raises KeyError where one is missing, _Unusual where one has another type."""
    made = _new(Notification)
    identity, message, data, made.startedAt, made.completedAt, made.createdAt = _own(entry)
    if not (
        (type(identity) is str or identity is None) and (type(message) is str or message is None)
    ):
        raise _Unusual
    made.id, made.message = identity, message
    if data is not None:
        if type(data) is not dict:
            raise _Unusual
        execution, uuid = _of_data(data)
        if not (
            (type(execution) is str or execution is None) and (type(uuid) is str or uuid is None)
        ):
            raise _Unusual
        data = _new(ExecutionReference)
        data.executionId, data.executionUuid = execution, uuid
    made.data = data
    user, workflow = entry["user"], entry["forgeWorkflow"]
    if type(user) is dict:
        user = _of_user(user)
    if type(workflow) is dict:
        name, integration = _of_workflow(workflow)
        if type(integration) is dict:
            integration = _of_integration(integration)
        workflow = name, integration
    fields = _plain(entry), user, workflow
    try:
        made.common = _commons[fields]
    except (KeyError, TypeError):  # it is new, or holds a list
        made.common = _common(fields)
    return made


def _common(fields: tuple[tuple[Any, ...], Any, Any]) -> Common:
    """Raises _Unusual where a field has another type."""
    (custom, version, *plain), user, workflow = fields
    texts = list(plain)
    if type(user) is tuple:
        texts += user
        user = User(*user)
    else:
        texts.append(user)
    if type(workflow) is tuple:
        name, integration = workflow
        texts.append(name)
        if type(integration) is tuple:
            texts += integration
            integration = Integration(*integration)
        else:
            texts.append(integration)
        workflow = Workflow(name, integration)
    else:
        texts.append(workflow)
    if not (
        (custom is None or type(custom) is bool)
        and (version is None or type(version) is int)
        and all(text is None or type(text) is str for text in texts)
    ):
        raise _Unusual
    if len(_commons) >= _MOST_COMMON:
        _commons.clear()
    team, workflow_id, copy, user_id = plain
    made = Common(custom, version, team, workflow_id, copy, user_id, user, workflow)
    _commons[fields] = made
    return made


def _usual(entry: Any) -> Notification:
    """The notification of an entry as it was parsed. Raises _Unusual."""
    if type(entry) is not dict:
        raise _Unusual
    try:
        return _notification(entry)
    except KeyError:  # fields may be missing
        return _notification(_completed(entry))


def _completed(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry with all its fields, None where one is missing. Raises _Unusual."""
    whole = _filled(_Entry, entry)
    for name, model in (("data", _Data), ("user", _User), ("forgeWorkflow", _Workflow)):
        if type(whole[name]) is dict:
            whole[name] = _filled(model, whole[name])
    workflow = whole["forgeWorkflow"]
    if type(workflow) is dict and type(workflow["integrationId"]) is dict:
        workflow["integrationId"] = _filled(_Integration, workflow["integrationId"])
    return whole


def _filled(model: type, fields: dict[str, Any]) -> dict[str, Any]:
    if "id" in fields and "_id" not in fields:
        raise _Unusual
    return dict.fromkeys(model.__annotations__) | fields


def _parsed(body: bytes) -> tuple[list[Notification], Timestamp, Pagination | None]:
    """`notifications`, `lastFetched` and `pagination` of an answer in which everything has its
    documented type. Raises _Unusual."""
    try:
        answer = from_json(body, cache_strings="keys")
    except ValueError:
        raise _Unusual from None
    entries = answer.get("notifications") if type(answer) is dict else None
    if type(entries) is not list or len(entries) > outline.MOST_ENTRIES:
        raise _Unusual
    told, pagination = answer.get("pagination"), None
    if told is not None:
        if type(told) is not dict:
            raise _Unusual
        numbers = [told.get(name) for name in _Pagination.__annotations__]
        if not all(number is None or type(number) is int for number in numbers):
            raise _Unusual
        pagination = Pagination(*numbers)
    return [_usual(entry) for entry in entries], answer.get("lastFetched"), pagination


def _judged(body: bytes) -> tuple[list[Notification], Timestamp, Pagination | None]:
    """The same of any answer that the models take. Raises ValidationError."""
    answer = _answer.validate_json(body)
    told = answer["pagination"]
    return (
        [_notification(entry) for entry in answer["notifications"]],
        answer["lastFetched"],
        None if told is None else Pagination(**told),
    )


class Unreadable(ValueError):
    """The body is not JSON, or not the documented shape; the message says which."""


class Oversized(Unreadable):
    """The body would take more memory than an answer may; the message names the limit."""


class _Body:
    """An answer's bytes, parsed a second time only when somebody wants a record's own JSON."""

    __slots__ = ("_bytes", "_parsed")

    def __init__(self, body: bytes) -> None:
        self._bytes = body
        self._parsed: list[Any] | None = None

    @property
    def size(self) -> int:
        """Its bytes, which stay in memory as long as one of its records does."""
        return len(self._bytes)

    def entry(self, index: int) -> Any:
        if self._parsed is None:
            self._parsed = _entries(_loads(self._bytes))[0]
        return self._parsed[index]


@dataclass(slots=True)
class Entry:
    """Entry `index` of an answer's `notifications`; `identity` tells whether it is known."""

    body: _Body
    index: int
    identity: tuple[str, str]

    def text(self) -> str:
        """The entry as the API sent it (parsed and written again); of one that is nested too
        deeply to be written, what is not nested."""
        entry = self.body.entry(self.index)
        try:
            return json.dumps(entry, ensure_ascii=True)
        except RecursionError:
            flat = entry.items() if isinstance(entry, dict) else ()
            return json.dumps({k: v for k, v in flat if not isinstance(v, dict | list)})


@dataclass(slots=True)
class Record(Entry):
    """A notification. `created`: its createdAt, Unix ms. Its identity is `_id` and `message`."""

    notification: Notification
    created: int | None


@dataclass(slots=True)
class BadRecord(Entry):
    """An entry that is no notification, and why. Its identity is a digest of its JSON. `created`:
    its createdAt, Unix ms, where it has one."""

    reason: str
    created: int | None = None


@dataclass(slots=True)
class Page:
    """One answer: the readable records in the API's order, and the others."""

    records: list[Record]
    bad: list[BadRecord] = field(default_factory=list)
    last_fetched: Timestamp = None
    pagination: Pagination | None = None
    envelope: bool = False  # whether the answer came wrapped in `data`
    server_date: int | None = None  # Unix ms, of the `Date` header
    limit: int | None = None  # the page size that was asked for in the end

    @property
    def received(self) -> int:
        """How many entries the API sent."""
        return len(self.records) + len(self.bad)

    @property
    def created(self) -> list[int]:
        """The createdAt of the records that have one, Unix ms, in the API's order."""
        return [r.created for r in self.records if r.created is not None]

    @property
    def total(self) -> int | None:
        """How many records the API says there are, `totalItems`; None where it does not tell."""
        return self.pagination.totalItems if self.pagination else None

    @property
    def called_full(self) -> bool:
        """Whether the API itself says that it gives no more records at once than these: good for
        one more request, never for leaving one out."""
        told = self.pagination
        if told is None or told.pageSize is None:
            return False
        return 0 < told.pageSize <= self.received


@contextmanager
def _collector_aside() -> Iterator[None]:
    """Thousands of objects appear at once and none is garbage; scanning them costs more than
    parsing them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_page(body: bytes) -> Page:
    """The page in an answer's `body`. Raises Unreadable, and of these Oversized."""
    try:
        body, cut = outline.bounded(body if body[:1] in _USUAL else _without_mark(body))
    except outline.Oversized as error:
        raise Oversized(str(error)) from None
    with _collector_aside():
        if cut:
            return _read_leniently(body, cut=True)
        try:
            notifications, last_fetched, pagination = _parsed(body)
        except _Unusual:
            try:
                notifications, last_fetched, pagination = _judged(body)
            except ValidationError:
                return _read_leniently(body)
        kept = _Body(body)
        return Page(
            [_record(kept, i, n) for i, n in enumerate(notifications)],
            last_fetched=last_fetched,
            pagination=pagination,
        )


_USUAL = (b"{", b"[", b" ", b"\n")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def _without_mark(body: bytes) -> bytes:
    """`body` without the byte order mark that some put before JSON, as UTF-8."""
    for mark, encoding in _MARKS:
        if body.startswith(mark):
            if encoding == "utf-8":
                return body[len(mark) :]
            return body.decode(encoding, "replace").encode("utf-8", "replace")
    return body


def _record(body: _Body, index: int, notification: Notification) -> Record:
    identity = notification.id
    if identity is None:
        identity = _digest(body, index)
    born = to_ns(notification.createdAt) or object_id_ns(identity)
    record = _new(Record)
    record.body, record.index = body, index
    record.identity = (identity, notification.message or "")
    record.notification = notification
    record.created = None if born is None else born // 1_000_000
    return record


def _digest(body: _Body, index: int) -> str:
    return sha256(Entry(body, index, ("", "")).text().encode()).hexdigest()


def _loads(body: bytes) -> Any:
    text = body.decode("utf-8", "replace")
    try:
        return json.loads(text, parse_int=_integer)
    except RecursionError:  # one deep record must not take its page with it
        try:
            return json.loads(_shallow(text), parse_int=_integer)
        except ValueError:
            raise Unreadable("its JSON is nested too deeply, or cut off") from None
    except ValueError as error:
        start = body[:200].lstrip()[:15].lower()
        if start.startswith((b"<!doctype", b"<html")):
            raise Unreadable("it is an HTML page, not JSON") from None
        if not body.strip():
            raise Unreadable("it is empty") from None
        place = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise Unreadable(f"it is not JSON, or cut off{place}") from None


_DEEPEST = 64
# Possessive: else the engine keeps a way back for each character of a text.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)


def _shallow(text: str) -> str:
    """JSON without what lies deeper than `_DEEPEST` levels; `null` stands there."""
    kept: list[str] = []
    depth = begin = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        if found[0] in "[{":
            depth += 1
            if depth == _DEEPEST + 1:
                kept += text[begin : found.start()], "null"
        elif found[0] in "]}":
            if depth == _DEEPEST + 1:
                begin = found.end()
            depth -= 1
    return "".join(kept) + (text[begin:] if depth <= _DEEPEST else "")


def _integer(digits: str) -> int | str:
    """Python refuses to read integers of more than 4300 digits; such a one stays text."""
    return int(digits) if len(digits) < 4300 else digits


def _entries(answer: Any) -> tuple[list[Any], dict[str, Any]]:
    """The list `notifications` and the object around it, with or without a `data` envelope. null
    in its place, or in that of `data`, is no entry where the answer itself counts none."""
    if isinstance(answer, dict):
        outer, inner = answer, answer.get("data")
        if "notifications" not in answer and isinstance(inner, dict):
            answer = inner
        entries = answer.get("notifications")
        if isinstance(entries, list):
            return entries, answer
        empty = "notifications" if "notifications" in answer else "data"
        if empty in answer and answer[empty] is None:
            counted = [part.get("pagination") for part in (answer, outer)]
            if any(isinstance(p, dict) and _is_zero(p.get("totalItems")) for p in counted):
                return [], answer
            raise Unreadable(
                f"its `{empty}` is null, and no `totalItems` of 0 says that there are no records"
            )
    raise Unreadable("it is JSON, but has no list `notifications`")


def _is_zero(count: Any) -> bool:
    return type(count) is int and count == 0


def _read_leniently(body: bytes, *, cut: bool = False) -> Page:
    kept = _Body(body)
    whole = _loads(body)
    entries, answer = _entries(whole)
    if len(entries) > outline.MOST_ENTRIES:
        raise Oversized(f"it holds more than {outline.MOST_ENTRIES} entries")
    page = Page([], last_fetched=answer.get("lastFetched"), envelope=answer is not whole)
    try:
        told = _pagination.validate_python(answer.get("pagination"))
        page.pagination = None if told is None else Pagination(**told)
    except ValidationError:
        page.pagination = None
    for index, entry in enumerate(entries):
        try:
            if cut and (reason := outline.cut_in(Entry(kept, index, ("", "")).text())):
                raise Unreadable(reason)
            page.records.append(_record(kept, index, _read(entry)))
        except Unreadable as error:
            born = to_ns(entry.get("createdAt")) if isinstance(entry, dict) else None
            created = None if born is None else born // 1_000_000
            identity = (_digest(kept, index), "")
            page.bad.append(BadRecord(kept, index, identity, str(error), created))
    return page


def read_notification(text: str) -> Notification:
    """The notification whose JSON is `text`, as leniently as in a page. Raises Unreadable."""
    try:
        body, _ = outline.bounded(text.encode("utf-8", "replace"))
    except outline.Oversized as error:
        raise Unreadable(str(error)) from None
    return _read(_loads(body))


def _read(entry: Any) -> Notification:
    """The entry without the fields that are not what the vendor documents."""
    if not isinstance(entry, dict):
        raise Unreadable(f"it is not an object but {type(entry).__name__}")
    try:
        entry = _without_surrogates(entry)
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    for _ in range(2):
        try:
            valid = _one.validate_python(entry)
        except ValidationError as error:
            wrong = {problem["loc"][0] for problem in error.errors(include_input=False)}
            entry = {key: value for key, value in entry.items() if key not in wrong}
        else:
            return _notification(valid)
    raise Unreadable("its fields are not as documented")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(v) for v in value]
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    return value
