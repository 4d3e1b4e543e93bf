"""Whose turn it is: thousands of destinations, a few dozen threads, and nobody waits for anybody.

One thread decides; turns are taken in a `Crew`. Who has something to be sent has a turn, then goes
to the end of the line, so a million executions of one destination do not delay one of another. A
destination whose last request took more than a second is slow: slow ones have threads of their own.
A turn that takes longer than that does not count any more among the quick ones either, so a hundred
endpoints that hang at once hold up the others for a second, not for their timeouts.

What is acknowledged is taken from the outbox together for all turns that have ended meanwhile; a
destination has no next turn before that. So a crash repeats at most what each was being sent.

Where replicas share the destinations, each delivers only to those that are its own (`Tenant`), and
lets go of one when nothing of it is under way.

Now and then the dispatcher looks after the rest: what there is no room for is exchanged for a note
(`checkpoint/outbox.py`), and read again when its destination is well (`recall.py`); connections are
given back; the settings are looked at for changes.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import count
from queue import Empty, SimpleQueue
from typing import Protocol

from otel_alloy.checkpoint.database import destination_unit
from otel_alloy.checkpoint.outbox import Backlog, Outbox, Sent
from otel_alloy.destinations.catalogue import Catalogue
from otel_alloy.destinations.courier import Courier, Turned
from otel_alloy.destinations.crew import Crew
from otel_alloy.destinations.events import (
    DestinationSettled,
    DestinationsLooked,
    DestinationSpilled,
)
from otel_alloy.destinations.recall import Recalls
from otel_alloy.destinations.room import Room, rooms
from otel_alloy.errors import (
    CheckpointError,
    CheckpointUnwritable,
    LeaseLost,
    ShutdownRequested,
)
from otel_alloy.runtime import Runtime, Task

log = logging.getLogger("otel_alloy")

_QUICK_SECONDS = 1.0
_QUICK, _SLOW = 8, 16
_LOOK_SECONDS = 2.0
_AGAIN_SECONDS = 2.0
_DEFECT_SECONDS = 60.0
_CHUNK_BYTES = 96 * 1024  # as they are stored, some 600 kB
_CHUNK, _CHUNK_AT_FIRST = 500, 20
_HELD_BYTES = 64 * 2**20
_CONNECTIONS = 200
_CONNECTED_SECONDS = 60.0
_KEPT_SECONDS = 600.0
_TOLD = 10
_UNSETTLED = (CheckpointError, CheckpointUnwritable)


class Tenant(Protocol):
    """Which destinations are this process's own, where replicas share them. Answers at once."""

    def working(self) -> Collection[str]:
        """Those that it has taken and not let go of."""
        ...

    def delivers(self, destination: str) -> bool:
        """Whether a request to it may be begun now."""
        ...

    def wanted(self, destination: str) -> bool:
        """Whether to let go of it, or it is lost already."""
        ...

    def left_alone(self, destination: str) -> None:
        """Nothing of it is under way any more."""
        ...


@dataclass(slots=True)
class _Place:
    """One destination in the line. `waiting`: executions that lie in its outbox, as far as is
    known; `arrived`: those of them that came during its turn. `begun`: since when it has its turn
    (monotonic), None where it has none; `lined_up`: whether its next one is fixed; `settling`:
    whether what it delivered is still in the outbox, so that it must not have one. `chunk`: how
    many executions it takes at once; `held`: bytes of those that it has taken."""

    courier: Courier
    per_minute: int
    used: float
    waiting: int = 0
    arrived: int = 0
    begun: float | None = None
    lined_up: bool = False
    settling: bool = False
    slow: bool = False
    chunk: int = _CHUNK_AT_FIRST
    held: int = 0
    told: str | None = None


