"""A model of leases, small enough to try everything that can happen, in every order.

One unit of work, a few batches of it, two or three replicas, one row in the database: owner, epoch,
how long the lease still lasts, and the cursor. A replica claims, loads the cursor, and then, batch
by batch: looks whether it still holds the lease, delivers, writes the cursor on condition of its
epoch. It renews meanwhile, in a request that takes its time and may be lost. It may crash and begin
anew anywhere, be paused anywhere, and lose the answer to its commit. Time is counted in ticks: all
clocks run, also of who is paused. Between looking and delivering no tick passes, unless a replica
is paused just there; that is what the safety margin is for.

`Rules` takes out one of the safeguards at a time. Nothing of the product is used here: this is what
the product's rules are measured by.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

LEASE, MARGIN = 2, 1
"""Ticks."""


@dataclass(frozen=True)
class Rules:
    """`epoch_checked`: a write checks owner and epoch in its own transaction. `database_clock`: the
    expiry is set by the clock that judges it; else by the replica's own, which is wrong by as many
    ticks as `skews` says. `from_request`: a lease counts from before its request was sent; else
    from when the answer came. `asked`: what became of a commit without an answer is asked for; else
    it is taken for not done.

    `alike`: states in which replicas have merely changed places count once, which makes the way to
    a fault hard to follow; only with one clock. `writers`: who writes in which epoch is looked at,
    too; else only what comes of it."""

    epoch_checked: bool = True
    database_clock: bool = True
    from_request: bool = True
    asked: bool = True
    alike: bool = False
    writers: bool = True
    replicas: int = 2
    batches: int = 2
    epochs: int = 3
    skews: tuple[int, ...] = (0, -LEASE, 0)


class Replica(NamedTuple):
    """`at`: where it is; `epoch`: of the lease that it knows of; `cursor`: what it knows is
    settled; `left`: ticks for which it may begin a request; `renewing`: the same, should the
    request that is under way succeed, None where none is; `answer`: what the database made of that
    request, None as long as it has not come there."""

    at: str = "idle"
    epoch: int = 0
    cursor: int = 0
    left: int = 0
    renewing: int | None = None
    answer: bool | None = None


class State(NamedTuple):
    """`owner`: a replica's place, None where it was given back. `left`: until the lease expires, by
    the database's clock. `delivered`: (batch, epoch) that came to the endpoint."""

    owner: int | None
    epoch: int
    left: int
    cursor: int
    delivered: frozenset[tuple[int, int]]
    replicas: tuple[Replica, ...]


class Broken(Exception):
    """A promise is broken."""


@dataclass(frozen=True)
class Explored:
    """`states`: how many there are; `finished`: whether one is among them where all is settled.
    `broken`: the promise that does not hold, and `path`: the shortest way there."""

    states: int
    finished: bool
    broken: str | None = None
    path: tuple[str, ...] = ()

    def story(self) -> str:
        """The counterexample for people."""
        steps = "\n".join(f"  {number}. {step}" for number, step in enumerate(self.path, start=1))
        return f"{self.broken}:\n{steps}"


def explore(rules: Rules) -> Explored:
    """Goes through every state that can be reached, the nearest first, and stops where a promise is
    broken."""
    first = State(None, 0, 0, 0, frozenset(), (Replica(),) * rules.replicas)
    came: dict[State, tuple[State, str] | None] = {first: None}
    ahead = deque([first])
    finished = False
    while ahead:
        state = ahead.popleft()
        finished = finished or state.cursor == rules.batches
        steps = _steps(state, rules)
        while True:
            try:
                name, after = next(steps)
                _hold_promises(state, after)
            except StopIteration:
                break
            except Broken as broken:
                what, step = broken.args
                return Explored(len(came), finished, what, (*_path(came, state), step or name))
            if rules.alike:
                after = _in_order(after)
            if after not in came:
                came[after] = (state, name)
                ahead.append(after)
    return Explored(len(came), finished)


