"""From settings to parts: the one place that knows both.

The stages (`otel_alloy.alloy`, `otel_alloy.mapping`, `otel_alloy.otlp`) know no settings. What
touches the outside world can be exchanged here: that is where a test puts its own API, endpoint and
order of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from threading import Lock

from otel_alloy.alloy.client import AlloyClient
from otel_alloy.alloy.cursor import Reading
from otel_alloy.alloy.on_demand import Client, OnDemand
from otel_alloy.alloy.page_size import LargerPages
from otel_alloy.alloy.query import Query
from otel_alloy.alloy.retry import AdjustableBudget, Budget, RequestBudget
from otel_alloy.alloy.source import AlloySource
from otel_alloy.checkpoint.database import Database
from otel_alloy.checkpoint.remembered import Remembered
from otel_alloy.checkpoint.shared_budget import SharedBudget, account_hash
from otel_alloy.checkpoint.store import Settlement, Store, open_shared
from otel_alloy.destinations.catalogue import Catalogue
from otel_alloy.destinations.crew import Crew, open_crew
from otel_alloy.destinations.dispatcher import Tenant
from otel_alloy.destinations.packing import Packer
from otel_alloy.destinations.router import MainAlone, OneAlone, Route, Router
from otel_alloy.destinations.routing import Routing, Selection
from otel_alloy.mapping.convert import Converter
from otel_alloy.mapping.encode import Value
from otel_alloy.mapping.forms import envelope
from otel_alloy.mapping.hook import open_hook
from otel_alloy.network import Network
from otel_alloy.otlp.delivery import Delivery, Report
from otel_alloy.otlp.outcome import Sender
from otel_alloy.otlp.senders import open_senders
from otel_alloy.pipeline.batch import BatchPolicy, Readings
from otel_alloy.pipeline.distribution import (
    Distribution,
    Senders,
    chosen_destination,
    destination_delivery,
    open_destination,
)
from otel_alloy.pipeline.enrich import EnrichPolicy
from otel_alloy.pipeline.events import ExportAttempted, Observe
from otel_alloy.pipeline.prefetch import Prefetcher
from otel_alloy.pipeline.processor import BatchProcessor
from otel_alloy.pipeline.source_log import SourceLog
from otel_alloy.pipeline.tracker import ExecutionTracker
from otel_alloy.privacy import masked
from otel_alloy.routing.customers import Customers
from otel_alloy.runtime import Runtime
from otel_alloy.settings.destinations import DestinationSettings
from otel_alloy.settings.destinations_dir import Directory
from otel_alloy.settings.models import Settings, SourceSettings
from otel_alloy.settings.otlp import Exporter
from otel_alloy.settings.values import Privacy
from otel_alloy.version import USER_AGENT


def open_client(
    source: SourceSettings, runtime: Runtime, network: Network | None = None
) -> AlloyClient:
    """A client of this source; the caller closes it. Raises ConfigurationError where `network` has
    no way to it."""
    return AlloyClient(
        source.endpoint,
        source.key(),
        runtime,
        api_version=source.api_version,
        timeout=source.timeout,
        max_response_bytes=source.max_response_bytes,
        user_agent=USER_AGENT,
        network=network,
        called=source.called,
    )


def base_query(source: SourceSettings) -> Query:
    """What every request to this source has in common."""
    return Query(source.page_size, workflow_id=source.workflow_id, user_id=source.user_id)


def open_source(
    source: SourceSettings,
    runtime: Runtime,
    observe: Callable[[object], None],
    budget: Budget | None = None,
    connect: Callable[[], Client] | None = None,
    retry: bool = True,
    larger: LargerPages | None = None,
) -> AlloySource:
    """The source, ready to be read. `budget`: where it is shared with others. `connect`: instead of
    `open_client`. `retry`: whether a request that fails is sent again. `larger`: how pages grow."""
    return AlloySource(
        source.name,
        OnDemand(connect or partial(open_client, source, runtime)),
        base_query(source),
        budget or RequestBudget(source.requests_per_minute, runtime),
        runtime,
        observe,
        retry=retry,
        larger=larger,
    )


def open_converter(
    settings: Settings, runtime: Runtime, privacy: Privacy | None = None
) -> Converter:
    """The converter that the settings ask for. `privacy`: instead of theirs. Raises
    ConfigurationError where its hook cannot be loaded."""
    privacy = privacy or settings.privacy
    return Converter(
        value_limit=settings.value_limit,
        email=privacy.user_email,
        full_name=privacy.user_full_name,
        privacy_key=settings.privacy_key.get_secret_value().encode(),
        started_logs=settings.started_logs,
        execution_url=settings.execution_page,
        event_name_attribute=settings.event_name_attribute,
        attach=open_hook(settings.hook, runtime.monotonic, settings.places.named("hook")),
    )


def open_mask(settings: Settings) -> Callable[[str], str | None]:
    """What makes an error's message fit to leave, as the privacy settings want it."""
    return partial(masked, choice=settings.privacy.error_message)


