"""A world without sockets and with a clock of its own, for the real `Poller`.

The API is the simulator's `LogStore`, the endpoint speaks the `Sender` protocol, the checkpoint is
a real SQLite file. Every step that a process could die at (a request, its answer, a delivery, its
acknowledgement, a settlement, its end) counts down to `Crash`; a dead process does nothing more.
What happened is written down, and `check` compares it with what should have.
"""

from __future__ import annotations

import json
import os
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.message import Message
from pathlib import Path
from typing import Any, Protocol

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_alloy.alloy.cursor import Reading
from otel_alloy.alloy.models import Page, Unreadable, read_page
from otel_alloy.alloy.query import Query
from otel_alloy.checkpoint.known import Known
from otel_alloy.checkpoint.remembered import IN_MEMORY, Remembered
from otel_alloy.checkpoint.sqlite import SqliteStore
from otel_alloy.checkpoint.store import AuditResult, Settlement, Waiting
from otel_alloy.errors import (
    AccessRefused,
    Challenged,
    CheckpointUnwritable,
    RequestRefused,
    Throttled,
    Unavailable,
    Unreachable,
)
from otel_alloy.mapping.ids import execution_ids
from otel_alloy.otlp.outcome import Headers, Kind, Outcome
from otel_alloy.pipeline.events import Settled
from otel_alloy.pipeline.factory import Factory
from otel_alloy.pipeline.poller import Poller
from otel_alloy.runtime import Runtime
from otel_alloy.settings.models import Settings
from otel_alloy.testing.simulator import Config, LogStore, iso
from otel_alloy.testing.simulator.operations import answer as inside

START = 1_750_000_000
OVERLAP = 60
INCOMPLETE_AFTER = 1200

Key = tuple[str, str, str]
"""("span", span id, "") or ("log", log.record.uid, event name)."""

_EVENTS = {
    "executionFinished": "runalloy.workflow.execution.finished",
    "executionError": "runalloy.workflow.execution.failed",
    "executionStarted": "runalloy.workflow.execution.started",
}


class Crash(BaseException):
    """The process is gone."""


def log_key(record_id: str, message: str) -> Key:
    """The key of the log record that a notification becomes."""
    return ("log", record_id, _EVENTS.get(message, "runalloy.workflow.execution.other"))


def span_key(uuid: str) -> Key:
    """The key of an execution's span."""
    return ("span", execution_ids(uuid)[1].hex(), "")


class Clock:
    """Time that moves when somebody waits, and nobody asks for the end."""

    def __init__(self) -> None:
        self.now = float(START)
        self._lock = threading.Lock()

    def time(self) -> float:
        return self.now

    def wait(self, seconds: float | None = None) -> bool:
        with self._lock:
            self.now += seconds or 0.0
        return False


class Ahead:
    """A `Prefetcher` without a thread, so that a run can be repeated: reads `world.ahead` pages
    before the first is taken, and now and then has nothing in time."""

    def __init__(self, world: World, items: Iterator[Reading]) -> None:
        self._world, self._items = world, items
        self._ready: deque[Reading | BaseException] = deque()
        self._ended = False

    def get(self, timeout: float) -> Reading | None:
        if self._world.pauses and self._world.pauses.popleft():
            return None
        while not self._ended and len(self._ready) <= self._world.ahead:
            try:
                self._ready.append(next(self._items))
            except StopIteration:
                self._ended = True
            except Exception as error:
                self._ended = True
                self._ready.append(error)
        item = self._ready.popleft()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        pass


class Beside:
    """Work beside, which runs at once or, where it is not `early`, when it is waited for."""

    def __init__(self, work: Callable[[], None], *, early: bool) -> None:
        self._work: Callable[[], None] | None = work
        if early:
            self.join()

    def join(self, timeout: float | None = None) -> None:
        work, self._work = self._work, None
        if work is not None:
            work()

    def is_alive(self) -> bool:
        return self._work is not None


