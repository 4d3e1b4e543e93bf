"""What one POST of Alloy's error webhook says, as a value, its message as `privacy` wants it.

The body is the vendor's `_id, workflowId, executionId, blockId, blockType, error, createdAt`; the
headers `X-Alloy-*` name the execution. Nothing else of either is built or kept. No socket here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from otel_alloy.alloy.models import Unreadable
from otel_alloy.alloy.steps import LONGEST_ID, read_posted_error
from otel_alloy.privacy import MessageChoice, masked


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """One error of one execution, as Alloy reports it. `uuid`: the executionUuid of its
    notification, the exact join. `workflow`: the user's installed copy. `block`: the id of the
    block that failed. `message`: one line, masked. `at`: Unix ns. `id`: Alloy's own id of the
    error, the same when it is posted again. What a POST does not have is None."""

    uuid: str | None
    execution: str | None
    workflow: str | None
    user: str | None
    block: str | None
    block_name: str | None
    type: str | None
    message: str | None
    at: int | None
    id: str | None


def read_report(headers: Mapping[str, str], body: bytes, choice: MessageChoice) -> ErrorReport:
    """The report of a POST. `headers`: by names of any case, their values read as Latin-1, as
    servers do. Raises Unreadable where it is no JSON, or names no execution."""

    def header(name: str) -> str | None:
        raw = headers.get(f"X-Alloy-{name}", "").strip()
        value = raw.encode("latin-1", "replace").decode("utf-8", "replace")
        return value if 0 < len(value) <= LONGEST_ID else None

    error = read_posted_error(body)
    report = ErrorReport(
        uuid=header("ExecutionUuid"),
        execution=error.execution,
        workflow=header("WorkflowId") or error.workflow,
        user=header("UserId") or error.user,
        block=error.block,
        block_name=header("BlockName"),
        type=header("BlockType") or error.type,
        message=masked(error.message, choice),
        at=error.at,
        id=error.id,
    )
    if report.uuid is None and report.execution is None:
        raise Unreadable("it names no execution, in no header and not in its body")
    return report
