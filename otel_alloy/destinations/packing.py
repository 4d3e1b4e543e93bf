"""Executions as destinations get them: encoded under the privacy of each, once for all that share
it. Nothing is stored or sent here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from otel_alloy.alloy.timestamps import to_ms
from otel_alloy.checkpoint.outbox import Entry
from otel_alloy.destinations.router import Plan, Route
from otel_alloy.mapping.convert import Converter, Execution, Unconvertible
from otel_alloy.mapping.enrichment import Enrichment
from otel_alloy.privacy import MessageChoice, masked
from otel_alloy.settings.values import Privacy

Items = tuple[bytes | None, bytes | None]


class Packer:
    """`own`: the privacy of the main destination, under which `converter` encodes. `open_converter`
    makes one for another."""

    def __init__(
        self, own: Privacy, converter: Converter, open_converter: Callable[[Privacy], Converter]
    ) -> None:
        self._own = own
        self._open = open_converter
        self._converters = {_key(own): converter}

    def pack(
        self,
        plan: Plan,
        executions: Sequence[Execution],
        original: Callable[[int], str],
        ready: Callable[[int], Items | None],
        set_aside: Callable[[int, str, str], None],
    ) -> dict[str, list[Entry]]:
        """What each destination gets of a batch. `original(i)`: the notification's JSON;
        `ready(i)`: its items where the main destination has them; `set_aside(i, reason, name)` is
        told what cannot be encoded for a destination."""
        found: dict[str, list[Entry]] = {}
        for index, routes in enumerate(plan.routes):
            if not routes:
                continue
            execution = executions[index]
            made: dict[object, Items | str] = {}
            text = original(index)
            for route in routes:
                key = _key(route.privacy)
                if key not in made:
                    made[key] = self._items(route, execution, ready(index))
                items = made[key]
                if isinstance(items, str):
                    set_aside(index, items, route.name)
                elif items != (None, None):
                    found.setdefault(route.name, []).append(_entry(execution, text, items))
        return found

    def encode(self, route: Route, execution: Execution, original: str) -> Entry:
        """One execution for one destination. Raises Unconvertible."""
        items = self._items(route, execution, None)
        if isinstance(items, str):
            raise Unconvertible(items)
        return _entry(execution, original, items)

    def _items(self, route: Route, execution: Execution, ready: Items | None) -> Items | str:
        """The items, or why there are none."""
        if ready is not None and route.privacy == self._own:
            return ready
        key = _key(route.privacy)
        converter = self._converters.get(key)
        if converter is None:
            converter = self._converters[key] = self._open(route.privacy)
        known = execution.enrichment
        if known is not None and route.privacy.error_message != self._own.error_message:
            known = _told(known, route.privacy.error_message)
            execution = replace(execution, enrichment=known)
        try:
            return converter.convert(execution)
        except Unconvertible as error:
            return str(error)


def _key(privacy: Privacy) -> tuple[str, str, str]:
    return privacy.user_email, privacy.user_full_name, privacy.error_message


def _told(known: Enrichment, choice: MessageChoice) -> Enrichment:
    """As a destination wants it told; what is masked already stays so."""
    if known.reason is None:
        return known
    message = masked(known.reason.message, choice)
    return replace(known, reason=replace(known.reason, message=message))


def _entry(execution: Execution, original: str, items: Items) -> Entry:
    n = execution.notification
    created = to_ms(n.createdAt)
    found = n.id is not None and created is not None
    began = execution.started_at
    return Entry(
        items[0],
        items[1],
        created if found else None,
        n.id if found else None,
        execution.role.value,
        original,
        None if began is None else str(began),
        None if execution.enrichment is None else execution.enrichment.text(),
    )
