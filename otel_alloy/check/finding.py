"""One line of `check`: what was tried, what came back, what to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

NOTHING_TO_DO = "nothing to do"


@dataclass(frozen=True, slots=True)
class Finding:
    """`part`: of what; `tried`; `answer`: what came back; `remedy`: what to do, empty for nothing.

    `ok` is None for what is only worth knowing. `facts`: the same for programs. `exit_code` counts
    where `ok` is False.
    """

    part: str
    tried: str
    ok: bool | None
    answer: str
    remedy: str = ""
    exit_code: int = 1
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, part: str, tried: str, ok: bool | None, answer: str, remedy: str = "", **facts: Any
    ) -> Finding:
        """The same, with the facts as keywords."""
        return cls(part, tried, ok, answer, remedy, facts=facts)

    @property
    def mark(self) -> str:
        """The verdict in a word."""
        return {True: "ok", False: "FAIL", None: "note"}[self.ok]

    def line(self) -> str:
        """The finding on one line."""
        tried = f" ({self.tried})" if self.tried else ""
        remedy = f" -> {self.remedy}" if self.remedy else ""
        return f"{self.mark:<5} {self.part}: {self.answer}{tried}{remedy}"
