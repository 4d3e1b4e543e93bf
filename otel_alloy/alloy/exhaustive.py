"""Everything that a question matches, from an API whose paging cannot be relied on.

For a run of one createdAt that is longer than a page, and for what a cursor found missing. Three
means, the cheapest first:

- **passes** by `skip`. One is complete where no record came twice in it: as many places were paged
  through as records were seen. With another order in each answer, or an ignored `skip`, it is not.
- **narrowing**: the question is halved by a filter (createdAt, message, user, workflow, version, a
  part of the executionId: `equals` and `notequals`, `contains` and `notcontains`), until each part
  is answered by less than a full page. What a filter brings is held against the filter.
- **patience**: both again, after a pause.

What was seen is then held against the API's own count. All is bounded: a reading costs at most
`_FACTOR` times its pages, and some.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Set
from dataclasses import dataclass, replace

from otel_alloy.alloy.cursor import Behaviour, Filter, UnorderedApi
from otel_alloy.alloy.models import BadRecord, Page, Record
from otel_alloy.alloy.query import Query

_PAUSE = 2.0
_BARREN_PASSES = 12
"""So many passes in a row without anything new are the end, where nothing else can tell."""
_FLOOR, _FACTOR, _CEILING = 60, 10, 3000
_SAMPLE = 200
_DEPTH = 40

Identity = tuple[str, str]
Condition = tuple[str, str, str]

_OPPOSITE = {"equals": "notequals", "contains": "notcontains"}


@dataclass(slots=True)
class Found:
    """What one request brings that was not seen before."""

    records: list[Record]
    bad: list[BadRecord]


class _Spent(Exception):
    """The requests that this reading may cost are used up."""


class Exhaustive:
    """Reads all that `question` matches, beyond what is `known`.

    `ask` sends a request; `attempt` too, and gives None where the API refuses it. `believed` says
    whether the API's count can be believed, which may cost a request. After `read`, `missing` is
    how many records could not be reached: None where some may be missing and nobody can tell how
    many.
    """

    def __init__(
        self,
        ask: Callable[[Query], Page],
        attempt: Callable[[Query], Page | None],
        api: Behaviour,
        question: Query,
        known: Set[Identity],
        believed: Callable[[], bool],
        pause: Callable[[float], None],
    ) -> None:
        self._ask_api = ask
        self._attempt = attempt
        self._api = api
        self._question = replace(question, skip=0)
        self._believed = believed
        self._pause = pause
        self._known = set(known)  # not to be handed on again
        self._seen: dict[Identity, dict[str, str]] = {}
        self._useless: set[str] = set()  # columns whose filter the API does not honour
        self._left = _FLOOR
        self._pages = 0
        self._total: int | None = None
        self._agrees = False  # whether a whole pass and a steady count came to the same number
        self._skips = True  # whether `skip` does something, as far as was seen
        self.missing: int | None = 0

    def read(self, *, narrow: bool = False) -> Iterator[Found]:
        """All of it. `narrow`: without passes first, as those failed. Raises UnorderedApi where the
        filter on createdAt turns out to be ignored."""
        try:
            yield from self._read(narrow)
        except _Spent:
            self.missing = self._short()

    def _read(self, narrow: bool) -> Iterator[Found]:
        if not narrow:
            whole = yield from self._pass(ascending=True)
            if whole and self._counted():
                return
            if whole and not self._contradicted():
                again = len(self._seen)
                whole = yield from self._pass(ascending=False)
                if whole and len(self._seen) == again:
                    return
        for wait in (0.0, _PAUSE):
            if wait:
                self._pause(wait)
                yield from self._pass(ascending=True)
                yield from self._pass(ascending=False)
            complete = yield from self._narrow(self._question, 0)
            if not self._recount():
                if complete:
                    return
                if self._total == self._number and self._api.exceeds and self._believed():
                    return
        self.missing = self._short()
        if self.missing is None:
            yield from self._insist()

    def _insist(self) -> Iterator[Found]:
        """Passes until many in a row bring nothing: where order changes and nothing is counted."""
        barren = 0
        while self._skips and barren < _BARREN_PASSES:
            before = len(self._seen)
            yield from self._pass(ascending=barren % 2 == 0)
            barren = barren + 1 if len(self._seen) == before else 0
        self.missing = 0 if self._skips else None

    @property
    def _number(self) -> int:
        """How many records are known."""
        return len(self._seen.keys() | self._known)

    # Counting -------------------------------------------------------------------------------------

    def _counted(self) -> bool:
        """Whether the API's count says that all was seen, and is one: as it is known to be, or as
        it stayed the same over many pages and was right."""
        told = self._api.counts_matches is True and self._api.exceeds and self._total is not None
        return (told and not self._contradicted()) or self._agrees

    def _contradicted(self) -> bool:
        """Whether the API counts more than was seen, as far as is known."""
        return self._total is not None and self._total > self._number

    def _recount(self) -> bool:
        """The same by a fresh count, as records may have been deleted meanwhile."""
        if not self._contradicted():
            return False
        page = self._ask(self._question.limited(1))
        self._total = self._api.count(self._question, page)
        return self._contradicted() and self._believed()

    def _short(self) -> int | None:
        if self._total is None or not self._believed():
            return None
        return max(0, self._total - self._number) or None

    # Asking ---------------------------------------------------------------------------------------

    def _ask(self, query: Query) -> Page:
        self._spend()
        return self._checked(self._ask_api(query))

    def _spend(self) -> None:
        if self._left <= 0:
            raise _Spent
        self._left -= 1

    def _checked(self, page: Page) -> Page:
        after, before = self._question.after, self._question.before
        for created in page.created:
            if (after is not None and created <= after) or (
                before is not None and created >= before
            ):
                self._api.filter = Filter.IGNORED
                raise UnorderedApi(Filter.IGNORED.value)
        return page

    def _take(self, page: Page) -> Found:
        found = Found([], [])
        for record in page.records:
            if record.identity not in self._seen:
                self._seen[record.identity] = _columns(record)
                if record.identity not in self._known:
                    found.records.append(record)
        for entry in page.bad:
            if entry.identity not in self._seen:
                self._seen[entry.identity] = {}
                if entry.identity not in self._known:
                    found.bad.append(entry)
        return found

    def _allow(self, page: Page) -> None:
        """The more there is, the more it may cost."""
        size = max(1, page.received)
        pages = max(self._total or 0, len(self._seen)) // size + 1
        if pages > self._pages:
            grown = min(_CEILING, _FACTOR * pages) - min(_CEILING, _FACTOR * self._pages)
            self._left, self._pages = self._left + grown, pages

    # Passes ---------------------------------------------------------------------------------------

    def _pass(self, *, ascending: bool) -> Generator[Found, None, bool]:
        """One pass by `skip`; whether it was complete in itself."""
        skip, mine, distinct = 0, set[Identity](), True
        first: int | None = None
        repeats = 0
        while True:
            query = replace(self._question, ascending=ascending, skip=skip)
            page = self._ask(query)
            here = {entry.identity for entry in (*page.records, *page.bad)}
            distinct = distinct and mine.isdisjoint(here) and len(here) == page.received
            repeats = repeats + 1 if here and here <= mine else 0
            mine |= here
            skip += page.received
            count = self._api.count(self._question, page)
            if first is None:  # one that only counts the page is no count
                first = count if count is not None and count > page.received else -1
            self._total = count
            self._allow(page)
            yield self._take(page)
            steady = count == first and skip > page.received
            self._agrees = steady and distinct and count == len(mine)
            if not page.received:
                self._skips = True
                return distinct and not self._api.remaining(query, page)
            if steady and self._api.counts_matches is True and skip >= first:
                return distinct
            if not self._api.fills(page) and self._api.remaining(query, page) == 0:
                return distinct
            if repeats >= 2:
                self._skips = False
                return False

    # Narrowing ------------------------------------------------------------------------------------

    def _narrow(
        self, question: Query, depth: int, page: Page | None = None
    ) -> Generator[Found, None, bool]:
        """Reads a question part by part; whether each part was answered by less than a page."""
        if page is None:
            page = self._ask(question)
            yield self._take(page)
        if depth == 0:
            self._total = self._api.count(question, page)
            self._allow(page)
        if not self._api.fills(page) and not self._api.remaining(question, page):
            return True
        if depth < _DEPTH:
            middle = self._middle(question)
            if middle is not None:
                left = yield from self._narrow(replace(question, before=middle + 1), depth + 1)
                right = yield from self._narrow(replace(question, after=middle), depth + 1)
                return left and right
            for condition in self._conditions(question):
                parts = self._halves(question, condition)
                if parts is None:
                    self._useless.add(condition[0])
                    continue
                whole = True
                for part, answer in parts:
                    yield self._take(answer)
                    complete = yield from self._narrow(part, depth + 1, answer)
                    whole = whole and complete
                return whole
        return (yield from self._leaf(question, page))

    def _leaf(self, question: Query, page: Page) -> Generator[Found, None, bool]:
        """A full page that no filter makes smaller: is there anything after it?"""
        backwards = self._ask(replace(question, ascending=not question.ascending))
        yield self._take(backwards)
        after = self._ask(replace(question, skip=page.received))
        yield self._take(after)
        return not after.received and not self._api.remaining(question, page)

    def _middle(self, question: Query) -> int | None:
        """A createdAt that halves the question, where it holds more than one."""
        after, before = question.after, question.before
        if after is None or before is None or before - after <= 2:
            return None
        return (after + before) // 2

    def _conditions(self, question: Query) -> list[Condition]:
        """Filters that halve what was seen of this question, the most even first; one a column."""
        sample = [
            columns
            for columns in self._seen.values()
            if columns and all(_meets(columns, condition) for condition in question.also)
        ][-_SAMPLE:]
        scored: list[tuple[int, Condition]] = []
        for column in ("message", "userId", "forgeWorkflowId", "workflowVersion"):
            values = Counter(c[column] for c in sample if c.get(column))
            for value, number in values.items():
                scored.append((min(number, len(sample) - number), (column, "equals", value)))
        parts = Counter(part for c in sample for part in _parts(c.get("data.executionId", "")))
        for part, number in parts.items():
            even = min(number, len(sample) - number)
            scored.append((even, ("data.executionId", "contains", part)))
        best: dict[str, tuple[int, Condition]] = {}
        for even, condition in scored:
            column = condition[0]
            if column not in self._useless and even > best.get(column, (0, condition))[0]:
                best[column] = even, condition
        return [condition for _, condition in sorted(best.values(), reverse=True)]

    def _halves(self, question: Query, condition: Condition) -> list[tuple[Query, Page]] | None:
        """Both halves of a question with their first answers; None where the API does not keep to
        the filter."""
        column, operator, value = condition
        parts = []
        for word in (operator, _OPPOSITE[operator]):
            one = (column, word, value)
            part = replace(question, also=(*question.also, one))
            self._spend()
            tried = self._attempt(part)
            if tried is None:
                return None
            page = self._checked(tried)
            expected = any(
                columns and all(_meets(columns, c) for c in part.also)
                for columns in self._seen.values()
            )
            kept = all(_meets(_columns(r), one) for r in page.records)
            if not kept or (expected and not page.received):
                return None
            parts.append((part, page))
        return parts


def _columns(record: Record) -> dict[str, str]:
    """What of a record can be filtered by, as text; "" where there is nothing."""
    n = record.notification
    version = "" if n.workflowVersion is None else str(n.workflowVersion)
    return {
        "message": n.message or "",
        "userId": n.userId or "",
        "forgeWorkflowId": n.forgeWorkflowId or "",
        "workflowVersion": version,
        "data.executionId": (n.data.executionId or "") if n.data else "",
    }


def _meets(columns: dict[str, str], condition: Condition) -> bool:
    column, operator, value = condition
    found = columns[column]
    match operator:
        case "equals":
            return found == value
        case "notequals":
            return found != value
        case "contains":
            return value in found
    return value not in found


def _parts(text: str) -> dict[str, None]:
    """The characters of an id and its pairs of characters, each once and in their order, so that
    the same records are always narrowed in the same way."""
    return dict.fromkeys([*text, *(text[at : at + 2] for at in range(len(text) - 1))])
