"""Keeps leases: takes this replica's share of the work, renews it, and gives back what is too much.

One thread looks every third of a lease time: it says that this replica is there, renews, sees what
all hold, and does what `spread.py` decides. What is taken begins at once. What is to be given back
is given when it rests, never in the middle of a batch; what is lost stops before its next request
by itself (`Tenures.holds`). A unit is not taken again before its worker has ended, so no worker
ever writes under the epoch of another. What works at a unit is not known here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from queue import Empty, SimpleQueue
from threading import Event, Lock
from typing import Protocol

from otel_alloy.checkpoint.leases import Board, Leases, Presence, Taken
from otel_alloy.checkpoint.tenures import Tenures
from otel_alloy.errors import AlloyReceiverError
from otel_alloy.log_throttle import LogThrottle
from otel_alloy.pipeline.events import (
    Holding,
    LeasesFailed,
    LeasesLooked,
    LeaseTaken,
    Observe,
)
from otel_alloy.pipeline.spread import moves, rest_seconds
from otel_alloy.runtime import Runtime, Task

log = logging.getLogger("otel_alloy")

_OVERDUE_LEASES = 2


class Work(Protocol):
    """What is done with units. No method waits."""

    def begin(self, unit: str) -> None:
        """Its lease was taken: work may begin."""
        ...

    def rests(self, unit: str) -> bool:
        """Ends the work, if nothing is under way; whether it has ended. Else whoever works at it
        asks `Keeper.wanted` when it rests, and tells `Keeper.ended`."""
        ...

    def settled(self) -> Mapping[str, int]:
        """Up to when (Unix ms) units are settled, as far as is known."""
        ...


class Keeper:
    """`units`: all that there is to do, as far as this replica knows; asked at every look.
    `looked`: is called after each."""

    def __init__(
        self,
        leases: Leases,
        tenures: Tenures,
        present: Presence,
        units: Callable[[], Collection[str]],
        work: Work,
        seconds: float,
        runtime: Runtime,
        observe: Observe,
        looked: Callable[[], None],
    ) -> None:
        self._looked = looked
        self._leases = leases
        self._tenures = tenures
        self._me = tenures.owner
        self._present = present
        self._units = units
        self._work = work
        self._seconds = seconds
        self._again = seconds / 15
        self._runtime = runtime
        self._observe = observe
        self._throttle = LogThrottle(runtime.monotonic)
        self._lock = Lock()
        self._working: set[str] = set()
        self._refused: set[str] = set()
        self._give: frozenset[str] = frozenset()
        self._free: dict[str, int] = {}  # given back here, not yet in the database
        self._declared: frozenset[str] = frozenset()
        self._elsewhere: frozenset[str] = frozenset()
        self._all_ended = False
        self._draining = False
        self._ending = Event()
        self._told = False
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._task: Task | None = None

    # What others may call, from any thread --------------------------------------------------------

    def start(self) -> None:
        """Begins, in a thread of its own."""
        self._task = self._runtime.spawn(self.run, "otel-alloy-leases")

    def wanted(self, unit: str) -> bool:
        """Whether a unit is to be given back as soon as it rests, or is lost already."""
        with self._lock:
            return unit in self._give or self._draining or not self._tenures.holds(unit)

    def elsewhere(self, unit: str) -> bool:
        """Whether another replica held the lease of a unit when they were looked at last."""
        return unit in self._elsewhere

    def ended(self, unit: str, *, refused: bool = False) -> None:
        """Nobody works at a unit any more. `refused`: nor will this process again."""
        with self._lock:
            if refused:
                self._refused.add(unit)
            epoch = self._tenures.end(unit)
            if epoch is not None:
                self._free[unit] = epoch
            self._working.discard(unit)
        self._wake.put(None)

    def drain(self) -> None:
        """Takes nothing more, and gives back what rests, at once. Also from a signal handler."""
        self._draining = True
        self._wake.put(None)

    def working(self) -> frozenset[str]:
        """What somebody works at here."""
        with self._lock:
            return frozenset(self._working)

    def left(self, *, others: bool) -> frozenset[str]:
        """Which units this process may still have to work at; `others`: also those that others
        work at."""
        with self._lock:
            left = frozenset(self._units()) - self._refused
            return left if others else left - self._elsewhere

    def stop(self, seconds: float, *, all_ended: bool) -> None:
        """Gives back all that nobody works at any more, which is everything where `all_ended`, and
        takes part no longer; in so many seconds, or others wait until it has expired."""
        self._draining = True
        self._ending.set()
        self._all_ended = all_ended
        self._wake.put(None)
        if self._task is not None:
            self._task.join(seconds)

    # The thread that keeps ------------------------------------------------------------------------

    def run(self) -> None:
        """Until the end is asked for."""
        rest = 0.0
        while not self._ending.is_set():
            look_at = self._runtime.monotonic() + rest
            while not self._ending.is_set() and (left := look_at - self._runtime.monotonic()) > 0:
                try:
                    self._wake.get(timeout=left)
                except Empty:
                    break
                if self._draining and not self._told:
                    break  # a look tells it
                self._quietly(self._give_back)
            if not self._ending.is_set():
                rest = self.step()
        self._quietly(self._leave)

    def step(self) -> float:
        """One look; for how many seconds to rest."""
        board: list[Board] = []
        if not self._quietly(lambda: board.append(self._look())):
            return self._again
        self._throttle.forget("leases")
        self._looked()
        others = [
            lease.left for lease in board[0].leases if lease.valid and lease.owner != self._me
        ]
        return rest_seconds(self._seconds, others, self._runtime.random())

    def _quietly(self, act: Callable[[], object]) -> bool:
        """Whether the database answered. As long as it does not, leases run out by themselves."""
        try:
            act()
        except AlloyReceiverError as error:
            again = self._throttle.admit("leases")
            if again is not None:
                log.warning("leases cannot be kept: %s%s", error, again)
            self._observe(LeasesFailed(str(error), self._again))
            return False
        return True

    def _look(self) -> Board:
        units = frozenset(self._units())
        if not units <= self._declared:
            self._leases.declare(units)
            self._declared = units
        if self._draining and not self._told:
            self._leases.absent(self._me)
            self._told = True
        present = None if self._draining else self._present
        asked = self._runtime.monotonic()
        self._renewed(self._leases.renew(self._me, self._work.settled(), present), asked)
        self._give_back()
        board = self._leases.board()
        self._share(units, board)
        self._give_back()
        self._tell(units, board)
        return board

    def _renewed(self, epochs: dict[str, int], asked: float) -> None:
        with self._lock:
            for unit in self._tenures.units():
                if not self._tenures.renewed(unit, epochs.get(unit), asked):
                    log.warning("the lease on %s is lost: another replica works at it", unit)
            # What nobody works at here: the answer was lost when it was taken, or given back.
            for unit in epochs.keys() - self._working - self._free.keys():
                self._free[unit] = epochs[unit]

    def _share(self, units: frozenset[str], board: Board) -> None:
        """Gives and takes. What is taken begins."""
        me, seconds = self._me, self._seconds
        with self._lock:
            refused, working = set(self._refused), set(self._working)
        owners = {
            lease.unit: lease.owner
            for lease in board.leases
            if lease.owner is not None and lease.valid
        }
        self._elsewhere = frozenset(unit for unit, owner in owners.items() if owner != me)
        live = [one.name for one in board.replicas if one.alive]
        overdue = {lease.unit for lease in board.leases if lease.left < -_OVERDUE_LEASES * seconds}
        plan = moves(me, sorted(units), owners, live, overdue)
        give = frozenset(self._tenures.units()) if self._draining else plan.give
        held = frozenset(self._tenures.units())
        gone = (held - units) | (working - held)  # not there any more, or lost
        self._give = give | gone
        for unit in self._give:
            if self._work.rests(unit):
                self.ended(unit)
        if self._draining:
            return
        for free, most in plan.take.values():
            wanted = [unit for unit in free if unit not in refused and unit not in working]
            if wanted and most > 0:
                asked = self._runtime.monotonic()
                for taken in self._leases.claim(me, wanted, most):
                    self._begin(taken, asked)

    def _begin(self, taken: Taken, asked: float) -> None:
        with self._lock:
            self._working.add(taken.unit)
            self._tenures.begin(taken.unit, taken.epoch, asked)
        self._observe(LeaseTaken(taken.unit, taken.epoch, taken.after is not None))
        after = "" if taken.after is None else f", which {taken.after} did not renew"
        log.info("works at %s%s", taken.unit, after)
        self._work.begin(taken.unit)

    def _give_back(self) -> None:
        with self._lock:
            free = dict(self._free)
        if free:
            self._leases.release(self._me, free)
            with self._lock:
                for unit in free:
                    if self._free.get(unit) == free[unit]:
                        del self._free[unit]
            for unit in free:
                log.info("works at %s no more", unit)

    def _leave(self) -> None:
        """What somebody works at still expires by itself."""
        if self._all_ended:
            self._leases.leave(self._me)
        else:
            self._leases.absent(self._me)
            self._give_back()

    def _tell(self, units: frozenset[str], board: Board) -> None:
        holds = [
            Holding(one.unit, one.owner, one.epoch, one.left)
            for one in board.leases
            if one.unit in units and one.owner is not None and one.valid
        ]
        owned = {one.unit for one in holds}
        with self._lock:
            mine = frozenset(self._working)
        self._observe(
            LeasesLooked(self._me, mine, tuple(holds), tuple(sorted(units - owned - mine)))
        )
