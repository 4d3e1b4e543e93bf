"""From settings to destinations: the one place that knows both.

What decides and delivers is in `otel_alloy.destinations`, which knows no settings but those of a
destination. Where there are neither rules nor destinations, nothing of it is made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from otel_alloy.alloy.events import Requested
from otel_alloy.alloy.retry import PartOfBudget
from otel_alloy.alloy.source import AlloySource
from otel_alloy.checkpoint.store import Store
from otel_alloy.destinations.catalogue import Catalogue
from otel_alloy.destinations.courier import Courier, Destined, Resource
from otel_alloy.destinations.dispatcher import Dispatcher, Tenant
from otel_alloy.destinations.packing import Packer
from otel_alloy.destinations.recall import Recalls
from otel_alloy.destinations.room import Room
from otel_alloy.destinations.router import Router
from otel_alloy.destinations.routing import Routing
from otel_alloy.errors import ConfigurationError
from otel_alloy.mapping.convert import Converter
from otel_alloy.mapping.forms import envelope
from otel_alloy.otlp.delivery import Delivery, Report
from otel_alloy.otlp.outcome import Sender
from otel_alloy.otlp.senders import open_senders
from otel_alloy.otlp.while_held import while_held
from otel_alloy.outbound import OutboundPolicy
from otel_alloy.runtime import Runtime
from otel_alloy.settings.destinations import Destinations, DestinationSettings
from otel_alloy.settings.destinations_dir import Directory
from otel_alloy.settings.models import Settings
from otel_alloy.settings.otlp_section import named
from otel_alloy.settings.values import Privacy
from otel_alloy.version import USER_AGENT

if TYPE_CHECKING:
    from otel_alloy.pipeline.events import Observe
    from otel_alloy.pipeline.factory import Factory

log = logging.getLogger("otel_alloy")

_JOIN_SECONDS = 0.5
_PART_OF_BUDGET = 4
"""Reading again has this part of what a source may ask."""

Senders = tuple[Sender | None, Sender | None]


def open_destination(settings: Settings, one: DestinationSettings, runtime: Runtime) -> Senders:
    """The senders of a destination's traces and logs. Raises ConfigurationError."""
    policy = settings.destinations_policy
    allowed = OutboundPolicy(policy.https_only, policy.public_only)
    strict = allowed if policy.https_only or policy.public_only else None
    return open_senders(one.exporters(settings.network), USER_AGENT, runtime, strict)


def destination_delivery(
    settings: Settings,
    one: DestinationSettings,
    runtime: Runtime,
    report: Callable[[Report], None],
    endpoint: Callable[[Settings, DestinationSettings, Runtime], Senders] = open_destination,
) -> Delivery:
    """The delivery to a destination; `report` is told of each attempt."""
    return Delivery(
        *endpoint(settings, one, runtime),
        max_request_bytes=settings.max_request_bytes,
        runtime=runtime,
        report=report,
    )


def destination_resource(settings: Settings, one: DestinationSettings, source: str) -> Resource:
    """The resource attributes of a source's executions at a destination."""
    found = next((s for s in settings.sources if s.name == source), None)
    if found is None:  # it is in the settings no more
        found = settings.sources[0].model_copy(update={"resource": {}})
    return {**settings.resource(found), **one.resource}


def chosen_destination(settings: Settings, runtime: Runtime, name: str) -> DestinationSettings:
    """The destination of this name. Raises ConfigurationError, with those that there are."""
    found = Directory(settings, runtime.clock).read()
    if name in found.usable:
        return found.usable[name]
    if name in found.disabled:
        raise ConfigurationError([f"destination {name} is disabled: {found.disabled[name]}"])
    known = ", ".join(sorted(found.usable)[:20]) or "none"
    raise ConfigurationError([f"there is no destination {name!r}; known are {known}"])


