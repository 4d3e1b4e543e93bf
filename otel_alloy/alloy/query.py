"""What to ask of `GET /logs`: a window on createdAt becomes query parameters. Pure.

Most of a query string never changes, and percent-encoding it costs more than all else about it: so
each filter is encoded once, around the place of its value.

The filter grammar is the vendor's: columns, operators, userinput, condition. There is no >= and
no <=, so a closed lower bound asks for one millisecond earlier.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import cache
from urllib.parse import quote

from otel_alloy.alloy.timestamps import to_text

_PLAIN = re.compile(r"[\w.~:-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Query:
    """One request. Times are Unix ms and exclusive, as the vendor's operators are; None leaves
    the filter out. `also`: further filters, each a column, an operator and a value."""

    limit: int
    skip: int = 0
    ascending: bool = True
    after: int | None = None
    before: int | None = None
    execution_id: str | None = None
    workflow_id: str | None = None
    user_id: str | None = None
    also: tuple[tuple[str, str, str], ...] = ()

    @property
    def filtered(self) -> bool:
        """Whether it has filters of its own, besides workflow and user."""
        bounds = (self.after, self.before, self.execution_id)
        return bool(self.also) or any(bound is not None for bound in bounds)

    def limited(self, limit: int) -> Query:
        """The same with another page size."""
        return replace(self, limit=limit)

    def encoded(self) -> bytes:
        """The query string with its question mark, as it is sent."""
        order = "asc" if self.ascending else "desc"
        text = f"?skip={self.skip}&limit={self.limit}&sortBy=createdAt&sortOrder={order}"
        filters = []
        for column, operator, value in self._filters():
            before, after = _around(column, operator)
            filters.append(before + _inside(value) + after)
        if filters:
            text += f"&filters=%5B{'%2C'.join(filters)}%5D"
        if self.workflow_id:
            text += f"&workflowId={quote(self.workflow_id, safe='')}"
        if self.user_id:
            text += f"&associatedUserId={quote(self.user_id, safe='')}"
        return text.encode("ascii")

    def parameters(self) -> dict[str, str]:
        """The names and values of the query string."""
        filters = [_filter(*one) for one in self._filters()]
        parameters = {
            "skip": str(self.skip),
            "limit": str(self.limit),
            "sortBy": "createdAt",
            "sortOrder": "asc" if self.ascending else "desc",
        }
        if filters:
            parameters["filters"] = json.dumps(filters, separators=(",", ":"))
        if self.workflow_id:
            parameters["workflowId"] = self.workflow_id
        if self.user_id:
            parameters["associatedUserId"] = self.user_id
        return parameters

    def _filters(self) -> list[tuple[str, str, str]]:
        filters = []
        if self.after is not None:
            filters.append(("createdAt", "greaterthan", to_text(self.after)))
        if self.before is not None:
            filters.append(("createdAt", "lessthan", to_text(self.before)))
        if self.execution_id is not None:
            filters.append(("data.executionId", "equals", self.execution_id))
        return [*filters, *self.also]


def _inside(value: str) -> str:
    """A text as it stands within a filter, encoded. Moments need only their colons changed."""
    if _PLAIN.fullmatch(value):
        return value.replace(":", "%3A")
    return quote(json.dumps(value)[1:-1], safe="")


@cache
def _around(column: str, operator: str) -> tuple[str, str]:
    """A filter, encoded, before and after its value. There are a handful of them."""
    text = json.dumps(_filter(column, operator, "|"), separators=(",", ":"))
    before, after = text.split("|")
    return quote(before, safe=""), quote(after, safe="")


def _filter(column: str, operator: str, value: str) -> dict[str, dict[str, str]]:
    return {
        "columns": {"value": column},
        "operators": {"value": operator},
        "userinput": {"value": value},
        "condition": {"value": "and"},
    }
