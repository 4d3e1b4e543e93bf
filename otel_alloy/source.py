"""What the settings of a source ask of the SOURCE stage: its client and its query.

The stage itself (`otel_alloy.alloy`) knows no settings.
"""

from __future__ import annotations

from otel_alloy.alloy.client import AlloyClient
from otel_alloy.alloy.query import Query
from otel_alloy.config import SourceSettings
from otel_alloy.version import USER_AGENT


def open_client(source: SourceSettings) -> AlloyClient:
    """A client of this source; the caller closes it."""
    return AlloyClient(
        source.endpoint,
        source.api_key.get_secret_value(),
        api_version=source.api_version,
        timeout=source.timeout,
        max_response_bytes=source.max_response_bytes,
        user_agent=USER_AGENT,
    )


def scope(source: SourceSettings) -> Query:
    """What every request to this source has in common."""
    return Query(source.page_size, workflow_id=source.workflow_id, user_id=source.user_id)