class Dispatcher:
    """`open_courier`: makes one for a destination, by name. `crew`: takes the turns. `recalls`:
    None where nothing is read again, as Alloy is not read at all. `tenant`: None where all
    destinations are its own."""

    def __init__(
        self,
        catalogue: Catalogue,
        outbox: Outbox,
        open_courier: Callable[[str], Courier],
        room: Room,
        recalls: Recalls | None,
        crew: Crew,
        runtime: Runtime,
        observe: Callable[[object], None],
        tenant: Tenant | None = None,
    ) -> None:
        self._tenant = tenant
        self._catalogue = catalogue
        self._outbox = outbox
        self._open = open_courier
        self._room = room
        self._recalls = recalls
        self._runtime = runtime
        self._observe = observe
        self._crew = crew
        self._mail: SimpleQueue[Mapping[str, int] | tuple[str, Turned | Exception] | None] = (
            SimpleQueue()
        )
        self._places: dict[str, _Place] = {}
        self._due: list[tuple[float, int, str]] = []
        self._order = count()
        self._quick: deque[str] = deque()
        self._slow: deque[str] = deque()
        self._busy: dict[str, float] = {}  # since when, the longest first
        self._done: list[tuple[Sent, int]] = []
        self._held = 0
        self._try_again = 0.0
        self._look_at = runtime.monotonic()
        self._backlogs: Mapping[str, Backlog] = {}
        self._paused: frozenset[str] = frozenset()
        self._ending = self._finishing = False
        self._task: Task | None = None

    # What others may call, from any thread --------------------------------------------------------

    def start(self) -> None:
        """Begins, in a thread of its own."""
        self._task = self._runtime.spawn(self.run, "otel-alloy-destinations")

    def arrived(self, executions: Mapping[str, int]) -> None:
        """So many executions lie in the outbox since now, by destination."""
        self._mail.put(executions)

    def finish(self) -> None:
        """Asks for the end as soon as all is delivered to whoever takes it."""
        self._finishing = True
        self._mail.put(None)

    def stop(self) -> None:
        """Asks for the end: what is in flight is settled."""
        self._ending = True
        self._mail.put(None)

    def join(self, seconds: float) -> bool:
        """Waits for the end; whether it came in time."""
        if self._task is None:
            return True
        self._task.join(seconds)
        return not self._task.is_alive()

    # The thread that decides ----------------------------------------------------------------------

    def run(self) -> None:
        """Until the end is asked for, and no turn goes on."""
        while (seconds := self.step()) is not None:
            with suppress(Empty):
                self._take(self._mail.get(timeout=seconds))
        self.close()
        if self._tenant is not None:
            for name in self._tenant.working():
                self._tenant.left_alone(name)

    def close(self) -> None:
        """Closes all connections; no turn may go on."""
        for place in self._places.values():
            place.courier.close()

    def step(self) -> float | None:
        """Does what is due. For how many seconds nothing more is, unless something comes; None
        where all is over."""
        try:
            return self._step()
        except _UNSETTLED as error:
            log.error("destinations: %s", error)
        except LeaseLost:  # in a look, which is made again
            return _AGAIN_SECONDS
        except Exception:
            log.exception("destinations: a defect; going on")
        self._look_at = self._runtime.monotonic() + _AGAIN_SECONDS
        return _AGAIN_SECONDS

    def _step(self) -> float | None:
        with suppress(Empty):
            while True:
                self._take(self._mail.get_nowait())
        self._settle()
        if self._ending or self._runtime.stopping():
            return _LOOK_SECONDS if self._busy else None
        if not self._done and self._runtime.monotonic() >= self._look_at:
            self._look_at = self._runtime.monotonic() + _LOOK_SECONDS
            self._look()
        self._begin_turns()
        if self._finishing and self._is_finished():
            return None
        return self._rest_seconds()

    def _is_finished(self) -> bool:
        if self._busy or self._done:
            return False
        return not any(
            place.waiting and place.courier.failing is None and self._may_send(name)
            for name, place in self._places.items()
        )

    def _rest_seconds(self) -> float:
        now = self._runtime.monotonic()
        moments = [self._look_at]
        if self._due:
            moments.append(self._due[0][0])
        if self._done:
            moments.append(self._try_again)
        if (self._quick or self._slow) and self._busy:
            moments.append(next(iter(self._busy.values())) + _QUICK_SECONDS)
        return max(0.01, min(moments) - now)

    def _take(self, mail: Mapping[str, int] | tuple[str, Turned | Exception] | None) -> None:
        if isinstance(mail, tuple):
            self._turned(*mail)
        elif mail is not None:
            for name, executions in mail.items():
                self._arrived(name, executions)

    # The line -------------------------------------------------------------------------------------

    def _is_own(self, name: str) -> bool:
        tenant = self._tenant
        return tenant is None or (tenant.delivers(name) and not tenant.wanted(name))

    def _may_send(self, name: str) -> bool:
        usable = name in self._catalogue.usable and name not in self._paused
        return usable and self._is_own(name)

    def _place(self, name: str) -> _Place | None:
        place = self._places.get(name)
        if place is None and name in self._catalogue.usable and self._is_own(name):
            courier = self._open(name)
            per_minute = self._catalogue.usable[name].requests_per_minute
            place = _Place(courier, per_minute, self._runtime.monotonic())
            self._places[name] = place
        return place

    def _arrived(self, name: str, executions: int) -> None:
        place = self._place(name)
        if place is None:
            return
        place.waiting += executions
        place.arrived += executions
        self._line_up(name, place, 0.0)

    def _line_up(self, name: str, place: _Place, rest: float) -> None:
        """Fixes its next turn, unless it is fixed, or it has one, or the last one is not settled:
        it would be sent the same again."""
        if place.lined_up or place.settling or place.begun is not None:
            return
        if not self._may_send(name):
            return
        place.lined_up = True
        if rest <= 0:
            (self._slow if place.slow else self._quick).append(name)
        else:
            due = self._runtime.monotonic() + rest
            heappush(self._due, (due, next(self._order), name))

    def _begin_turns(self) -> None:
        now = self._runtime.monotonic()
        while self._due and self._due[0][0] <= now:
            _, _, name = heappop(self._due)
            place = self._places.get(name)
            if place is not None:
                (self._slow if place.slow else self._quick).append(name)
        quick = slow = 0
        for name, begun in self._busy.items():
            if self._places[name].slow:
                slow += 1
            elif now - begun < _QUICK_SECONDS:
                quick += 1
        while self._quick and quick < _QUICK and self._begin(self._quick):
            quick += 1
        while self._slow and slow < _SLOW and self._begin(self._slow):
            slow += 1

    def _begin(self, line: deque[str]) -> bool:
        name = line.popleft()
        place = self._places.get(name)
        if place is None or place.begun is not None or not self._may_send(name):
            if place is not None:
                place.lined_up = False
            return True
        chunk = place.chunk if self._held <= _HELD_BYTES else _CHUNK_AT_FIRST
        place.arrived = 0
        if not self._crew.begin(partial(self._turn, name, place.courier, chunk)):
            line.appendleft(name)
            return False
        place.lined_up = False
        place.begun = place.used = self._busy[name] = self._runtime.monotonic()
        return True

    def _turn(self, name: str, courier: Courier, chunk: int) -> None:
        try:
            came: Turned | Exception = courier.turn(_CHUNK_BYTES, chunk)
        except Exception as error:
            came = error
        self._mail.put((name, came))

    def _turned(self, name: str, came: Turned | Exception) -> None:
        self._busy.pop(name, None)
        place = self._places[name]
        place.begun = None
        self._held += place.courier.bytes - place.held
        place.held = place.courier.bytes
        if isinstance(came, (ShutdownRequested, LeaseLost)):
            self._remove(name, place)  # it is somebody else's, who begins with it anew
            return
        if isinstance(came, Exception):
            self._failed(name, place, came)
            return
        if came.requests:
            place.slow = came.slow >= _QUICK_SECONDS
        pause = came.requests * 60 / place.per_minute if place.per_minute else 0.0
        if came.sent is not None:
            place.chunk = min(2 * place.chunk, _CHUNK)
            place.settling = True
            self._done.append((came.sent, came.age))
        elif came.rest is not None:
            place.chunk = _CHUNK_AT_FIRST
            self._line_up(name, place, max(came.rest, pause))
        else:
            place.waiting = place.arrived  # what else there was is gone: dropped, or spilled
            if place.waiting:
                self._line_up(name, place, pause)

    def _failed(self, name: str, place: _Place, error: Exception) -> None:
        rest = _AGAIN_SECONDS
        if not isinstance(error, _UNSETTLED):
            log.error("destination %s: a defect", name, exc_info=error)
            place.courier.failing = f"a defect ({type(error).__name__})"
            place.courier.close()
            rest = _DEFECT_SECONDS
        self._line_up(name, place, rest)

    def _settle(self) -> None:
        """What was acknowledged leaves the outbox; then whoever has more lines up again. Until
        then nobody looks after the rest: it would be taken for what waits."""
        if not self._done or self._runtime.monotonic() < self._try_again:
            return
        done, now = self._done, self._runtime.now_ms()
        try:
            self._outbox.sent([sent for sent, _ in done], now)
        except _UNSETTLED:
            self._try_again = self._runtime.monotonic() + _AGAIN_SECONDS
            raise
        except LeaseLost as lost:
            self._forget(lost.unit)
            self._settle()
            return
        self._done = []
        for sent, age in done:
            name, executions = sent.destination, sent.executions
            place = self._places[name]
            place.waiting = max(0, place.waiting - executions)
            place.settling = False
            rejected = len(sent.rejected)
            self._observe(DestinationSettled(name, executions, rejected, age / 1000))
            if place.waiting:
                self._line_up(name, place, 60 / place.per_minute if place.per_minute else 0.0)

    def _forget(self, unit: str) -> None:
        """What was sent to a destination that is lost is for its new owner to settle."""
        lost = {s.destination for s, _ in self._done if destination_unit(s.destination) == unit}
        self._done = [one for one in self._done if one[0].destination not in lost]
        for name in lost:
            self._remove(name, self._places[name])

    # The rest -------------------------------------------------------------------------------------

    def _let_go(self, tenant: Tenant) -> None:
        settling = {sent.destination for sent, _ in self._done}
        for name in tenant.working():
            place = self._places.get(name)
            if not tenant.wanted(name) or name in settling:
                continue
            if place is not None and place.begun is not None:
                continue
            if place is not None:
                self._remove(name, place)
            tenant.left_alone(name)

    def _look(self) -> None:
        self._take_changes()
        if self._tenant is not None:
            self._let_go(self._tenant)
        self._backlogs = self._outbox.backlogs()
        self._paused = frozenset(
            name for name, one in self._backlogs.items() if one.paused_at is not None
        )
        self._make_room()
        for name, backlog in self._backlogs.items():
            place = self._place(name) if backlog.executions else self._places.get(name)
            if place is None or place.begun is not None:
                continue
            place.waiting = max(place.waiting, backlog.executions)
            if place.waiting:
                self._line_up(name, place, 0.0)
        failing = {n: p.courier.failing for n, p in self._places.items() if p.courier.failing}
        self._tell(failing)
        self._rest()
        well = [n for n in self._catalogue.usable if n not in failing and self._may_send(n)]
        wanting = any(one.recall for one in self._backlogs.values())
        if self._recalls is not None and wanting and not self._finishing:
            self._recalls.look(well, self._room.max_bytes // 2, self.arrived)
        self._observe(
            DestinationsLooked(
                frozenset(self._catalogue.routes.by_name),
                self._backlogs,
                self._catalogue.disabled,
                failing,
            )
        )

    def _take_changes(self) -> None:
        """Whose settings changed is served by them from its next turn on."""
        for name in self._catalogue.refresh():
            place = self._places.get(name)
            if place is not None and place.begun is None and not place.settling:
                self._remove(name, place)
            elif place is not None:
                self._catalogue.put_off(name)

    def _remove(self, name: str, place: _Place) -> None:
        place.courier.close()
        self._held -= place.held
        del self._places[name]
        for line in (self._quick, self._slow):
            if name in line:
                line.remove(name)
        self._due = [one for one in self._due if one[2] != name]
        self._due.sort()

    def _make_room(self) -> None:
        before = self._runtime.now_ms() - int(self._room.max_age * 1000)
        for name, room in rooms(self._backlogs, self._room, before).items():
            place = self._places.get(name)
            if not self._is_own(name):
                continue
            if place is not None and (place.begun is not None or place.settling):
                continue
            sending: Iterable[int] = () if place is None else place.courier.held
            spilled = self._outbox.spill(name, room, before, frozenset(sending))
            if spilled:
                self._observe(DestinationSpilled(name, spilled))
                if place is not None:
                    place.waiting = max(0, place.waiting - spilled)

    def _tell(self, failing: Mapping[str, str]) -> None:
        """Notes, and says, who fails since the last look and who does not any more."""
        changes: dict[str, str | None] = {}
        begun: list[str] = []
        ended: list[str] = []
        for name, place in self._places.items():
            reason = failing.get(name)
            if (reason is None) != (place.told is None):
                (begun if reason else ended).append(name)
                changes[name] = reason
        if not changes:
            return
        self._outbox.failed(changes, self._runtime.now_ms())
        for name, reason in changes.items():
            self._places[name].told = reason
        for name in begun[:_TOLD]:
            log.warning(
                "destination %s: cannot deliver: %s; it goes on trying", name, failing[name]
            )
        for name in ended[:_TOLD]:
            log.info("destination %s: it is delivered to again", name)
        for names, words in ((begun, "fail"), (ended, "work again")):
            if len(names) > _TOLD:
                more = len(names) - _TOLD
                log.warning("%d more destinations %s: `otel-alloy destinations list`", more, words)

    def _rest(self) -> None:
        """Gives back connections that are not used, and, where there are many, those that were used
        longest ago; forgets who has had nothing for long."""
        now = self._runtime.monotonic()
        free = [
            (place.used, name)
            for name, place in self._places.items()
            if place.begun is None and not place.lined_up and not place.settling
        ]
        free.sort()
        surplus = len(self._places) - _CONNECTIONS
        for at, (used, name) in enumerate(free):
            place = self._places[name]
            if now - used > _KEPT_SECONDS and not place.waiting and place.told is None:
                self._remove(name, place)
            elif now - used > _CONNECTED_SECONDS or at < surplus:
                place.courier.rest()
