"""What the settings ask of the stages: a source's client and query, and the converter.

The stages themselves (`otel_alloy.alloy`, `otel_alloy.mapping`) know no settings.
"""

from __future__ import annotations

from collections.abc import Callable

from otel_alloy.alloy.client import AlloyClient
from otel_alloy.alloy.query import Query
from otel_alloy.alloy.retry import RequestBudget
from otel_alloy.alloy.source import AlloySource
from otel_alloy.mapping.convert import Converter
from otel_alloy.mapping.hook import open_hook
from otel_alloy.runtime import Runtime
from otel_alloy.settings.models import Settings, SourceSettings
from otel_alloy.version import USER_AGENT


def open_source(
    source: SourceSettings,
    runtime: Runtime,
    observe: Callable[[object], None],
    budget: RequestBudget | None = None,
    *,
    retry: bool = True,
) -> AlloySource:
    """The source that the settings describe; the caller closes it. `budget`: where it is shared
    with others. `retry`: whether a request that fails is sent again."""
    return AlloySource(
        source.name,
        open_client(source, runtime),
        base_query(source),
        budget or RequestBudget(source.requests_per_minute, runtime),
        runtime,
        observe,
        retry=retry,
    )


def open_client(source: SourceSettings, runtime: Runtime) -> AlloyClient:
    """A client of this source; the caller closes it."""
    return AlloyClient(
        source.endpoint,
        source.api_key.get_secret_value(),
        runtime,
        api_version=source.api_version,
        timeout=source.timeout,
        max_response_bytes=source.max_response_bytes,
        user_agent=USER_AGENT,
    )


def base_query(source: SourceSettings) -> Query:
    """What every request to this source has in common."""
    return Query(source.page_size, workflow_id=source.workflow_id, user_id=source.user_id)


def converter(settings: Settings) -> Converter:
    """The converter that the settings ask for. Raises ConfigurationError where its hook cannot be
    loaded."""
    limit = settings.environment.get("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "")
    return Converter(
        value_limit=int(limit)
        if limit.isdecimal() and int(limit) >= 16
        else settings.attribute_value_length_limit,
        email=settings.privacy.user_email,
        full_name=settings.privacy.user_full_name,
        privacy_key=settings.privacy_key.get_secret_value().encode(),
        started_logs=settings.started_logs,
        attach=open_hook(settings.hook),
    )
