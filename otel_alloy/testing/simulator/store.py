"""The log itself: records in order of ``createdAt``, the steps still to come, and the answers.

Pure: time comes from the clock it is given, questions are parameters, answers are bytes. Millions
of records are kept as bytes that go out as they are, most of each shared between the executions of
one installed workflow; a page is a slice and a join, at any depth.
"""

import heapq
import json
import random
import threading
from bisect import bisect_left, bisect_right, insort_right
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.utils import formatdate
from operator import attrgetter
from typing import Any

from otel_alloy.testing.simulator.config import Config
from otel_alloy.testing.simulator.faults import Answer
from otel_alloy.testing.simulator.inside import webhook_of
from otel_alloy.testing.simulator.query import Condition, Query, Refused, parse, predicate
from otel_alloy.testing.simulator.records import Execution, Record, Step, iso, millis

_HEAD = ("_id", "message", "data", "startedAt", "completedAt", "createdAt")
"""The keys that differ between the executions of one installed workflow."""
_VIEWS = 4
"""How many filtered or re-sorted lists are kept for the next page."""


class _Tail:
    """The end of a record's JSON, and the filterable values in it, shared by many records."""

    __slots__ = ("columns", "json")

    def __init__(self, text: bytes, fields: Record) -> None:
        self.json = text
        self.columns = {
            "forgeWorkflowId": _text(fields.get("forgeWorkflowId")),
            "userId": _text(fields.get("userId")),
            "forgeWorkflow.integrationId._id": _text(
                _inside(_inside(fields.get("forgeWorkflow"), "integrationId"), "_id")
            ),
            "workflowVersion": _number(fields.get("workflowVersion")),
        }


class _Row:
    """One visible record."""

    __slots__ = ("created", "head", "message", "tail")

    def __init__(self, created: int, message: str | None, head: bytes, tail: _Tail) -> None:
        self.created = created
        self.message = message
        self.head = head
        self.tail = tail

    def record(self) -> Record:
        record: Record = json.loads(self.head + self.tail.json)
        return record

    def column(self, name: str) -> str | int | float | None:
        if name == "createdAt":
            return self.created
        if name == "message":
            return self.message
        if name == "data.executionId":
            return _text(_inside(self.record().get("data"), "executionId"))
        return self.tail.columns[name]


_created = attrgetter("created")


