"""What is known of an execution beyond its notification: its blocks, and why it failed. A value.

It is put together once (`pipeline/enrich.py`), kept with the execution until that is settled, and
read again from what `text` wrote: so a repeat has the same bytes. No payload has a place here, and
a reason is in it as it may be shown. What is made of it is in `enriched.py`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from types import NoneType
from typing import Any, TypeVar


@dataclass(frozen=True, slots=True)
class Step:
    """One block of an execution, as it ran. `index`: its place among them, from 0. `started`,
    `stopped`: Unix ns. `app`: what it calls, None where it calls none. `failed`: whether the
    execution failed at it."""

    index: int
    id: str | None = None
    name: str | None = None
    type: str | None = None
    app: str | None = None
    started: int | None = None
    stopped: int | None = None
    status_code: int | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an execution failed. `source`: where that is known from, `webhook` or `errors`.
    `message` is as the privacy settings want it, None where they drop it; `type`: the kind of the
    error, where Alloy tells one."""

    source: str
    message: str | None = None
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Enrichment:
    """`steps`: in Alloy's order, empty where they could not be had. `block`: the one at which the
    execution failed, which is among the steps where there are any."""

    steps: tuple[Step, ...] = ()
    block: Step | None = None
    reason: Reason | None = None

    def text(self) -> str:
        """As the store keeps it."""
        # Escaped, because no store takes a lone surrogate, which a name may hold.
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def read(cls, text: str) -> Enrichment:
        """From what `text` wrote; of anything else, nothing is known."""
        try:
            value = json.loads(text)
            return cls(
                tuple(_made(Step, step) for step in value["steps"]),
                None if value["block"] is None else _made(Step, value["block"]),
                None if value["reason"] is None else _made(Reason, value["reason"]),
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            return cls()


T = TypeVar("T", Step, Reason)

_KINDS = {
    "bool": (bool,),
    "int": (int,),
    "str": (str,),
    "int | None": (int, NoneType),
    "str | None": (str, NoneType),
}
"""Of the fields, as they are annotated."""


def _made(kind: type[T], value: Any) -> T:
    """`kind` of a mapping of its fields. Raises TypeError where it is none."""
    made = kind(**value)
    for field in fields(kind):
        if type(getattr(made, field.name)) not in _KINDS[str(field.type)]:
            raise TypeError(field.name)
    return made
