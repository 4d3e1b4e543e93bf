"""Three customers around the `World`: each with a destination and faults of its own.

The dispatcher, its couriers and the outbox are the real ones; turns are taken at once, in the
thread that decides, so a run can be repeated. Every write to the outbox is a step that the process
may die at. What each destination got is written down, and held against what the store says of it:
an execution of a destination is at any time delivered, in its outbox, noted to be read again, or
set aside, and never two of these.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from otel_alloy.checkpoint.outbox import (
    Backlog,
    Entry,
    Packet,
    Recall,
    Recalled,
    Sent,
    Want,
    record_check,
    unpack,
    unpack_wants,
)
from otel_alloy.checkpoint.sqlite import SqliteStore
from otel_alloy.checkpoint.store import RejectedRecord, Settlement, Store
from otel_alloy.destinations.crew import Crew
from otel_alloy.destinations.dispatcher import Dispatcher
from otel_alloy.errors import CheckpointUnwritable
from otel_alloy.otlp.outcome import Headers, Kind, Outcome
from otel_alloy.pipeline.distribution import Distribution
from otel_alloy.pipeline.factory import Factory
from otel_alloy.settings.destinations import DestinationSettings, OutboxSettings
from otel_alloy.settings.models import Settings
from otel_alloy.testing.simulator import Config

from .world import START, Beside, Crash, Endpoint, Key, Model, World, log_key, span_key

MATCH: dict[str, dict[str, Any]] = {
    "acme": {"match": {"user.id": "u1"}},
    "beta": {"match": {"workflow.id": "w1*"}},
    "fail": {
        "match": {"outcome": "error"},
        "rules": [{"match": {"workflow.id": "w2"}, "drop": True}],
    },
}
USERS, WORKFLOWS = ("u1", "u2", "u3"), ("w10", "w11", "w2")
LOOK = 2.1
"""Seconds after which the dispatcher looks after the rest again."""

Piece = tuple[str, str]
"""A record's `_id`, and its role: what a destination gets once."""


def owners(model: Model, message: str) -> set[str]:
    """Whose an execution is, by a record of it: said once more, in other words than the code's."""
    found = {"acme"} if model.user == "u1" else set()
    if model.forge in ("w10", "w11"):
        found.add("beta")
    if message == "executionError" and model.forge != "w2":
        found.add("fail")
    return found


@dataclass
class Far:
    """One destination, as `Endpoint` knows whom it belongs to, and what it got. `noted`: what was
    put into its outbox when it was settled; `done`, `aside`, `gone`: what left it, as delivered,
    set aside, or not to be had from Alloy any more. `allowed`: how often each key may come again,
    by the repeats that have a name."""

    town: Town
    name: str
    poison: set[Key] = field(default_factory=set)
    may_be_set_aside: set[str] = field(default_factory=set)
    noted: set[Piece] = field(default_factory=set)
    done: set[Piece] = field(default_factory=set)
    aside: set[Piece] = field(default_factory=set)
    gone: set[Piece] = field(default_factory=set)
    taken: Counter[Key] = field(default_factory=Counter)
    allowed: Counter[Key] = field(default_factory=Counter)
    named: Counter[str] = field(default_factory=Counter)
    unsettled: set[Key] = field(default_factory=set)
    chunk: set[Key] = field(default_factory=set)
    bytes: dict[Key, set[bytes]] = field(default_factory=dict)
    requests: int = 0
    held_back: bool = False
    may_close: bool = False

    def __post_init__(self) -> None:
        self.clock, self.end_away_until = self.town.world.clock, 0.0
        self.traces, self.logs = Link(self, "traces"), Link(self, "logs")

    def step(self) -> None:
        self.town.world.step()

    def sent(self, items: Iterable[tuple[Key, bytes]]) -> None:
        self.requests += 1
        if self.held_back:
            self.town.wrong(f"{self.name} is paused, and was sent something")
        for key, content in items:
            self.bytes.setdefault(key, set()).add(content)
            if key not in self.chunk:
                self.town.wrong(f"{self.name} was sent {key}, which was not taken for it")

    def accepted(self, items: Iterable[tuple[Key, bytes]]) -> None:
        for key, _ in items:
            self.taken[key] += 1
            self.unsettled.add(key)

    def settled(self, sent: Sent, entries: Iterable[Entry]) -> None:
        """Its packets have left the outbox."""
        aside = {(identity(one), one.role) for one in sent.rejected}
        for entry in entries:
            found = self.aside if piece(entry) in aside else self.done
            found.add(piece(entry))
            self.unsettled -= keys(entry)
        self.chunk.clear()

    def may_repeat(self, cause: str, again: Collection[Key]) -> None:
        """These may come once more each, and no others."""
        self.allowed.update(again)
        self.named[cause] += len(again)


