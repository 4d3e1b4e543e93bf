"""Whether a transaction was written, where the answer to its COMMIT was lost.

Every transaction first numbers itself in a row of the table `writer` that no other transaction
writes at the same time: its row lock is held until the transaction has ended, wherever its COMMIT
may still be under way. Who asks waits for that lock, and then reads which number was written. So
the answer is exact whatever happened to the connection, the pooler or the server, also where a
standby took over that never got the transaction. Nothing here knows how to connect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

_KEPT = 50
"""Results of calls that failed and were written after all, until they are made again."""


@dataclass(slots=True)
class Slot:
    """A row of `writer`, and the number of the latest transaction in it."""

    name: str
    number: int = 0


@dataclass(slots=True)
class Doubt:
    """A transaction whose end is not known. `result`: what it gives where it was written; `call`:
    see `Database.transact`."""

    slot: Slot
    number: int
    result: Any
    call: object
    written: bool | None = None


class Outcomes:
    """`writer`: tells the slots of this process from all others; `ask` says which number is in the
    row of a slot, and waits until no transaction holds that. It raises what connections raise."""

    def __init__(self, writer: str, ask: Callable[[Slot], int]) -> None:
        self._writer = writer
        self._ask = ask
        self._lock = Lock()
        self._asking = Lock()
        self._free: list[Slot] = []
        self._made = 0
        self._doubts: list[Doubt] = []
        self._late: list[Doubt] = []

    def take(self) -> Slot:
        """A slot that nobody uses, with its next number."""
        with self._lock:
            if self._free:
                slot = self._free.pop()
            else:
                self._made += 1
                slot = Slot(f"{self._writer}.{self._made}")
        slot.number += 1
        return slot

    def give(self, slot: Slot) -> None:
        """The transaction in it has ended, one way or the other."""
        with self._lock:
            self._free.append(slot)

    def doubt(self, slot: Slot, result: object, call: object) -> Doubt:
        """The end of the transaction in a slot is not known; `clear` finds it out."""
        found = Doubt(slot, slot.number, result, call)
        with self._lock:
            self._doubts.append(found)
        return found

    def clear(self) -> None:
        """Finds out about all that is in doubt. Raises what `ask` raises; then it still is."""
        if not self._doubts:
            return
        with self._asking:
            for one in list(self._doubts):
                one.written = self._ask(one.slot) >= one.number
                with self._lock:
                    self._doubts.remove(one)
                    self._free.append(one.slot)
                    if one.written:
                        self._late = [*self._late[1 - _KEPT :], one]

    def earlier(self, call: object) -> Doubt | None:
        """What an earlier, failed, equal call has written after all; once."""
        if not self._late:
            return None
        with self._lock:
            for one in self._late:
                same = one.call is call
                if same or (isinstance(call, tuple) and one.call == call):
                    self._late.remove(one)
                    return one
        return None