def open_customers(
    settings: Settings, resource: Mapping[str, Value], converter: Converter
) -> Customers | None:
    """What tells whose executions are whose, over the attributes of a resource; None where nobody
    asks for it."""
    if not settings.resource_per:
        return None
    return Customers(settings.resource_per, settings.templates, resource, envelope, converter.clean)


def open_endpoint(settings: Settings, runtime: Runtime) -> tuple[Sender | None, Sender | None]:
    """The senders of traces and logs. Raises ConfigurationError."""
    if settings.main_destination == "none":
        return None, None
    return open_senders(settings.otlp, USER_AGENT, runtime)


class Budgets:
    """A request budget for each API key: that is what Alloy counts by, so sources that share a key
    share its budget. Where they are told different limits, the lowest one holds. Where the storage
    is shared, so are the budgets, with all that work with it; `database`: that, where it is open
    already."""

    def __init__(
        self, settings: Settings, runtime: Runtime, database: Database | None = None
    ) -> None:
        limits: dict[tuple[str, str], list[int]] = {}
        for source in settings.sources:
            limits.setdefault(_account(source), []).append(source.requests_per_minute)
        lowest = {
            account: min((n for n in some if n), default=0) for account, some in limits.items()
        }
        self._storage, self._runtime, self._database = settings.storage, runtime, database
        self._lock = Lock()
        self._budgets = {
            account: self._open(account, per_minute, settings.shared)
            for account, per_minute in lowest.items()
        }
        self._parts = {
            account: per_minute / len(limits[account]) for account, per_minute in lowest.items()
        }

    def _open(self, account: tuple[str, str], per_minute: int, shared: bool) -> AdjustableBudget:
        if not shared:
            return RequestBudget(per_minute, self._runtime)
        return SharedBudget(self._opened, account_hash(*account), per_minute, self._runtime)

    def _opened(self) -> Database:
        with self._lock:
            if self._database is None:
                self._database = open_shared(self._storage)
            return self._database

    def of(self, source: SourceSettings) -> AdjustableBudget:
        """The budget of the source's key."""
        return self._budgets[_account(source)]

    def part_of(self, source: SourceSettings) -> float:
        """Requests a minute that are the source's own, where those that share its key have as many
        each; 0 is no limit."""
        return self._parts[_account(source)]


def _account(source: SourceSettings) -> tuple[str, str]:
    return source.endpoint, source.key()()