@dataclass
class Link:
    """A sender to a destination: an `Endpoint`, of which lost answers are counted. `slow`: seconds
    that each request takes."""

    far: Far
    signal: Literal["traces", "logs"]
    slow: float = 0.0

    def __post_init__(self) -> None:
        self.endpoint = Endpoint(self.far, self.signal)

    def send(self, request: bytes, headers: Headers = ()) -> Outcome:
        self.far.clock.wait(self.slow)
        before = self.far.taken.copy()
        outcome = self.endpoint.send(request, headers)
        if outcome.kind is Kind.RETRY:
            self.far.may_repeat("answer lost", self.far.taken - before)
        return outcome

    def rest(self) -> None:
        pass

    def close(self) -> None:
        """The courier lets go of what it holds: only for a reload, which has been asked for."""
        far = self.far
        if far.unsettled and not far.may_close:
            far.town.wrong(f"{far.name} was let go of in the middle of a chunk")
        far.may_repeat("reload", far.unsettled)
        far.unsettled.clear()
        far.chunk.clear()


class Ledger:
    """The real outbox; a write can fail for a while, the process can die before and after it."""

    def __init__(self, town: Town, store: SqliteStore) -> None:
        self._town, self._store, self._inner = town, store, store.outbox
        self._packets: dict[int, Packet] = {}

    def take(self, destination: str, most_bytes: int, most: int) -> list[Packet]:
        found = self._inner.take(destination, most_bytes, most)
        self._packets.update((one.number, one) for one in found)
        chunk = self._town.fars[destination].chunk
        chunk.clear()
        for packet in found:
            for entry in packet.entries():
                chunk |= keys(entry)
        return found

    def sent(self, done: Iterable[Sent], now: int) -> int:
        some = list(done)
        self._before()
        new = self._inner.sent(some, now)
        for one in some:
            packets = [p for n in one.numbers if (p := self._packets.pop(n, None))]
            if len(packets) != len(one.numbers):
                self._town.wrong(f"{one.destination}: what had left its outbox left it again")
            entries = [entry for packet in packets for entry in packet.entries()]
            self._town.fars[one.destination].settled(one, entries)
        self._town.world.step()
        return new

    def spill(self, destination: str, room: int, before: int, keep: Collection[int]) -> int:
        self._before()
        spilled = self._inner.spill(destination, room, before, keep)
        self._town.spilled += spilled
        self._town.world.step()
        return spilled

    def recalled(self, found: Recalled, now: int) -> None:
        self._before()
        wanted = wants(self._store)
        self._inner.recalled(found, now)
        left = wants(self._store)
        for name, some in wanted.items():
            again = [e for (to, _), entries in found.entries.items() if to == name for e in entries]
            self._town.recalled += len(again)
            here = Counter(self._town.known(name, want) for want in some)
            here -= Counter(self._town.known(name, want) for want in left.get(name, ()))
            here -= Counter(map(piece, again))
            self._town.missing(name, set(here), found.missing.get(name, 0))
        self._town.world.step()

    def pause(self, destination: str, at: int | None) -> None:
        self._inner.pause(destination, at)

    def failed(self, errors: Mapping[str, str | None], now: int) -> None:
        self._before()
        self._inner.failed(errors, now)
        self._town.world.step()

    def drop(self, destination: str) -> int:
        return self._inner.drop(destination)

    def backlogs(self) -> dict[str, Backlog]:
        return self._inner.backlogs()

    def recalls(self, destination: str, source: str, most: int) -> list[Recall]:
        return self._inner.recalls(destination, source, most)

    def recall_range(self, destination: str) -> tuple[int, int] | None:
        return self._inner.recall_range(destination)

    def _before(self) -> None:
        self._town.world.step()
        if self._town.outbox_full:
            self._town.outbox_full -= 1
            raise CheckpointUnwritable("disk full")


