"""Which of many matches an execution fits, without trying each: of each match one field that names
exact values is looked up, and only what that brings is held against the execution as a whole.

Where a match names several such fields, the one counts that the fewest other matches share: of
`team.id` and `user.id`, which thousands of matches have, mostly the latter. A match without any is
tried each time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from otel_alloy.routing.match import Condition, Match
from otel_alloy.routing.subject import FIELDS, Subject


class Index:
    """`matches`: by name; what is found has their order."""

    def __init__(self, matches: Mapping[str, Match]) -> None:
        self._names = tuple(matches)
        self._matches = tuple(matches.values())
        shared = Counter(
            (one.field, value)
            for match in self._matches
            for one in _exact(match)
            for value in one.exact
        )

        def crowd(one: Condition) -> int:
            return sum(shared[one.field, value] for value in one.exact)

        found: dict[str, dict[str | None, list[int]]] = {}
        tried = []
        for at, match in enumerate(self._matches):
            chosen = min(_exact(match), key=crowd, default=None)
            if chosen is None:
                tried.append(at)
                continue
            values = found.setdefault(chosen.field, {})
            for value in chosen.exact:
                values.setdefault(value, []).append(at)
        self._tried = tuple(tried)
        self._looked_up = tuple((FIELDS[name], values) for name, values in found.items())

    def find(self, subject: Subject) -> list[str]:
        """The names of the matches that the execution fits."""
        matches = self._matches
        fits = [at for at in self._tried if matches[at](subject)]
        for ask, values in self._looked_up:
            for at in values.get(ask(subject), ()):
                if matches[at](subject):
                    fits.append(at)
        if len(fits) > 1:
            fits.sort()
        return [self._names[at] for at in fits]


def _exact(match: Match) -> list[Condition]:
    return [one for one in match.conditions if not one.others]
