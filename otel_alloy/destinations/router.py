"""Who gets which execution: the rules first, then the main destination and the others.

An execution is looked at once, before it is encoded. Nothing is encoded, read or sent here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from otel_alloy.alloy.timestamps import to_ms
from otel_alloy.mapping.convert import Execution
from otel_alloy.routing.index import Index
from otel_alloy.routing.match import Match
from otel_alloy.routing.rules import Rules
from otel_alloy.routing.subject import Subject
from otel_alloy.settings.values import Privacy

Main = Literal["all", "unmatched", "none"]
_MINUTE = 60_000


@dataclass(frozen=True, slots=True)
class Route:
    """What a destination gets, and how its personal data is treated."""

    name: str
    match: Match
    rules: Rules
    privacy: Privacy


class Routes:
    """All destinations of one moment, by name."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self.by_name = dict(routes)
        self._index = Index({name: route.match for name, route in routes.items()})

    def find(self, subject: Subject) -> list[Route]:
        """Those that an execution matches."""
        return [self.by_name[name] for name in self._index.find(subject)]


@dataclass(slots=True)
class Plan:
    """Who gets each execution of a batch: `main[i]`, `routes[i]`. `filtered`: how many executions
    a rule kept back, by the minute (Unix ms) of their createdAt, and the rule. `held_back`: how
    many the rules of destinations did, by destination."""

    main: list[bool] = field(default_factory=list)
    routes: list[Sequence[Route]] = field(default_factory=list)
    filtered: dict[tuple[int, str], int] = field(default_factory=dict)
    held_back: dict[str, int] = field(default_factory=dict)

    @property
    def by_rule(self) -> dict[str, int]:
        """How many executions each rule kept back."""
        found: dict[str, int] = {}
        for (_, rule), executions in self.filtered.items():
            found[rule] = found.get(rule, 0) + executions
        return found


class Router:
    """`rules`: what they do not keep goes nowhere. `main`: what the main destination gets of the
    rest. `routes`: the destinations as they are now, which is asked for again by `renew` only."""

    def __init__(self, rules: Rules, main: Main, routes: Callable[[], Routes]) -> None:
        self._rules = rules
        self._main = main
        self._ask = routes
        self._routes = routes()

    def renew(self) -> Collection[str]:
        """Goes by the destinations as they are now, and names them."""
        self._routes = self._ask()
        return self._routes.by_name.keys()

    def wants(self, execution: Execution) -> bool:
        """Whether anybody gets it."""
        subject = Subject(execution)
        if not self._rules.decide(subject).kept:
            return False
        found = self._routes.find(subject)
        main = self._main == "all" or (self._main == "unmatched" and not found)
        return main or any(route.rules.decide(subject).kept for route in found)

    def plan(self, executions: Sequence[Execution]) -> Plan:
        """Decides about a batch."""
        plan, routes = Plan(), self._routes
        for execution in executions:
            subject = Subject(execution)
            decision = self._rules.decide(subject)
            if not decision.kept:
                minute = (to_ms(execution.notification.createdAt) or 0) // _MINUTE * _MINUTE
                key = minute, decision.rule or ""
                plan.filtered[key] = plan.filtered.get(key, 0) + 1
                plan.main.append(False)
                plan.routes.append(())
                continue
            found = routes.find(subject)
            plan.main.append(self._main == "all" or (self._main == "unmatched" and not found))
            kept = []
            for route in found:
                if route.rules.decide(subject).kept:
                    kept.append(route)
                else:
                    plan.held_back[route.name] = plan.held_back.get(route.name, 0) + 1
            plan.routes.append(kept)
        return plan


class MainAlone:
    """What the main destination gets of it, and nothing of what the others do."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def renew(self) -> Collection[str]:
        """Nothing: it is used once."""
        return ()

    def wants(self, execution: Execution) -> bool:
        """See `Router.wants`."""
        return self._router.wants(execution)

    def plan(self, executions: Sequence[Execution]) -> Plan:
        """Decides about a batch."""
        plan = self._router.plan(executions)
        plan.routes = [()] * len(executions)
        plan.held_back = {}
        return plan


class OneAlone:
    """What one destination gets, delivered as to the main one."""

    def __init__(self, rules: Rules, route: Route) -> None:
        routes = Routes({route.name: route})
        self._router = Router(rules, "none", lambda: routes)

    def renew(self) -> Collection[str]:
        """Nothing: it is used once."""
        return ()

    def wants(self, execution: Execution) -> bool:
        """See `Router.wants`."""
        return self._router.wants(execution)

    def plan(self, executions: Sequence[Execution]) -> Plan:
        """Decides about a batch."""
        plan = self._router.plan(executions)
        plan.main = [bool(routes) for routes in plan.routes]
        plan.routes = [()] * len(executions)
        return plan
