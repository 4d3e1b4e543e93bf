"""What `otel-alloy replicas` shows: who takes part, what each works at, and how far that is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from otel_alloy.alloy.timestamps import to_text
from otel_alloy.checkpoint.database import REJECTED, SLICE
from otel_alloy.checkpoint.leases import Board, Lease, Replica
from otel_alloy.terminal.render import span_of_time


def unowned(board: Board) -> list[Lease]:
    """What no replica works at; what commands do is not theirs to do."""
    return [lease for lease in board.leases if not lease.valid and not _of_command(lease)]


def lines(board: Board, now: int) -> Iterator[str]:
    """All of it for people. `now`: Unix ms."""
    for one in board.replicas:
        held = _held(board, one)
        behind = [lag for lease in held if (lag := _lag(lease, now)) is not None]
        parts = [f"{len(held)} held", f"version {one.version}", f"up for {span_of_time(one.age)}"]
        if behind:
            parts.insert(1, f"at most {span_of_time(max(behind))} behind")
        if not one.alive:
            parts.append(f"not heard for {span_of_time(one.heard)}")
        where = f" ({one.address})" if one.address else ""
        yield f"{one.name}{where}: {', '.join(parts)}"
        for lease in held:
            lag = _lag(lease, now)
            far = "" if lag is None else f", {span_of_time(lag)} behind"
            yield f"  {lease.unit}: epoch {lease.epoch}, for {lease.left:.0f} s more{far}"
    for lease in board.leases:
        if lease.valid and _of_command(lease):
            unit = lease.unit.replace("\x1f", " for ")  # of a backfill to a destination
            yield f"{lease.owner}: a command works at {unit}, for {lease.left:.0f} s more"
    for lease in unowned(board):
        yield f"nobody works at {lease.unit}, for {span_of_time(-min(0.0, lease.left))}"


def as_object(board: Board, now: int) -> dict[str, Any]:
    """The same for programs."""
    return {
        "replicas": [
            {
                "replica": one.name,
                "version": one.version,
                "address": one.address,
                "alive": one.alive,
                "up_seconds": round(one.age, 1),
                "heard_seconds_ago": round(one.heard, 1),
                "leases": [_lease(lease, now) for lease in _held(board, one)],
            }
            for one in board.replicas
        ],
        "unowned": [lease.unit for lease in unowned(board)],
    }


def _of_command(lease: Lease) -> bool:
    return lease.unit.partition(" ")[0] in (SLICE, REJECTED)


def _held(board: Board, one: Replica) -> list[Lease]:
    return sorted(
        (lease for lease in board.leases if lease.valid and lease.owner == one.name),
        key=lambda lease: lease.unit,
    )


def _lag(lease: Lease, now: int) -> float | None:
    return None if lease.settled_to is None else max(0.0, (now - lease.settled_to) / 1000)


def _lease(lease: Lease, now: int) -> dict[str, Any]:
    lag = _lag(lease, now)
    return {
        "unit": lease.unit,
        "epoch": lease.epoch,
        "expires_in": round(lease.left, 1),
        "settled_up_to": None if lease.settled_to is None else to_text(lease.settled_to),
        "lag_seconds": None if lag is None else round(lag, 1),
    }