class Taker(Protocol):
    """Who an endpoint belongs to, and writes down what it got. `sent`: of each request, before it
    is judged; `accepted`: of what was taken."""

    clock: Clock
    end_away_until: float
    poison: set[Key]

    def step(self) -> None: ...

    def sent(self, items: Iterable[tuple[Key, bytes]]) -> None: ...

    def accepted(self, items: Iterable[tuple[Key, bytes]]) -> None: ...


@dataclass
class Endpoint:
    """One signal's endpoint: takes what it is sent as its script says, all of it once that is used
    up.

    ok, lost (taken, but the answer is a timeout), busy (503), unexpected (500), partial, large.
    Requests with a key of `poison` are refused."""

    world: Taker
    signal: str
    script: deque[str] = field(default_factory=deque)

    def send(self, request: bytes, headers: Headers = ()) -> Outcome:
        world = self.world
        world.step()
        items = list(_items(self.signal, request))
        world.sent(items)
        word = self.script.popleft() if self.script else "ok"
        if world.clock.now < world.end_away_until:
            word = "busy"
        if word == "busy":
            return Outcome(Kind.RETRY, "HTTP 503", 3.0)
        if word == "unexpected":
            return Outcome(Kind.UNEXPECTED, "HTTP 500")
        if word == "large" and len(items) > 1:
            return Outcome(Kind.TOO_LARGE, "HTTP 413")
        if any(key in world.poison for key, _ in items):
            return Outcome(Kind.REJECTED, "HTTP 400")
        world.accepted(items)
        world.step()
        if word == "lost":
            return Outcome(Kind.RETRY, "the answer was lost")
        # One of one would be a rejection of everything, which is set aside.
        partial = word == "partial" and len(items) > 1
        return Outcome(Kind.DELIVERED, rejected=1 if partial else 0)

    def rest(self) -> None:
        pass

    def close(self) -> None:
        pass


def _items(signal: str, request: bytes) -> Iterator[tuple[Key, bytes]]:
    if signal == "traces":
        for r in ExportTraceServiceRequest.FromString(request).resource_spans:
            for span in r.scope_spans[0].spans:
                yield ("span", span.span_id.hex(), ""), span.SerializeToString()
        return
    for q in ExportLogsServiceRequest.FromString(request).resource_logs:
        for log in q.scope_logs[0].log_records:
            uid = next(a.value.string_value for a in log.attributes if a.key == "log.record.uid")
            yield ("log", uid, log.event_name), log.SerializeToString()


class Api:
    """`AlloyClient` without a socket. `faults` decide about the next requests."""

    def __init__(self, world: World) -> None:
        self._world = world

    def fetch(self, query: Query) -> Page:
        world = self._world
        world.step()
        if world.meanwhile:
            world.meanwhile.popleft()()
        fault = world.faults.popleft() if world.faults else None
        if world.clock.now < world.api_away_until:
            fault = "unavailable"
        world.clock.wait(world.request_seconds)
        if query.execution_id is not None:
            world.questions.append(query.execution_id)
            error = world.refuse(query.execution_id)
            if error is not None:
                raise error
        if fault == "denied":
            raise AccessRefused("401")
        if fault == "challenged":
            raise Challenged("403", refusal=True)
        if fault == "throttled":
            raise Throttled("429", after=2.0)
        if fault == "refused":
            raise RequestRefused("400")
        if fault == "unavailable":
            raise Unavailable("no answer")
        if fault == "shape":
            try:
                return read_page(b'{"result": []}')
            except Unreadable as error:
                raise Unavailable(str(error)) from None
        answer = world.log.query(query.parameters())
        world.requests += 1
        if answer.status != 200:
            raise RequestRefused(str(answer.status))
        body = answer.body
        for mark, odd in world.spoil.items():
            body = body.replace(mark, odd)
        page = read_page(body)
        page.server_date = world.now + int(world.log.config.clock_offset * 1000)
        world.step()
        return page

    def get(self, path: str, parameters: Mapping[str, str]) -> bytes:
        world = self._world
        world.clock.wait(world.request_seconds)
        world.asked.append(path)
        if world.inside:
            raise world.inside.popleft()
        if world.clock.now < world.api_away_until:
            raise Unavailable("no answer")
        headers = Message()
        headers["x-api-version"] = "2025-09"
        answer = inside(world.log, path, parameters, headers, world.clock.now)
        if answer.status != 200:
            raise RequestRefused(str(answer.status))
        world.step()
        return answer.body

    def close(self) -> None:
        pass


