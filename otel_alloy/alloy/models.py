"""The answer of `GET /logs` as pydantic models, after the vendor's OpenAPI description.

That description has no `required` list, so every field may be missing or null; references may
come populated or as a bare id; unknown fields and unknown messages pass. A page is validated as
a whole, in Rust; only where that fails is it looked at record by record, and only a record that
cannot be read at all is left out, with the reason. Field names are the vendor's. What is too large
to be expanded is found out before that (`outline`).
"""

from __future__ import annotations

import codecs
import gc
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from functools import partial
from hashlib import sha256
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from otel_alloy.alloy import outline
from otel_alloy.alloy.timestamps import object_id_ns, to_ns

STARTED, FINISHED, ERROR = "executionStarted", "executionFinished", "executionError"
TERMINAL = frozenset((FINISHED, ERROR))

Timestamp = Any  # any JSON value: `timestamps.to_ns` decides what it can read


_LENIENT = ConfigDict(extra="ignore", coerce_numbers_to_str=True, validate_by_name=True)

# Slots instead of pydantic's own BaseModel: half the time and memory, the same validation.
_model = partial(dataclass, slots=True, config=_LENIENT)


@_model()
class ExecutionReference:
    """`data`: which execution the notification is about."""

    executionId: str | None = None
    executionUuid: str | None = None


@_model()
class User:
    """The customer's user for whom the workflow ran."""

    email: str | None = None
    fullName: str | None = None


@_model()
class Integration:
    """The integration that the workflow belongs to."""

    id: Annotated[str | None, Field(alias="_id")] = None
    name: str | None = None
    blockId: str | None = None


@_model()
class Workflow:
    """`forgeWorkflow`: the parent workflow, the template of a user's installed copy."""

    name: str | None = None
    integrationId: Annotated[Integration | str | None, Field(union_mode="left_to_right")] = None


@_model()
class Notification:
    """One entry of `notifications`."""

    id: Annotated[str | None, Field(alias="_id")] = None
    message: str | None = None
    data: ExecutionReference | None = None
    startedAt: Timestamp = None
    completedAt: Timestamp = None
    createdAt: Timestamp = None
    customVersion: bool | None = None
    workflowVersion: int | None = None
    teamId: str | None = None
    forgeWorkflowId: str | None = None
    workflowId: str | None = None
    userId: str | None = None
    user: Annotated[User | str | None, Field(union_mode="left_to_right")] = None
    forgeWorkflow: Annotated[Workflow | str | None, Field(union_mode="left_to_right")] = None

    @property
    def execution(self) -> str | None:
        """What identifies the execution: executionId, else executionUuid."""
        data = self.data
        return (data.executionId or data.executionUuid) if data else None


@_model()
class Pagination:
    """What the API says of its own paging; shown to people, never relied on."""

    totalItems: int | None = None
    totalPages: int | None = None
    currentPage: int | None = None
    pageSize: int | None = None


@_model()
class _Answer:
    notifications: Annotated[list[Notification], Field(max_length=outline.MOST_ENTRIES)]
    lastFetched: Timestamp = None
    pagination: Pagination | None = None


_answer = TypeAdapter(_Answer)
_pagination = TypeAdapter(Pagination)
_one = TypeAdapter(Notification)


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


@plain_dataclass(slots=True)
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


@plain_dataclass(slots=True)
class Record(Entry):
    """A notification. `created`: its createdAt, Unix ms. Its identity is `_id` and `message`."""

    notification: Notification
    created: int | None


@plain_dataclass(slots=True)
class BadRecord(Entry):
    """An entry that is no notification, and why. Its identity is a digest of its JSON. `created`:
    its createdAt, Unix ms, where it has one."""

    reason: str
    created: int | None = None


@plain_dataclass(slots=True)
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
            answer = _answer.validate_json(body)
        except ValidationError:
            return _read_leniently(body)
        kept = _Body(body)
        return Page(
            [_record(kept, i, n) for i, n in enumerate(answer.notifications)],
            last_fetched=answer.lastFetched,
            pagination=answer.pagination,
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
    created = None if born is None else born // 1_000_000
    return Record(body, index, (identity, notification.message or ""), notification, created)


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
        page.pagination = _pagination.validate_python(answer.get("pagination"))
    except ValidationError:
        page.pagination = None
    for index, entry in enumerate(entries):
        try:
            if cut and (reason := outline.cut_in(Entry(kept, index, ("", "")).text())):
                raise Unreadable(reason)
            page.records.append(_record(kept, index, _notification(entry)))
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
    return _notification(_loads(body))


def _notification(entry: Any) -> Notification:
    """The entry without the fields that are not what the vendor documents."""
    if not isinstance(entry, dict):
        raise Unreadable(f"it is not an object but {type(entry).__name__}")
    try:
        entry = _without_surrogates(entry)
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    for _ in range(2):
        try:
            notification = _one.validate_python(entry)
        except ValidationError as error:
            wrong = {problem["loc"][0] for problem in error.errors(include_input=False)}
            entry = {key: value for key, value in entry.items() if key not in wrong}
        else:
            return notification
    raise Unreadable("its fields are not as documented")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(v) for v in value]
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    return value