@dataclass
class Distribution:
    """All about the destinations of a process that reads Alloy. `open_converter`: for the privacy
    of a destination. `shared`: where replicas share the destinations."""

    factory: Factory
    store: Store
    observe: Observe
    open_converter: Callable[[Privacy], Converter]
    shared: Tenant | None = None
    _again: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        settings, runtime = self.factory.settings, self.factory.runtime
        self._directory = Directory(settings, runtime.clock)
        first = self._directory.read()
        self.catalogue = Catalogue(first, self._changed, settings.privacy)
        self._dispatcher: Dispatcher | None = None

    def joined(self) -> Factory:
        """The factory whose batches find their destinations. It is used here, too, so that reading
        again takes from the same budgets."""
        self.factory = replace(self.factory, routing=self.routing)
        return self.factory

    def routing(self, converter: Converter) -> Routing:
        """What the batches of a source, which `converter` encodes, need to know."""
        settings = self.factory.settings
        routes = lambda: self.catalogue.routes  # noqa: E731 - they change
        router = Router(settings.rules, settings.main_destination, routes)
        return Routing(router, self._packer(converter), self._arrived)

    def start(self) -> None:
        """Begins to deliver what lies in the outbox, where there are destinations."""
        settings = self.factory.settings
        if settings.destinations or settings.destinations_dir:
            self.dispatcher().start()

    def end(self, finish: bool, patience: float) -> bool:
        """Waits for the end of deliveries: with `finish` until all is delivered to whoever takes
        it, else, and once the end is asked for, for what is in flight. False where that still goes
        on after `patience` seconds."""
        dispatcher, runtime = self._dispatcher, self.factory.runtime
        if dispatcher is None:
            return True
        if finish:
            dispatcher.finish()
            while not dispatcher.join(_JOIN_SECONDS) and not runtime.stopping():
                pass
        dispatcher.stop()
        ended = dispatcher.join(patience)
        if finish and ended:
            self._tell_what_waits()
        return ended

    def _tell_what_waits(self) -> None:
        waits = {n: b.executions for n, b in self.store.outbox.backlogs().items() if b.executions}
        if waits:
            most = max(waits, key=lambda name: waits[name])
            log.warning(
                "%d executions still wait for %d destinations, most of them for %s; the next `run` "
                "delivers them: `otel-alloy destinations list`",
                sum(waits.values()),
                len(waits),
                most,
            )

    def _arrived(self, executions: Mapping[str, int]) -> None:
        if self._dispatcher is not None:
            self._dispatcher.arrived(executions)

    def reload(self) -> None:
        """Has the folder of destinations read anew, whether or not it seems to have changed."""
        self._again = True

    def dispatcher(self) -> Dispatcher:
        """What delivers, not begun yet. From now on it is told what arrives."""
        settings, runtime, outbox = self.factory.settings, self.factory.runtime, self.store.outbox
        recalls = Recalls(
            {one.name: partial(self._source, one.name) for one in settings.sources},
            self.catalogue,
            self._packer(self.open_converter(settings.privacy)),
            outbox,
            runtime,
            self.observe,
        )
        limits = settings.outbox
        self._dispatcher = Dispatcher(
            self.catalogue,
            outbox,
            self._courier,
            Room(limits.max_bytes, limits.total_bytes, limits.max_age),
            recalls,
            self.factory.crew(runtime),
            runtime,
            self.observe,
            self.shared,
        )
        return self._dispatcher

    def names(self) -> Collection[str]:
        """The destinations that can be delivered to."""
        return self.catalogue.usable.keys()

    def _changed(self) -> Destinations | None:
        again, self._again = self._again, False
        return self._directory.read() if again or self._directory.changed() else None

    def _packer(self, converter: Converter) -> Packer:
        return Packer(self.factory.settings.privacy, converter, self.open_converter)

    def _courier(self, name: str) -> Courier:
        settings, runtime = self.factory.settings, self.factory.runtime
        one = self.catalogue.usable[name]
        destined = Destined(
            name,
            lambda report: destination_delivery(
                settings, one, runtime, report, partial(self._senders, name)
            ),
            partial(destination_resource, settings, one),
            envelope,
            lambda words: named(words, name),
        )
        return Courier(destined, self.store.outbox, runtime)

    def _senders(
        self, name: str, settings: Settings, one: DestinationSettings, runtime: Runtime
    ) -> Senders:
        senders = self.factory.destination_endpoint(settings, one, runtime)
        shared = self.shared
        return senders if shared is None else while_held(senders, lambda: shared.delivers(name))

    def _source(self, name: str) -> AlloySource:
        (source,) = (one for one in self.factory.settings.sources if one.name == name)
        budget = self.factory.budgets.of(source)
        per_minute = self.factory.budgets.part_of(source)
        part = max(1, int(per_minute / _PART_OF_BUDGET)) if per_minute else 0

        def tell(event: object) -> None:  # whether the source gets on is for those to say who read
            if isinstance(event, Requested):
                self.observe(event)

        return self.factory.source(source, tell, PartOfBudget(budget, part, self.factory.runtime))
