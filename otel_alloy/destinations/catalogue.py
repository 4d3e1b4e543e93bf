"""The destinations as they are now: what the settings say, and what changed since.

A destination whose file is wrong keeps what it had: its executions go into its outbox, and wait
there until the file is right. Nothing here is sent or stored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from otel_alloy.destinations.router import Route, Routes
from otel_alloy.settings.destinations import Destinations, DestinationSettings
from otel_alloy.settings.values import Privacy

log = logging.getLogger("otel_alloy")


class Catalogue:
    """`first`: the destinations at the start. `changed`: those of now, None where nothing changed
    since it was asked last. `privacy`: what holds where a destination says nothing of it."""

    def __init__(
        self, first: Destinations, changed: Callable[[], Destinations | None], privacy: Privacy
    ) -> None:
        self._changed = changed
        self._privacy = privacy
        self._again: set[str] = set()
        self.usable: Mapping[str, DestinationSettings] = {}
        self.disabled: Mapping[str, str] = {}
        self.routes = Routes({})
        self._take(first)

    def refresh(self) -> set[str]:
        """Takes what changed; the names of those for which anything did."""
        again, self._again = self._again, set()
        found = self._changed()
        return again if found is None else again | self._take(found)

    def put_off(self, name: str) -> None:
        """Has the next `refresh` name it again."""
        self._again.add(name)

    def _take(self, found: Destinations) -> set[str]:
        for name, why in found.disabled.items():
            if self.disabled.get(name) != why:
                kept = name in self.routes.by_name
                rest = (
                    "its executions wait in the outbox"
                    if kept
                    else f"its executions are not kept; when it is right, `otel-alloy backfill "
                    f"--destination {name}` brings them"
                )
                log.error("destination %s is disabled: %s; until then, %s", name, why, rest)
        before = self.usable
        changed = {
            name for name in {*before, *found.usable} if before.get(name) != found.usable.get(name)
        }
        for name in sorted(changed & set(self.disabled) & set(found.usable)):
            log.info("destination %s is right again", name)
        routes = {
            name: self.routes.by_name[name]
            for name in found.disabled
            if name in self.routes.by_name
        }
        for name, one in found.usable.items():
            known = None if name in changed else self.routes.by_name.get(name)
            privacy = one.privacy.over(self._privacy)
            routes[name] = known or Route(name, one.match, one.rules, privacy)
        self.usable, self.disabled = found.usable, found.disabled
        if changed or routes.keys() != self.routes.by_name.keys():
            self.routes = Routes(routes)
        return changed
