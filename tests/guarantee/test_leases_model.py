"""Leases, epochs and conditional writes in a model, in every order that there is.

What the model does is said in `model_leases.py`. Each safeguard is taken out once, and has to be
missed: `pytest -rP` prints the counterexample.
"""

from __future__ import annotations

import time

import pytest

from .model_leases import Explored, Rules, explore
from .scale import scaled


def told(rules: Rules) -> Explored:
    """What the model finds, printed."""
    begun = time.perf_counter()
    found = explore(rules)
    print(f"{rules}: {found.states} states in {time.perf_counter() - begun:.1f} s")
    print(found.story() if found.broken else "no promise is broken")
    return found


@pytest.mark.parametrize(
    ("replicas", "batches", "epochs"),
    [(2, 2, 3), (3, 1, scaled(2, nightly=3)), (3, 2, 2)],
)
def test_every_order_keeps_the_promises(replicas: int, batches: int, epochs: int) -> None:
    """Whatever is paused, crashes, expires or loses an answer, in every order: the cursor never
    goes backwards, nothing is settled that was not delivered, no two replicas may begin a request
    at once, one replica writes in an epoch, each owner delivers a batch once, and no more batches
    are repeated than there were takeovers."""
    found = told(Rules(replicas=replicas, batches=batches, epochs=epochs, alike=True))
    assert found.broken is None, found.story()
    assert found.finished and found.states > 3000


@pytest.mark.parametrize(
    ("without", "broken"),
    [
        (Rules(epoch_checked=False), "two replicas write in one epoch"),
        (Rules(epoch_checked=False, writers=False), "the cursor goes backwards"),
        (Rules(database_clock=False), "two replicas may begin a request at the same moment"),
        (Rules(from_request=False), "two replicas may begin a request at the same moment"),
        (Rules(asked=False), "a batch is delivered twice by the same owner"),
    ],
)
def test_each_safeguard_is_missed(without: Rules, broken: str) -> None:
    """Without the epoch in the write, with a renewal by the replica's own clock, with a lease that
    counts from the answer, or with a commit whose outcome is assumed, a promise is broken."""
    found = told(without)
    assert found.broken == broken and found.path
