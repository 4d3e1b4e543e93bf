"""From settings to parts."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from otel_alloy.checkpoint.store import open_store
from otel_alloy.pipeline.factory import Budgets, Factory
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.models import Settings


def test_one_budget_for_one_key() -> None:
    """Alloy counts requests by key: sources that share a key share its budget, which is the lowest
    that any of them has; another key, or the same one at another endpoint, has its own."""
    settings = Settings.model_validate(
        {
            "environment": {},
            "sources": [
                {"name": "a", "api_key": "one", "requests_per_minute": 60},
                {"name": "b", "api_key": "bearer one", "requests_per_minute": 30},
                {"name": "c", "api_key": "one", "requests_per_minute": 0},
                {"name": "d", "api_key": "two", "requests_per_minute": 0},
                {"name": "e", "api_key": "one", "endpoint": "https://eu.example"},
            ],
        }
    )
    runtime = replace(system_runtime(), monotonic=lambda: 0.0)
    budgets = Budgets(settings, runtime)
    a, b, c, d, e = (budgets.of(source) for source in settings.sources)
    assert a is b is c and len({id(a), id(d), id(e)}) == 3
    waits = [budget.take() for budget in (a, b, c) * 11]
    assert [round(wait, 3) for wait in waits if wait] == [2.0, 4.0, 6.0]  # 30 at once, then 30/min
    assert [d.take() for _ in range(500)] == [0.0] * 500


def test_reading_again_for_destinations_takes_from_the_same_budget(tmp_path: Path) -> None:
    """What is read again is read within the budget of the key, not beside it."""
    rules = [{"match": {"outcome": "success"}, "drop": True}]
    settings = Settings.model_validate({"environment": {}, "api_key": "k", "rules": rules})
    with closing(open_store(f"sqlite:///{tmp_path}/state.db")) as store:
        distribution = Factory(settings, system_runtime()).distribution(store, lambda event: None)
        assert distribution is not None
        factory = distribution.joined()
        (source,) = settings.sources
        assert factory.routing is not None
        assert factory.budgets.of(source) is distribution.factory.budgets.of(source)