class _Store:
    """The real store; a settlement can fail for a while, and the process can die around it."""

    def __init__(self, world: World, inner: SqliteStore) -> None:
        self._world, self._inner = world, inner

    def settle(self, source: str, settlement: Settlement) -> int:
        world = self._world
        world.step()
        if world.disk_full:
            world.disk_full -= 1
            raise CheckpointUnwritable("disk full")
        new = self._inner.settle(source, settlement)
        world.settled(settlement)
        world.step()
        return new

    def load(self, source: str, fingerprint: str) -> Remembered:
        return self._inner.load(source, fingerprint)

    def known(self, source: str, start: int, before: int) -> Known:
        return self._inner.known(source, start, before)

    def known_from(self, source: str) -> int | None:
        return self._inner.known_from(source)

    def visibility(self, source: str) -> str | None:
        return self._inner.visibility(source)

    def audited_to(self, source: str) -> dict[int, int]:
        return self._inner.audited_to(source)

    def removes(self, source: str) -> bool:
        return self._inner.removes(source)

    def write_audit(self, source: str, result: AuditResult) -> None:
        self._write(lambda: self._inner.write_audit(source, result))

    def waiting(self, source: str) -> dict[str, Waiting]:
        return self._inner.waiting(source)

    def reasons(self, uuids: Iterable[str]) -> dict[str, str]:
        return self._inner.reasons(uuids)

    def blocks(self, workflow: str, version: int) -> str | None:
        return self._inner.blocks(workflow, version)

    def write_blocks(self, workflow: str, version: int, blocks: str) -> None:
        self._write(lambda: self._inner.write_blocks(workflow, version, blocks))

    def write_enrichments(self, source: str, found: Mapping[str, str]) -> None:
        self._write(lambda: self._inner.write_enrichments(source, found))

    def learned(self, source: str) -> dict[str, int]:
        return self._inner.learned(source)

    def write_learned(self, source: str, name: str, number: int | None) -> None:
        self._write(lambda: self._inner.write_learned(source, name, number))

    def _write(self, write: Callable[[], None]) -> None:
        self._world.step()
        if self._world.disk_full:
            self._world.disk_full -= 1
            raise CheckpointUnwritable("disk full")
        write()
        self._world.step()


@dataclass
class Model:
    """An execution as the world knows it: its notification's `_id`s by message."""

    uuid: str
    started: int
    records: dict[str, str] = field(default_factory=dict)
    start_created: int | None = None
    workflow: str = "copy"
    user: str = "u"
    forge: str = "w"


