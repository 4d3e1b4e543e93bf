"""What the store keeps of a report of Alloy's error webhook, and under which key: the one form that
the listener writes (`webhook/reception.py`) and the enricher reads (`enrich.py`).

The key is the execution's uuid, the vendor's own join. A report without one goes by its
executionId, which Alloy uses for the uuid in one place and for an id of its own in another: the
enricher asks for both. Both are unique, so neither is a guess. The message is kept as `privacy`
wants it, never as it came.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from otel_alloy.alloy.steps import Block, app_of

_LONGEST = 4096
"""Characters of one text; a longer one in the store is none of ours."""


def key_of(uuid: str | None, execution: str | None) -> str:
    """Under what a report is kept; one of the two is there."""
    return uuid or execution or ""


def keys_of(uuid: str, execution: str) -> tuple[str, str]:
    """Under what the report of an execution may be kept, the surer one last."""
    return execution, uuid


@dataclass(frozen=True, slots=True)
class KeptReport:
    """`message`: as it may be shown. The rest is of the block that failed. What Alloy did not tell
    is None."""

    message: str | None = None
    block_id: str | None = None
    block_name: str | None = None
    block_type: str | None = None

    def text(self) -> str:
        """As the store keeps it."""
        # Escaped, because no store takes a lone surrogate.
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def read(cls, text: str) -> KeptReport | None:
        """From what `text` wrote; None for anything else."""
        try:
            found = cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError):
            return None
        told: list[object] = list(asdict(found).values())
        sound = all(t is None or (isinstance(t, str) and len(t) <= _LONGEST) for t in told)
        return found if sound else None

    def block(self) -> Block | None:
        """The block that failed; None where the report names none."""
        if self.block_id is None and self.block_type is None:
            return None
        return Block(0, self.block_id, self.block_type, app_of(self.block_type))
