"""The address of Alloy's own page of an execution, from a pattern that the user sets.

What executions of one workflow and user have in common is filled in once; each one then adds its
own id. Ids only: personal data is no field, as addresses end up in the logs of proxies. Where a
field is missing there is no address: half of one leads astray.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from otel_alloy.links import UrlPattern
from otel_alloy.mapping import semconv

COMMON_FIELDS = {
    "workflow.id": semconv.WORKFLOW_ID,
    "workflow.installation.id": semconv.WORKFLOW_INSTALLATION_ID,
    "integration.id": semconv.INTEGRATION_ID,
    "user.id": semconv.USER_ID,
    "team.id": semconv.TEAM_ID,
}
"""What executions have in common, and the attribute that each is."""
OWN_FIELDS = ("execution.id", "execution.uuid")


@dataclass(frozen=True, slots=True)
class ExecutionUrl:
    """The pattern, as far as it is filled in."""

    pattern: UrlPattern

    @classmethod
    def parse(cls, text: str) -> ExecutionUrl:
        """A pattern such as `https://alloy.example.com/{workflow.id}/{execution.id}`. Raises
        ValueError."""
        pattern = UrlPattern.parse(text, fields=(*OWN_FIELDS, *COMMON_FIELDS), required=())
        if not pattern.has(OWN_FIELDS):
            raise ValueError(
                "{execution.id} or {execution.uuid} is missing; write it where the value belongs"
            )
        return cls(pattern)

    def common(self, attributes: Mapping[str, Any]) -> ExecutionUrl | None:
        """With what executions with these attributes have in common; None where some is missing."""
        values = {field: str(attributes.get(key, "")) for field, key in COMMON_FIELDS.items()}
        pattern = self.pattern.partly(values)
        return None if pattern is None else ExecutionUrl(pattern)

    def of(self, execution_id: str, uuid: str) -> str:
        """The address, of what `common` made; "" where an id is missing."""
        return self.pattern.fill({"execution.id": execution_id, "execution.uuid": uuid}) or ""