class World:
    """Everything around one source, and what it did."""

    def __init__(
        self,
        folder: Path,
        config: Config | None = None,
        in_memory: int = IN_MEMORY,
        **settings: Any,
    ) -> None:
        self.clock = Clock()
        self.log = LogStore(config or Config(), clock=self.clock.time)
        self.path = folder / "state.db"
        self.in_memory = in_memory
        values: dict[str, Any] = {
            "api_key": "secret",
            "overlap": OVERLAP,
            "incomplete_after": INCOMPLETE_AFTER,
            "requests_per_minute": 0,
            "enrich": "off",
            "environment": {},
        }
        self.settings = Settings.model_validate({**values, **settings})
        self.traces, self.logs = Endpoint(self, "traces"), Endpoint(self, "logs")
        self.traces_first = True
        self.faults: deque[str | None] = deque()
        self.meanwhile: deque[Callable[[], None]] = deque()
        self.pauses: deque[bool] = deque()
        self.spoil: dict[bytes, bytes] = {}
        self.ahead = 2
        self.request_seconds = 0.0
        self.questions: list[str] = []
        self.asked: list[str] = []
        self.inside: deque[Exception] = deque()  # what the next questions for blocks come to
        self.refuse: Callable[[str], Exception | None] = lambda execution: None
        self.api_away_until = self.end_away_until = 0.0
        self.disk_full = 0
        self.poison: set[Key] = set()
        self.asked_for: set[Key] = set()
        self.dies_in: int | None = None
        self.dead = False
        self.later_than_assumed = False  # whether records may come later than the overlap
        self.crashes = self.refused = self.requests = self.cycles = 0
        self.bytes: dict[Key, set[bytes]] = {}
        self.taken: dict[Key, int] = {}
        self.done: set[Key] = set()
        self.mistakes: list[str] = []
        self.unsettled: set[Key] = set()
        self.executions: list[Model] = []
        self.told: deque[object] = deque(maxlen=1000)
        self.wanted: dict[Key, int] = {}
        self.arrange: Callable[[Factory, SqliteStore], Factory] = lambda factory, store: factory
        self.on_settled: Callable[[Settlement], None] = lambda settlement: None
        self._number = 0
        self._chance = random.Random(0)
        self._store: SqliteStore | None = None
        self.poller: Poller | None = None

    def runtime(self) -> Runtime:
        """Time, waiting, chance and threads as this world has them."""
        return Runtime(
            clock=self.clock.time,
            monotonic=self.clock.time,
            wait=self.clock.wait,
            stopping=lambda: False,
            random=self._chance.random,
            spawn=lambda work, name: Beside(work, early=self.traces_first),
            stop=lambda: None,
        )

    def factory(self) -> Factory:
        """The real pipeline, with this world around it."""
        return Factory(
            self.settings,
            self.runtime(),
            client=lambda source, runtime: Api(self),
            endpoint=lambda settings, runtime: (self.traces, self.logs),
            prefetch=lambda items, runtime: Ahead(self, items),
        )

    def _tell(self, event: object) -> None:
        """Keeps an event, but nothing that it lets one read only while it is observed."""
        self.told.append(replace(event, ended=tuple) if isinstance(event, Settled) else event)

    # What the process does ------------------------------------------------------------------------

    def step(self) -> None:
        """A point at which the process may die."""
        if self.dead:
            raise Crash
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                self.dead = True
                raise Crash

    def sent(self, items: Iterable[tuple[Key, bytes]]) -> None:
        for key, content in items:
            self.bytes.setdefault(key, set()).add(content)
            if key in self.done:
                self.mistakes.append(f"{key} was settled and sent again")

    def accepted(self, items: Iterable[tuple[Key, bytes]]) -> None:
        for key, _ in items:
            self.taken[key] = self.taken.get(key, 0) + 1
            self.unsettled.add(key)

    def settled(self, settlement: Settlement) -> None:
        self.on_settled(settlement)
        self.done |= self.unsettled
        self.unsettled.clear()
        progress = settlement.progress
        bound = progress.high
        if progress.window is not None:
            bound = progress.window[0] if progress.position is None else progress.position
        if bound is None:
            return
        if self.later_than_assumed:
            return
        passed = bound - OVERLAP * 1000
        aside = self._set_aside() | set(self.waiting())
        for key, created in self.wanted.items():
            elsewhere = key in self.taken or key in aside or key in self.asked_for
            if created < passed and not elsewhere:
                self.mistakes.append(f"the checkpoint passed {key}, which was not delivered")

    def waiting(self) -> Iterator[Key]:
        """What waits for its blocks and reason, in the store."""
        if self._store is None or self.settings.sources[0].enrich == "off":
            return
        for waiting in self._store.waiting("default").values():
            record = json.loads(waiting.original.text())
            yield span_key(waiting.uuid)
            yield log_key(record["_id"], record["message"])

    def _set_aside(self) -> set[Key]:
        assert self._store is not None
        return set() if not self.poison else self.poison

    def cycle(self, *, dies_in: int | None = None) -> bool:
        """One cycle of the process, which is started first if it is not running; False: it died."""
        self.dies_in, self.dead = dies_in, False
        self.cycles += 1
        try:
            self.begin().cycle()
        except Crash:
            self.crashes += 1
            self.restart()
            return False
        except (
            RequestRefused,
            AccessRefused,
        ):  # before a good answer: it ends, and is started again
            self.refused += 1
            self.restart()
            return False
        finally:
            self.dies_in = None
        return True

    def begin(self) -> Poller:
        """The process, which is started if it is not running."""
        if self.poller is None:
            self._store = self._store or SqliteStore(self.path, in_memory=self.in_memory)
            factory = self.arrange(self.factory(), self._store)
            store, source = _Store(self, self._store), self.settings.sources[0]
            self.poller = Poller(factory, source, store, self._tell)
        return self.poller

    @property
    def store(self) -> SqliteStore:
        """The file of the process, which runs."""
        assert self._store is not None
        return self._store

    def unreachable_cycle(self) -> None:
        """A cycle in which Alloy has records that it does not give."""
        with suppress(Unreachable):
            self.cycle()

    def restart(self) -> None:
        """The process ends without another word; the next cycle starts a new one."""
        self.poller = None
        self.unsettled.clear()
        if self._store is not None:
            self._store.close()
            self._store = None

    def close(self) -> None:
        self.restart()
        for name in ("state.db", "state.db-wal", "state.db-shm", "state.db.lock"):
            with suppress(OSError):
                os.unlink(self.path.with_name(name))

    # What happens at Alloy ------------------------------------------------------------------------

    def jump(self, seconds: float) -> None:
        """From here on the API's `Date` and `lastFetched` are wrong by so much; 0: right again."""
        self.log.config = replace(self.log.config, clock_offset=seconds)

    @property
    def now(self) -> int:
        """The time, ms, also by the records that are created."""
        return int(self.clock.now * 1000)

    def identity(self) -> str:
        self._number += 1
        return f"{START:08x}{self._number:016x}"

    def add(
        self, model: Model, message: str, *, created: int | None = None, late: float = 0.0
    ) -> str:
        """A notification of an execution; `late`: seconds until it can be seen."""
        created = self.now if created is None else created
        record_id = self.identity()
        record: dict[str, Any] = {
            "_id": record_id,
            "message": message,
            "data": {"executionId": f"id-{model.uuid}", "executionUuid": model.uuid},
            "startedAt": iso(model.started),
            "createdAt": iso(created),
            "forgeWorkflow": {"name": "orders"},
            "forgeWorkflowId": model.forge,
            "workflowId": model.workflow,
            "workflowVersion": 1,
            "userId": model.user,
        }
        if message != "executionStarted":
            record["completedAt"] = iso(created)
            self._want(model, record_id, message, created)
        else:
            model.start_created = created
        self.log.add(record, visible_at=created / 1000 + late if late else None)
        model.records[message] = record_id
        return record_id

    def change(self, model: Model, message: str, *, renewed: bool) -> None:
        """The start record turns into another one, in place."""
        record_id = model.records.pop("executionStarted")
        fields: dict[str, Any] = {"message": message, "completedAt": iso(self.now)}
        created = model.start_created or 0
        if renewed:
            created = self.now
            fields["createdAt"] = iso(created)
        self.log.change(record_id, **fields)
        model.records[message] = record_id
        self._want(model, record_id, message, created if renewed else self.now)
        if not renewed:  # no window brings it again: it is asked for, at doubling ages
            self.asked_for |= {log_key(record_id, message), span_key(model.uuid)}

    def remove(self, model: Model, message: str) -> None:
        """A record is deleted; what was not read before need not be delivered."""
        record_id = model.records.pop(message)
        with suppress(KeyError):
            self.log.remove(record_id)
            key = log_key(record_id, message)
            if key not in self.taken:
                self.wanted.pop(key, None)
            others = any(m in ("executionFinished", "executionError") for m in model.records)
            if not others and span_key(model.uuid) not in self.taken:
                self.wanted.pop(span_key(model.uuid), None)
            return
        model.records[message] = record_id  # not visible yet: it cannot be deleted

    def _want(self, model: Model, record_id: str, message: str, created: int) -> None:
        self.wanted[log_key(record_id, message)] = created
        if message in ("executionFinished", "executionError"):
            self.wanted.setdefault(span_key(model.uuid), created)

    def execution(self) -> Model:
        model = Model(f"uuid-{len(self.executions)}", self.now - 1500)
        self.executions.append(model)
        return model

    # What has to be true --------------------------------------------------------------------------

    def check(self) -> None:
        """What has to be true at any time."""
        assert not self.mistakes, "; ".join(self.mistakes[:5])
        several = [key for key, contents in self.bytes.items() if len(contents) > 1]
        assert not several, f"repeated with other bytes: {several}"

    def check_memory(self) -> None:
        """After a whole cycle no more is remembered than the overlap holds."""
        assert self.poller is not None
        state = self.poller.tracker.state
        held, kept = state.held(), state.whole()
        assert len(kept.open) == state.open_count
        remembered = len(kept.seen) + len(kept.open) + len(kept.ended)
        assert len(held.seen) + len(held.open) + len(held.ended) in (0, remembered)
        assert remembered <= self.in_memory or not (held.seen or held.open or held.ended)
        if held.seen or held.open or held.ended:  # then it is all that the file has
            assert held.seen == kept.seen and held.ended == kept.ended
            assert set(held.open) == set(kept.open)
            for execution, opened in kept.open.items():
                memory = held.open[execution]
                assert (memory.created, memory.next_check) == (opened.created, opened.next_check)
                assert memory.text() == opened.text()
        if state.progress.high is None or state.progress.window is not None:
            return
        horizon = state.progress.high - OVERLAP * 1000
        old = [s.created for s in kept.seen.values() if s.created < horizon]
        assert not old, f"{len(old)} records are remembered from before the overlap"

    def quiesce(self) -> None:
        """Every fault ends; cycles go on until all that is going to happen has happened."""
        for script in (self.faults, self.meanwhile, self.pauses, self.traces.script):
            script.clear()
        self.logs.script.clear()
        self.disk_full = 0
        self.jump(0)
        for pause in (1, OVERLAP + 1, 1, OVERLAP + 1, *[OVERLAP * 2] * 12):
            self.cycle()
            self.clock.wait(pause)
        self.cycle()
        for _ in self.executions:  # those that are open are asked for; then they are incomplete
            if self.poller is not None and self.poller.tracker.state.open_count:
                self.cycle()

    def check_all_delivered(self) -> None:
        """Every terminal record that was there to be read was taken, or set aside by its own."""
        self.quiesce()
        self.check()
        missing = [k for k in self.wanted if k not in self.taken and k not in self.poison]
        assert not missing, f"never delivered: {missing}"
        assert self._store is not None
        rejected = {a.original for a in self._store.rejected()}
        poisoned = [k for k in self.poison if k in self.wanted and k[0] == "log"]
        assert len(rejected) <= len(self.poison)
        for key in poisoned:
            assert any(key[1] in original for original in rejected), f"{key} is nowhere"
        before = sum(self.taken.values())
        self.restart()
        self.cycle()
        self.check()
        assert sum(self.taken.values()) == before, "sent again after the last restart"