@dataclass
class _Shelf:
    """What `Distribution` asks of a store."""

    outbox: Ledger


class Town:
    """A `World` with three customers in it. `room`: bytes in the outbox of each, and of all."""

    def __init__(
        self, folder: Path, config: Config | None = None, room: int = 100_000, **settings: Any
    ) -> None:
        self.folder = folder / "destinations"
        self.folder.mkdir(exist_ok=True)
        self.world = World(folder, config, destinations_dir=str(self.folder), **settings)
        outbox = OutboxSettings.model_construct(
            max_bytes=room, total_bytes=2 * room, max_age=3600.0
        )
        self.world.settings = self.world.settings.model_copy(update={"outbox": outbox})
        self.world.arrange, self.world.on_settled = self._arrange, self._settled
        self.fars = {name: Far(self, name) for name in MATCH}
        for name in MATCH:
            self.write(name, {})
        self.outbox_full = self.spilled = self.recalled = self.vanished = 0
        self.models: dict[str, tuple[Model, str]] = {}
        self._known: dict[tuple[str, int, int, str], Piece] = {}
        self._distribution: Distribution | None = None
        self._dispatcher: Dispatcher | None = None

    def wrong(self, words: str) -> None:
        self.world.mistakes.append(words)

    # The process ----------------------------------------------------------------------------------

    def _arrange(self, factory: Factory, store: SqliteStore) -> Factory:
        """A process begins: what the one before it was sending may come again."""
        for far in self.fars.values():
            if not far.unsettled <= far.chunk:
                self.wrong(f"more than a chunk of {far.name} was under way")
            far.may_repeat("death", far.unsettled)
            far.unsettled.clear()
            far.chunk.clear()
        own = replace(
            factory,
            runtime=replace(factory.runtime, spawn=lambda work, name: Beside(work, early=True)),
            destination_endpoint=self._open,
            crew=lambda runtime: Crew("crew", 64, runtime, idle=0),
        )
        shelf = cast(Store, _Shelf(Ledger(self, store)))
        self._distribution = Distribution(own, shelf, self.world.told.append, own.converter)
        self._dispatcher = self._distribution.dispatcher()
        return replace(factory, routing=self._distribution.routing)

    def _open(
        self, settings: Settings, one: DestinationSettings, runtime: object
    ) -> tuple[Link, Link]:
        (name,) = (n for n in MATCH if n in one.otlp["OTEL_EXPORTER_OTLP_ENDPOINT"])
        return self.fars[name].traces, self.fars[name].logs

    def cycle(self, *, dies_in: int | None = None) -> bool:
        """One cycle of the source, in which no destination has a say."""
        world = self.world
        world.begin()
        before = [far.requests for far in self.fars.values()]
        alive = world.cycle(dies_in=dies_in)
        if before != [far.requests for far in self.fars.values()]:
            self.wrong("a cycle waited for a destination")
        return alive

    def deliver(self, steps: int = 1, *, wait: bool = True, dies_in: int | None = None) -> bool:
        """The dispatcher's next steps, and (`wait`) the time between them; False: the process
        died."""
        world = self.world
        world.begin()
        assert self._dispatcher is not None
        world.dies_in, world.dead = dies_in, False
        try:
            for _ in range(steps):
                rest = self._dispatcher.step()
                world.clock.wait(rest if wait else 0.0)
        except Crash:
            world.crashes += 1
            world.restart()
            return False
        finally:
            world.dies_in = None
        return True

    def look(self) -> None:
        """Has the dispatcher look after the rest, once and now."""
        self.outbox_full = 0
        self.world.clock.wait(LOOK)
        self.deliver()

    # What people do -------------------------------------------------------------------------------

    def write(self, name: str, more: Mapping[str, Any] | None, *, wrong: bool = False) -> None:
        """The destination's file says this besides what belongs there; None: there is none."""
        path = self.folder / f"{name}.yaml"
        if more is None:
            path.unlink(missing_ok=True)
            return
        otlp = {"endpoint": f"http://{name}.example:4318"}
        whole = {**MATCH[name], "otlp": otlp, **more, **({"nonsense": 1} if wrong else {})}
        path.write_text(json.dumps(whole))
        os.utime(path, (START - 60, START - 60))  # not a moment ago: it is not half written

    def change(self, name: str, more: Mapping[str, Any] | None, *, wrong: bool = False) -> None:
        """The same while it runs; what it is being sent may come again then."""
        self.write(name, more, wrong=wrong)
        if self.world.poller is None:
            return
        assert self._distribution is not None
        self._distribution.reload()
        self.fars[name].may_close = True
        self.look()
        self.fars[name].may_close = False

    def pause(self, name: str, paused: bool) -> None:
        """`destinations pause` and `resume`, and the look that takes it up."""
        self.world.begin()
        store = self.world.store
        store.outbox.pause(name, self.world.now if paused else None)
        self.fars[name].held_back = False
        self.look()
        self.fars[name].held_back = paused

    # What happened --------------------------------------------------------------------------------

    def add(self, model: Model, message: str, *, late: float = 0.0) -> None:
        self.models[self.world.add(model, message, late=late)] = model, message

    def _settled(self, settlement: Settlement) -> None:
        """Each record that was settled is in the outbox of those whose it is, and of no other."""
        ours = {
            key[1].removesuffix(":incomplete") for key in self.world.unsettled if key[0] == "log"
        }
        ours |= {identity(one) for one in settlement.rejected if one.destination is None}
        assert self._distribution is not None
        routed = self._distribution.catalogue.routes.by_name.keys()
        for name in routed:
            entries = settlement.outbox.get(name, ())
            self._note(name, entries)
            wanted = {one for one in ours if name in owners(*self.models[one])}
            found = {entry.record for entry in entries}
            if found != wanted:
                self.wrong(f"{name} has {found} of a batch, and {wanted} is its own")
        for name in settlement.outbox.keys() - routed:
            self.wrong(f"{name} is gone, and was given something")

    def _note(self, name: str, entries: Iterable[Entry]) -> None:
        far = self.fars[name]
        for entry in entries:
            if piece(entry) in far.noted:
                self.wrong(f"{piece(entry)} was put into the outbox of {name} twice")
            assert entry.created is not None and entry.record is not None
            far.noted.add(piece(entry))
            place = name, entry.created, record_check(entry.record), entry.role
            self._known[place] = piece(entry)

    def known(self, name: str, want: Want) -> Piece:
        return self._known[name, want.created, want.check, want.role]

    def missing(self, name: str, pieces: set[Piece], told: int) -> None:
        """What was given up, as Alloy does not give it any more."""
        there = {record["_id"] for record in self.world.log.records()}
        if still := [one for one in pieces if one[0] in there]:
            self.wrong(f"{name}: {still} was given up, and Alloy has it")
        if len(pieces) != told:
            self.wrong(f"{name}: {len(pieces)} were given up, and {told} told")
        self.fars[name].gone |= pieces

    # What has to be true --------------------------------------------------------------------------

    def check(self) -> None:
        """At any time: each execution of each destination is in exactly one place, and came no more
        often than the repeats with a name allow, with the bytes that the main one got."""
        self.world.check()
        for far in self.fars.values():
            for key, times in far.taken.items():
                assert times <= 1 + far.allowed[key], f"{key} came {times} times to {far.name}"
            for key, contents in far.bytes.items():
                assert len(contents) == 1, f"{far.name}: {key} came again with other bytes"
                assert contents <= self.world.bytes.get(key, contents), f"{far.name}: {key}"
        if self.world.poller is not None:
            self._check_places()

    def _check_places(self) -> None:
        store = self.world.store
        lie = {name: Counter[Piece]() for name in MATCH}
        for name, packed in store.read("SELECT destination, packed FROM outbox"):
            lie[name].update(map(piece, unpack(packed)))
        for name, some in wants(store).items():
            lie[name].update(self.known(name, want) for want in some)
        for one in store.rejected():
            if one.destination is not None:
                assert (identity(one), one.role) in self.fars[one.destination].aside
        for name, far in self.fars.items():
            for places in (far.done, far.aside, far.gone):
                lie[name].update(places)
            doubled = [one for one, times in lie[name].items() if times > 1]
            assert not doubled, f"{name}: {doubled} is in two places"
            lost = far.noted - lie[name].keys()
            assert not lost, f"{name}: {lost} is nowhere"

    def calm(self) -> None:
        """Every fault ends, every destination is back: all is delivered, and nothing comes
        again."""
        world = self.world
        world.check_all_delivered()
        for far in self.fars.values():
            far.end_away_until = 0.0
            for link in (far.traces, far.logs):
                link.endpoint.script.clear()
                link.slow = 0.0
            self.pause(far.name, False)
            self.change(far.name, {})
        for _ in range(400):
            if not any(b.executions or b.recall for b in world.store.outbox.backlogs().values()):
                break
            self.deliver()
            self.check()
        else:
            raise AssertionError(f"it does not end: {world.store.outbox.backlogs()}")
        self.check()
        for far in self.fars.values():
            assert far.noted == far.done | far.aside | far.gone
            assert not far.unsettled
            aside = {record for record, _ in far.aside}
            assert aside <= far.may_be_set_aside, f"{far.name}: set aside without a reason"
            for record, role in far.done:
                model, message = self.models[record]
                for key in keys_of(record, message, role, model.uuid):
                    assert far.taken[key], f"{far.name}: {key} never came"
        before = [far.requests for far in self.fars.values()]
        world.restart()
        self.deliver(3)
        self.check()
        assert before == [far.requests for far in self.fars.values()], "sent again after the end"


def piece(entry: Entry) -> Piece:
    assert entry.record is not None
    return entry.record, entry.role


def identity(rejected: RejectedRecord) -> str:
    found: str = json.loads(rejected.original)["_id"]
    return found


def keys(entry: Entry) -> set[Key]:
    """The keys of an entry's span and log record."""
    told = json.loads(entry.original)
    return keys_of(told["_id"], told["message"], entry.role, told["data"]["executionUuid"])


def keys_of(record: str, message: str, role: str, uuid: str) -> set[Key]:
    found = {log_key(record, message)}
    if role == "incomplete":
        found = {("log", f"{record}:incomplete", "runalloy.workflow.execution.incomplete")}
    return found | {span_key(uuid)} if role in ("ended", "incomplete") else found


def wants(store: SqliteStore) -> dict[str, list[Want]]:
    """What is to be read again, by destination."""
    found: dict[str, list[Want]] = {}
    for name, packed in store.read("SELECT destination, packed FROM recall"):
        found.setdefault(name, []).extend(unpack_wants(packed))
    return found