@dataclass(frozen=True)
class Factory:
    """Makes the parts of a pipeline that reads and delivers."""

    settings: Settings
    runtime: Runtime
    client: Callable[[SourceSettings, Runtime], Client] | None = None
    """Instead of `open_client`."""
    endpoint: Callable[[Settings, Runtime], tuple[Sender | None, Sender | None]] = open_endpoint
    destination_endpoint: Callable[[Settings, DestinationSettings, Runtime], Senders] = (
        open_destination
    )
    prefetch: Callable[[Iterator[Reading], Runtime], Readings] = Prefetcher
    crew: Callable[[Runtime], Crew] = open_crew
    """Who takes the turns of destinations."""
    routing: Callable[[Converter], Routing] | None = None
    """How batches find their destinations; None where there are neither rules nor destinations."""
    alone: str | None = None
    """The one destination that is delivered to, directly; None: the main one."""
    given_budgets: Budgets | None = None
    """Those of another factory, whose budgets are spent here too."""

    @cached_property
    def budgets(self) -> Budgets:
        """The request budgets of the sources."""
        return self.given_budgets or Budgets(self.settings, self.runtime)

    def source(
        self,
        source: SourceSettings,
        observe: Observe,
        budget: Budget | None = None,
        proven_page: int = 0,
    ) -> AlloySource:
        """See `open_source`. `budget`: that of the source's key, unless given. `proven_page`: how
        many records a page was found to bring. A page never grows beyond a batch, as both are
        delivered as a whole."""
        connect: Callable[[], Client]
        if self.client is None:
            connect = partial(open_client, source, self.runtime, self.settings.network)
        else:
            connect = partial(self.client, source, self.runtime)
        budget = budget or self.budgets.of(source)
        larger = None
        if source.adaptive:
            larger = LargerPages(source.page_size, proven_page, self.settings.batch_size)
        return open_source(source, self.runtime, observe, budget, connect, larger=larger)

    def tracker(self, source: SourceSettings, state: Remembered) -> ExecutionTracker:
        """A tracker that goes on from `state`."""
        return ExecutionTracker(
            source.name,
            state,
            overlap_ms=int(source.overlap * 1000),
            incomplete_after_ms=int(source.incomplete_after * 1000),
            started_logs=self.settings.started_logs,
        )

    def enriching(self, source: SourceSettings) -> EnrichPolicy:
        """Which executions of a source wait for their blocks and reason, and how."""
        return EnrichPolicy(
            source.enrich,
            source.enrich_timeout,
            self.settings.webhook.listen is not None,
            open_mask(self.settings),
        )

    @cached_property
    def destination(self) -> DestinationSettings | None:
        """The settings of `alone`. Raises ConfigurationError where there is no such destination."""
        if self.alone is None:
            return None
        return chosen_destination(self.settings, self.runtime, self.alone)

    @property
    def exporters(self) -> Sequence[Exporter]:
        """Where executions go that are delivered directly: to `alone`, or to the main destination.
        Raises ConfigurationError."""
        if self.destination is not None:
            return self.destination.exporters(self.settings.network).executions
        return () if self.settings.main_destination == "none" else self.settings.otlp.executions

    def converter(self, privacy: Privacy | None = None) -> Converter:
        """See `open_converter`."""
        return open_converter(self.settings, self.runtime, privacy)

    def distribution(
        self, store: Store, observe: Observe, shared: Tenant | None = None
    ) -> Distribution | None:
        """All about destinations; None where there are neither those nor rules. `shared`: where
        replicas share them."""
        if not self.settings.routes:
            return None
        return Distribution(self, store, observe, self.converter, shared)

    def delivery(self, report: Callable[[Report], None]) -> Delivery:
        """The delivery to the endpoint; `report` is told of each attempt."""
        one = self.destination
        if one is not None:
            return destination_delivery(
                self.settings, one, self.runtime, report, self.destination_endpoint
            )
        return Delivery(
            *self.endpoint(self.settings, self.runtime),
            max_request_bytes=self.settings.max_request_bytes,
            runtime=self.runtime,
            report=report,
        )

    def processor(
        self,
        settings: SourceSettings,
        source: AlloySource,
        write: Callable[[Settlement], int],
        observe: Observe,
        log: SourceLog,
        routing: Callable[[Converter], Routing] | None = None,
    ) -> BatchProcessor:
        """What settles the batches of a source. `routing`: how they find their destinations; None
        where the main one gets everything."""
        one = self.destination
        privacy, resource = self.settings.privacy, self.settings.resource(settings)
        if one is not None:
            privacy = one.privacy.over(privacy)
            resource = {**resource, **one.resource}
        converter = self.converter(privacy)
        return BatchProcessor(
            source,
            converter,
            resource,
            envelope(resource),
            self.delivery(lambda report: observe(ExportAttempted(source.name, report))),
            write,
            self.runtime,
            observe,
            log,
            None if routing is None else routing(converter),
            self.alone,
            None if one else open_customers(self.settings, resource, converter),
        )

    def direct(self) -> Callable[[Converter], Routing] | None:
        """The routing of what is delivered directly, to the main destination or to the one that is
        delivered to alone, while nothing goes into the outbox."""
        settings, one = self.settings, self.destination
        if not settings.routes:
            return None
        selection: Selection
        if one is not None:
            privacy = one.privacy.over(settings.privacy)
            route = Route(self.alone or "", one.match, one.rules, privacy)
            selection = OneAlone(settings.rules, route)
        else:
            found = Directory(settings, self.runtime.clock).read()
            catalogue = Catalogue(found, lambda: None, settings.privacy)
            routes = catalogue.routes
            router = Router(settings.rules, settings.main_destination, lambda: routes)
            selection = MainAlone(router)

        def routing(converter: Converter) -> Routing:
            packer = Packer(settings.privacy, converter, self.converter)
            return Routing(selection, packer, lambda executions: None)

        return routing

    @property
    def policy(self) -> BatchPolicy:
        """When a batch is full."""
        return BatchPolicy(self.settings.batch_size)
