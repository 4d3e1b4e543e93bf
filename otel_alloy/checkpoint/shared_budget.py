"""The request budget of one API key, kept in the database for all replicas and commands.

A token bucket as in `otel_alloy.alloy.retry`, that refills by the database's clock. Where requests
are many, up to a second's worth of them is taken at once, so statements are few; what is not used
within a second is let go, never saved up. What Alloy's `Retry-After` holds back is shared too, and
heard of within a second. While the database does not answer, nothing may be sent: this waits.

A key is known here by a hash of it alone.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from hashlib import sha256
from threading import Lock
from typing import TypeVar

from otel_alloy.alloy.retry import BURST, RequestBudget
from otel_alloy.checkpoint.database import Connection, Database
from otel_alloy.errors import CheckpointError, CheckpointUnwritable, ShutdownRequested
from otel_alloy.log_throttle import LogThrottle
from otel_alloy.runtime import Runtime

log = logging.getLogger("otel_alloy")

_FRESH_SECONDS = 1.0
_AGAIN_SECONDS = 2.0

T = TypeVar("T")


def account_hash(endpoint: str, key: str) -> str:
    """What an API key at an endpoint is known by."""
    return sha256(f"otel-alloy budget\x1f{endpoint}\x1f{key}".encode()).hexdigest()


class SharedBudget:
    """`per_minute` requests of an `account`, together with everybody else who has it in the same
    database; 0 is no limit but what Alloy asks for. `database`: gives it, opened; raises
    CheckpointError. Shared between threads. See `RequestBudget`."""

    def __init__(
        self, database: Callable[[], Database], account: str, per_minute: int, runtime: Runtime
    ) -> None:
        self._database = database
        self._account = account
        self._rate = per_minute / 60
        self._burst = float(min(per_minute, BURST))
        self._runtime = runtime
        self._clock = runtime.monotonic
        self._own = RequestBudget(0, runtime)
        self._throttle = LogThrottle(runtime.monotonic)
        self._lock = Lock()
        self._ready: deque[float] = deque()  # when each request that was taken may be sent
        self._fresh_until = self._clock()
        self._chunk = 1
        self._held_until = self._clock()

    def change(self, per_minute: int) -> None:
        """Keeps to another rate of its own from here on, within what is shared."""
        with self._lock:
            self._own = RequestBudget(per_minute, self._runtime)

    def hold(self, seconds: float) -> None:
        """Lets nobody send anything for so long."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock() + seconds)
            self._ready.clear()
        self._patiently(lambda: self._database().transact(lambda db: self._hold(db, seconds)))

    def due(self) -> float:
        """How many seconds a request that was taken now would have to wait, as far as is known."""
        with self._lock:
            now = self._clock()
            ready = self._ready[0] - now if self._ready and now < self._fresh_until else None
            own, held = self._own.due(), self._held_until - now
        if ready is None:
            tokens, seconds = self._patiently(lambda: self._look(0))
            ready = max(seconds, (1 - tokens) / self._rate if self._rate else 0.0)
        return max(0.0, own, held, ready)

    def take(self) -> float:
        """Takes one request and returns how many seconds to wait before sending it. Waits while the
        database does not answer; raises ShutdownRequested where the end is asked for meanwhile."""
        with self._lock:
            used_up = self._rate > 0 and not self._ready
            if used_up or self._clock() >= self._fresh_until:
                self._fetch()
            now = self._clock()
            at = self._ready.popleft() if self._rate and self._ready else now
            return max(0.0, self._own.take(), self._held_until - now, at - now)

    def _fetch(self) -> None:
        """Takes requests from what is shared: twice as many as before where those were used up at
        once, else one."""
        used_up = not self._ready and self._clock() < self._fresh_until
        self._chunk = max(1, min(2 * self._chunk, int(self._rate))) if used_up else 1
        self._ready.clear()
        number = self._chunk
        tokens, held = self._patiently(lambda: self._look(number))
        now = self._clock()  # after the answer: later than the database's moment, never earlier
        self._fresh_until = now + _FRESH_SECONDS
        self._held_until = max(self._held_until, now + held)
        if self._rate:
            later = [-(tokens + number - place) / self._rate for place in range(1, number + 1)]
            self._ready.extend(now + max(0.0, seconds) for seconds in later)
            self._fresh_until = max(self._fresh_until, self._ready[-1] + _FRESH_SECONDS)

    def _look(self, number: int) -> tuple[float, float]:
        """Takes so many; how many are left, fewer than none where they are to come yet, and for how
        many seconds all is held."""

        def act(db: Connection) -> tuple[float, float]:
            row = db.execute(
                # What waited for the row's lock comes with a moment before that of the row.
                "INSERT INTO request_budget AS b (account, tokens, at, held_until)"
                " VALUES (?, ?, clock_timestamp(), clock_timestamp())"
                " ON CONFLICT (account) DO UPDATE SET"
                " tokens=least(?, b.tokens+greatest(0, date_part('epoch', excluded.at-b.at))*?)-?,"
                " at=greatest(b.at, excluded.at)"
                " RETURNING tokens,"
                " greatest(0, date_part('epoch', held_until-at))",
                (
                    *(self._account, self._burst - number),
                    *(self._burst, self._rate, number),
                ),
            ).fetchone()
            return float(row[0]), float(row[1])

        return self._database().transact(act)

    def _hold(self, db: Connection, seconds: float) -> None:
        db.execute(
            "INSERT INTO request_budget AS b (account, tokens, at, held_until)"
            " VALUES (?, ?, clock_timestamp(),"
            " clock_timestamp()+make_interval(secs => ?::double precision))"
            " ON CONFLICT (account) DO UPDATE SET"
            " held_until=greatest(b.held_until, excluded.held_until)",
            (self._account, self._burst, seconds),
        )

    def _patiently(self, ask: Callable[[], T]) -> T:
        """What the database says, as soon as it says anything. Raises ShutdownRequested where the
        end is asked for before that."""
        while True:
            try:
                return ask()
            except (CheckpointError, CheckpointUnwritable) as error:
                again = self._throttle.admit("budget")
                if again is not None:
                    log.warning("no request may be sent without the budget: %s%s", error, again)
                if self._runtime.wait(_AGAIN_SECONDS):
                    raise ShutdownRequested from None
