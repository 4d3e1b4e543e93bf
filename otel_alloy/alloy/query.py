"""What to ask of `GET /logs`: a window on createdAt becomes query parameters. Pure.

The filter grammar is the vendor's: columns, operators, userinput, condition. There is no >= and
no <=, so a closed lower bound asks for one millisecond earlier.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from otel_alloy.alloy.timestamps import to_text


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

    def parameters(self) -> dict[str, str]:
        """The query string's names and values."""
        filters = []
        if self.after is not None:
            filters.append(_filter("createdAt", "greaterthan", to_text(self.after)))
        if self.before is not None:
            filters.append(_filter("createdAt", "lessthan", to_text(self.before)))
        if self.execution_id is not None:
            filters.append(_filter("data.executionId", "equals", self.execution_id))
        filters += [_filter(*one) for one in self.also]
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


def _filter(column: str, operator: str, value: str) -> dict[str, dict[str, str]]:
    return {
        "columns": {"value": column},
        "operators": {"value": operator},
        "userinput": {"value": value},
        "condition": {"value": "and"},
    }