def _path(came: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    steps: list[str] = []
    while (before := came[state]) is not None:
        state, name = before
        steps.append(name)
    return steps[::-1]


def _in_order(state: State) -> State:
    """Replicas that could change places make the same state."""
    places = sorted(
        range(len(state.replicas)),
        key=lambda n: (n == state.owner, _numbers(state.replicas[n])),
    )
    owner = None if state.owner is None else places.index(state.owner)
    return state._replace(owner=owner, replicas=tuple(state.replicas[n] for n in places))


def _numbers(one: Replica) -> tuple[str | int, ...]:
    return tuple(-1 if part is None else part for part in one)


def _hold_promises(before: State, after: State) -> None:
    if after.cursor < before.cursor:
        raise Broken("the cursor goes backwards", "")
    settled = set(range(after.cursor))
    if settled - {batch for batch, _ in after.delivered}:
        raise Broken("a batch is settled that was never delivered", "")
    if len(after.delivered) - len({batch for batch, _ in after.delivered}) >= max(1, after.epoch):
        raise Broken("more batches are repeated than there were takeovers", "")
    if sum(one.left > 0 for one in after.replicas) > 1:
        raise Broken("two replicas may begin a request at the same moment", "")


def _steps(state: State, rules: Rules) -> Iterator[tuple[str, State]]:
    """All that can happen next."""
    if all(one.at != "looked" for one in state.replicas):
        yield "a tick passes", _tick(state)
    if state.epoch < rules.epochs and (state.owner is None or not state.left):
        for n, one in enumerate(state.replicas):
            if one.at == "idle":
                yield f"replica {n} claims", _claim(state, n, rules)
    for n, one in enumerate(state.replicas):
        yield from _renewal(state, n, one, rules)
        yield from _work(state, n, one, rules)
        if one != Replica():
            yield f"replica {n} crashes and begins anew", _with(state, n, Replica())


def _with(state: State, n: int, one: Replica) -> State:
    return state._replace(replicas=(*state.replicas[:n], one, *state.replicas[n + 1 :]))


def _tick(state: State) -> State:
    replicas = tuple(
        one._replace(
            left=max(0, one.left - 1),
            renewing=None if one.renewing is None else max(0, one.renewing - 1),
        )
        for one in state.replicas
    )
    return state._replace(left=max(0, state.left - 1), replicas=replicas)


def _lasts(n: int, rules: Rules) -> int:
    """For how long a lease lasts that replica `n` has just written."""
    return LEASE if rules.database_clock else max(0, LEASE + rules.skews[n])


def _claim(state: State, n: int, rules: Rules) -> State:
    """The one statement that takes a lease that is free: it raises the epoch."""
    epoch = state.epoch + 1
    taken = Replica("loads", epoch, 0, LEASE - MARGIN)
    return _with(state, n, taken)._replace(owner=n, epoch=epoch, left=LEASE)


def _owns(state: State, n: int, one: Replica) -> bool:
    return (state.owner, state.epoch) == (n, one.epoch)


def _renewal(state: State, n: int, one: Replica, rules: Rules) -> Iterator[tuple[str, State]]:
    """The thread beside the work. A renewal that is refused ends what the lease was held for."""
    if one.epoch and one.renewing is None:
        asked = one._replace(renewing=LEASE - MARGIN, answer=None)
        yield f"replica {n} sends its renewal", _with(state, n, asked)
    if one.renewing is None:
        return
    none = one._replace(renewing=None, answer=None)
    if one.answer is None:
        yield f"the renewal of replica {n} is lost", _with(state, n, none)
        owns = _owns(state, n, one)
        after = _with(state, n, one._replace(answer=owns))
        if owns:
            after = after._replace(left=_lasts(n, rules))
        yield f"the database {'renews for' if owns else 'refuses'} replica {n}", after
        return
    yield f"the answer to the renewal of replica {n} is lost", _with(state, n, none)
    if one.answer:
        left = one.renewing if rules.from_request else LEASE - MARGIN
        left = max(left, one.left)
        yield f"replica {n} hears that it renewed", _with(state, n, none._replace(left=left))
    else:
        at = "idle" if one.at in ("loads", "holds") else one.at
        lost = Replica() if at == "idle" else none._replace(left=0)
        yield f"replica {n} hears that it lost its lease", _with(state, n, lost)


def _work(state: State, n: int, one: Replica, rules: Rules) -> Iterator[tuple[str, State]]:
    """The session of the unit."""
    match one.at:
        case "loads":
            at = one._replace(at="holds", cursor=state.cursor)
            yield f"replica {n} loads the cursor, {state.cursor}", _with(state, n, at)
        case "holds":
            if one.left and one.cursor < rules.batches:
                yield f"replica {n} looks: it holds", _with(state, n, one._replace(at="looked"))
            if _owns(state, n, one):
                given = _with(state, n, Replica())._replace(owner=None, left=0)
                yield f"replica {n} drains and hands over", given
            else:
                yield f"replica {n} finds nothing to hand over", _with(state, n, Replica())
        case "looked" | "paused":
            if one.at == "looked":
                yield f"replica {n} is paused", _with(state, n, one._replace(at="paused"))
            yield _deliver(state, n, one)
        case "delivered":
            yield from _write(state, n, one, rules)
        case "asks":
            if not _owns(state, n, one):
                yield f"replica {n} asks: it lost its lease", _with(state, n, Replica())
            else:
                at = one._replace(at="holds" if state.cursor > one.cursor else "delivered")
                at = at._replace(cursor=state.cursor)
                yield f"replica {n} asks what became of its commit", _with(state, n, at)


def _deliver(state: State, n: int, one: Replica) -> tuple[str, State]:
    name = f"replica {n} delivers batch {one.cursor} under epoch {one.epoch}"
    if one.at == "looked" and not _owns(state, n, one):
        raise Broken("who was not paused delivers what another replica owns", name)
    if (one.cursor, one.epoch) in state.delivered:
        raise Broken("a batch is delivered twice by the same owner", name)
    after = _with(state, n, one._replace(at="delivered"))
    return name, after._replace(delivered=state.delivered | {(one.cursor, one.epoch)})


def _write(state: State, n: int, one: Replica, rules: Rules) -> Iterator[tuple[str, State]]:
    """The cursor moves on condition that owner and epoch are what they were."""
    unsure = one._replace(at="asks" if rules.asked else "holds")
    yield f"replica {n} loses its connection before its commit", _with(state, n, unsure)
    if rules.epoch_checked and not _owns(state, n, one):
        yield f"the write of replica {n} is refused", _with(state, n, Replica())
        return
    name = f"replica {n} writes cursor {one.cursor + 1} under epoch {one.epoch}"
    if rules.writers and not _owns(state, n, one):
        raise Broken("two replicas write in one epoch", name)
    written = state._replace(cursor=one.cursor + 1)
    done = one._replace(at="holds", cursor=one.cursor + 1)
    yield name, _with(written, n, done)
    yield f"{name}, and loses the answer", _with(written, n, unsure)