class LogStore:
    """What ``GET /logs`` answers from. Safe to use from several threads.

    ``clock`` gives seconds since the epoch and must not go back: what its advance has made visible
    stays visible.
    """

    def __init__(self, config: Config | None = None, *, clock: Callable[[], float]) -> None:
        self.config = config or Config()
        self.calls: deque[Record] = deque()
        """Requests to the customer's service that are due: ``{"headers": ..., "json": ...}``."""
        self.reports: deque[Record] = deque()
        """Requests of the error webhook that are due, in the same form."""
        self.odd_pages: deque[str | None] = deque()
        """The fate of the next pages, one each: a kind of ``ODD_PAGES`` or ``None``. Goes before
        ``Config.odd_pages``."""
        self._last_page: list[_Row] = []
        self._clock = clock
        self._lock = threading.RLock()
        self._rows: list[_Row] = []
        self._tails: dict[bytes, _Tail] = {}
        self._by_id: dict[str, _Row] | None = None
        self._due: list[tuple[int, int, Step | tuple[Execution, Iterator[Execution]]]] = []
        self._pushed = 0
        self._answered = 0
        self._views: OrderedDict[tuple[object, ...], list[_Row]] = OrderedDict()

    def __len__(self) -> int:
        """The number of records that are visible now."""
        with self._lock:
            self.advance()
            return len(self._rows)

    # Changing the log ----------------------------------------------------------------------------

    def add(self, record: Record, *, visible_at: float | None = None) -> None:
        """Add a record: now, or when the clock reaches ``visible_at`` (seconds since the epoch).

        A record whose ``createdAt`` cannot be read is kept as the oldest of all.
        """
        with self._lock:
            if visible_at is None:
                self._insert(record)
            else:
                self._push(round(visible_at * 1000), Step(0, "add", record))

    def change(self, record_id: str, **fields: Any) -> None:
        """Set top-level fields of a visible record. Raises ``KeyError`` if there is none."""
        with self._lock:
            self.advance()
            self._change(record_id, fields)

    def remove(self, record_id: str) -> None:
        """Take a visible record away. Raises ``KeyError`` if there is none."""
        with self._lock:
            self.advance()
            self._remove(record_id)

    def remove_user(self, user_id: str) -> int:
        """Take away all visible records of a user, as a deletion request does; their number."""
        with self._lock:
            self.advance()
            before = len(self._rows)
            kept = [row for row in self._rows if row.tail.columns["userId"] != user_id]
            self._replace_all(kept)
            return before - len(kept)

    def feed(self, executions: Iterable[Execution]) -> None:
        """Let executions happen as the clock passes; they must come ordered by ``started``.

        Taken from lazily, so an endless source is fine.
        """
        with self._lock:
            self._pull(iter(executions))

    def advance(self) -> int:
        """Let everything happen that is due; the time of the clock in ms."""
        with self._lock:
            now = round(self._clock() * 1000)
            while self._due and self._due[0][0] <= now:
                _, _, due = heapq.heappop(self._due)
                if isinstance(due, Step):
                    self._apply(due)
                else:
                    execution, more = due
                    for step in execution.steps:
                        self._push(step.at, step)
                    self._pull(more)
            if self.config.retention is not None:
                oldest = now - round(self.config.retention * 1000)
                if self._rows and self._rows[0].created < oldest:
                    gone = bisect_left(self._rows, oldest, key=_created)
                    self._replace_all(self._rows[gone:])
            return now

    def records(self) -> Iterator[Record]:
        """All records visible now, oldest first."""
        with self._lock:
            self.advance()
            rows = list(self._rows)
        return (row.record() for row in rows)

    def of_workflow(self, workflow_id: str, user_id: str) -> list[Record]:
        """The visible records of a user's installed copy of a workflow, oldest first."""
        mark = b'"workflowId":%b' % _dumps(workflow_id)
        with self._lock:
            self.advance()
            tails = {
                tail
                for tail in self._tails.values()
                if tail.columns["userId"] == user_id and mark in tail.json
            }
            rows = [row for row in self._rows if row.tail in tails]
        return [row.record() for row in rows]

    # Answering -----------------------------------------------------------------------------------

    def query(self, params: Mapping[str, str]) -> Answer:
        """The answer to one authorized request, by its query parameters.

        400 and 422 with ``{"message": ...}`` for parameters that the API does not take.
        """
        with self._lock:
            now = self.advance()
            self._answered += 1
            told = now + round(self.config.clock_offset * 1000)
            date = told / 1000 + self.config.date_offset
            headers = {
                "Date": formatdate(date, usegmt=True),
                "Content-Type": "application/json; charset=utf-8",
            }
            try:
                body = self._page(parse(params, self.config), told)
            except Refused as refused:
                error = json.dumps({"message": refused.message}).encode()
                return Answer(refused.status, headers, error)
            return Answer(200, headers, body)

    def _page(self, query: Query, told: int) -> bytes:
        config = self.config
        if config.ignore_skip:
            query = query._replace(skip=0)
        rows, low, high = self._matching(query)
        found = high - low
        if query.skip > found and config.skip_past_end == "refuse":
            raise Refused(400, "skip lies past the last record")
        skip, stop = min(query.skip, found), min(query.skip + query.limit, found)
        first, last = (high - stop, high - skip) if query.descending else (low + skip, low + stop)
        page = self._cut(rows, first, last, low, high)
        if query.descending:
            page.reverse()

        page = self._spoiled(page)
        counts: dict[str, object] = {
            "filtered": found,
            "all": len(self._rows),
            "page": len(page),
            "huge": 10**12,
            "negative": -1,
            "text": "many",
        }
        total = len(self._rows) if config.total_items == "all" else found
        current: float = query.skip // query.limit + 1
        if config.current_page == "fraction":
            current = query.skip / query.limit + 1
        elif config.current_page == "constant":
            current = 1
        pagination = {
            "totalItems": counts.get(config.total_items),
            "totalPages": -(-total // query.limit),
            "currentPage": current,
            "pageSize": query.asked if config.page_size == "asked" else query.limit,
        }
        body = b'{"notifications":[%b],"lastFetched":"%b","pagination":%b}' % (
            b",".join([row.head + row.tail.json for row in page]),
            iso(told).encode(),
            _dumps(pagination),
        )
        return b'{"data":%b}' % body if config.envelope else body

    def _spoiled(self, page: list[_Row]) -> list[_Row]:
        """The page as it is given, which may be less than what belongs there."""
        config, before = self.config, self._last_page
        self._last_page = page
        if config.hidden is not None:
            first, end = config.hidden
            hidden = (i for i, row in enumerate(page) if first <= row.created < end)
            page = page[: next(hidden, len(page))]
        kind = None
        if self.odd_pages:
            kind = self.odd_pages.popleft()
        elif config.odd_pages:
            rng = random.Random(f"{config.seed}:odd:{self._answered}")
            kinds = [*config.odd_pages, None]
            rates = list(config.odd_pages.values())
            (kind,) = rng.choices(kinds, [*rates, max(0.0, 1 - sum(rates))])
        if kind == "empty":
            return []
        if kind == "short":
            return page[: len(page) // 2]
        return before if kind == "repeated" else page

    def _matching(self, query: Query) -> tuple[list[_Row], int, int]:
        """A list in ascending order of the sort key, and the bounds of the matches in it."""
        conditions = [
            condition
            for condition in query.conditions
            if condition.column != "createdAt" or self.config.created_at_filter != "ignored"
        ]
        if self.config.created_at_filter == "nothing" and any(
            condition.column == "createdAt" for condition in conditions
        ):
            return [], 0, 0
        bounds = [c for c in conditions if query.sort_by == "createdAt" and _is_bound(c)]
        others = tuple(c for c in conditions if c not in bounds)
        rows = self._view(query.sort_by, others)
        low, high = 0, len(rows)
        for bound in bounds:
            at = int(bound.value)
            if bound.operator in ("greaterthan", "equals"):
                after = at + 1 if bound.operator == "greaterthan" else at
                low = max(low, bisect_left(rows, after, key=_created))
            if bound.operator in ("lessthan", "equals"):
                before = at if bound.operator == "lessthan" else at + 1
                high = min(high, bisect_left(rows, before, key=_created))
        return rows, low, max(low, high)

    def _view(self, sort_by: str, conditions: tuple[Condition, ...]) -> list[_Row]:
        """All rows that meet the conditions, sorted. Kept until the log changes, for next pages."""
        if sort_by == "createdAt" and not conditions:
            return self._rows
        key = (sort_by, conditions)
        if key in self._views:
            self._views.move_to_end(key)
            return self._views[key]
        rows = list(self._rows)
        for condition in conditions:
            test, column = predicate(condition), condition.column
            rows = [row for row in rows if test(row.column(column))]
        if sort_by == "completedAt":
            rows.sort(key=_completed)
        elif sort_by != "createdAt":
            rows.sort(key=lambda row: str(row.column(sort_by) or ""))
        self._views[key] = rows
        if len(self._views) > _VIEWS:
            self._views.popitem(last=False)
        return rows

    def _cut(self, rows: list[_Row], first: int, last: int, low: int, high: int) -> list[_Row]:
        """``rows[first:last]``; with shuffled ties, after shuffling each run of equal keys."""
        if self.config.ties == "stable" or first == last:
            return rows[first:last]
        # Runs are taken whole: a record may then stand on two pages or on none, which is what a
        # document store without a second sort key does.
        begin = bisect_left(rows, rows[first].created, low, high, key=_created)
        end = bisect_right(rows, rows[last - 1].created, low, high, key=_created)
        rng = random.Random(f"{self.config.seed}:{self._answered}")
        mixed = [(row.created, rng.random(), row) for row in rows[begin:end]]
        mixed.sort(key=lambda item: item[:2])
        return [row for _, _, row in mixed][first - begin : last - begin]

    # Rows ----------------------------------------------------------------------------------------

    def _push(self, at: int, due: Step | tuple[Execution, Iterator[Execution]]) -> None:
        self._pushed += 1  # breaks ties, so that equal times happen in the order they came
        heapq.heappush(self._due, (at, self._pushed, due))

    def _pull(self, executions: Iterator[Execution]) -> None:
        execution = next(executions, None)
        if execution is not None:
            self._push(execution.started, (execution, executions))

    def _apply(self, step: Step) -> None:
        record_id = str(step.body.get("_id"))
        try:
            if step.action == "add":
                self._insert(step.body)
            elif step.action == "call":
                self.calls.append(step.body)
            elif step.action == "report":
                self.reports.append(step.body)
            elif step.action == "remove":
                self._remove(record_id)
            else:
                self._change(record_id, step.body)
        except KeyError:
            pass  # the record was deleted in the meantime; what was planned for it lapses

    def _row(self, record: Record) -> _Row:
        head = {key: record[key] for key in _HEAD if key in record}
        rest = {key: value for key, value in record.items() if key not in head}
        text = _dumps(rest)
        if head:
            text = b"," + text[1:] if rest else b"}"
        tail = self._tails.get(text)
        if tail is None:
            tail = self._tails[text] = _Tail(text, rest)
        created = millis(record.get("createdAt"))
        message = _text(record.get("message"))
        opening = _dumps(head)[:-1] if head else b""
        return _Row(0 if created is None else created, message, opening, tail)

    def _insert(self, record: Record) -> None:
        row = self._row(record)
        if not self._rows or self._rows[-1].created <= row.created:
            self._rows.append(row)  # the usual case, and millions of them
        else:
            insort_right(self._rows, row, key=_created)
        if self._by_id is not None:
            self._by_id[str(record.get("_id"))] = row
        self._views.clear()
        self._report(record)

    def _change(self, record_id: str, fields: Record) -> None:
        old = self._find(record_id)
        new = self._row(old.record() | fields)
        place = self._place(old)
        if new.created == old.created:
            self._rows[place] = new
        else:
            del self._rows[place]
            insort_right(self._rows, new, key=_created)
        self._index()[record_id] = new
        self._views.clear()
        if "message" in fields:
            self._report(new.record())

    def _report(self, record: Record) -> None:
        """Has the error webhook tell of a failure that has become visible."""
        config = self.config
        if config.error_webhook_url is None or (report := webhook_of(record)) is None:
            return
        rng = random.Random(f"{config.seed}:report:{report['json']['_id']}")
        if rng.random() < config.error_webhook_lost:
            return
        at = round((self._clock() + config.error_webhook_late) * 1000)
        for _ in range(2 if rng.random() < config.error_webhook_twice else 1):
            self._push(at, Step(at, "report", report))

    def _remove(self, record_id: str) -> None:
        row = self._find(record_id)
        del self._rows[self._place(row)]
        del self._index()[record_id]
        self._views.clear()

    def _replace_all(self, rows: list[_Row]) -> None:
        self._rows = rows
        self._by_id = None
        self._views.clear()

    def _index(self) -> dict[str, _Row]:
        # Built when first needed: most uses never look a record up, and the ids of millions are
        # hundreds of megabytes.
        if self._by_id is None:
            self._by_id = {str(row.record().get("_id")): row for row in self._rows}
        return self._by_id

    def _find(self, record_id: str) -> _Row:
        row = self._index().get(record_id)
        if row is None:
            raise KeyError(f"no visible record {record_id!r}")
        return row

    def _place(self, row: _Row) -> int:
        place = bisect_left(self._rows, row.created, key=_created)
        while self._rows[place] is not row:
            place += 1
        return place


def _is_bound(condition: Condition) -> bool:
    return condition.column == "createdAt" and condition.operator in (
        "greaterthan",
        "lessthan",
        "equals",
    )


def _completed(row: _Row) -> int:
    completed = millis(row.record().get("completedAt"))
    return -1 if completed is None else completed


# ASCII only: a lone surrogate then travels as an escape, as JSON allows.
_encode = json.JSONEncoder(separators=(",", ":")).encode


def _dumps(value: object) -> bytes:
    return _encode(value).encode("ascii")


def _inside(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, dict) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
