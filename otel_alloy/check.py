"""`otel-alloy check`: tries each part once and says what came back and what to do.

Each line is one fact. Nothing is stored, no execution is sent, and nothing is retried.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from otel_alloy.alloy.client import AlloyClient
from otel_alloy.alloy.models import Page
from otel_alloy.alloy.query import Query
from otel_alloy.alloy.reader import Filter, Reader, ServerClock
from otel_alloy.alloy.timestamps import to_text
from otel_alloy.config import Settings, SourceSettings
from otel_alloy.errors import AccessRefused, AlloyReceiverError
from otel_alloy.mapping import semconv
from otel_alloy.mapping.encode import Envelope
from otel_alloy.otlp.outcome import Kind
from otel_alloy.otlp.senders import open_senders
from otel_alloy.receiver import USER_AGENT
from otel_alloy.version import __version__


@dataclass(frozen=True, slots=True)
class Finding:
    """`tried`: what; `answer`: what came back, with the remedy where one is needed. `ok` is None
    for what is only worth knowing."""

    tried: str
    ok: bool | None
    answer: str
    exit_code: int = 1


def check(settings: Settings) -> Iterator[Finding]:
    """Findings in the order in which they are made."""
    names = ", ".join(s.name for s in settings.sources)
    yield Finding("configuration", True, f"{len(settings.sources)} source(s): {names}")
    for source in settings.sources:
        yield from _check_alloy(source)
    yield from _check_endpoint(settings)


def _check_alloy(source: SourceSettings) -> Iterator[Finding]:
    title = f"Alloy ({source.name})"
    clock = ServerClock()
    client = AlloyClient(
        source.endpoint,
        source.api_key.get_secret_value(),
        api_version=source.api_version,
        timeout=source.timeout,
        user_agent=USER_AGENT,
    )

    def fetch(query: Query) -> Page:
        page = client.fetch(query)
        clock.learn(page, int(time.time() * 1000))
        return page

    scope = Query(source.page_size, workflow_id=source.workflow_id, user_id=source.user_id)
    reader = Reader(fetch, scope)
    try:
        newest = reader.probe()
        yield Finding(f"{title}: API key", True, f"accepted by {source.endpoint}")
        yield _clock_finding(title, clock.skew / 1000)
        yield _records_finding(title, newest)
        yield _filter_finding(title, reader.filter)
        if newest.received and newest.received < source.page_size:
            total = newest.pagination.totalItems if newest.pagination else None
            if total is None or total > newest.received:
                yield Finding(
                    f"{title}: page size",
                    None,
                    f"asked for {source.page_size} records, got {newest.received}: the API may "
                    "clamp pages; otel-alloy pages by what it receives, nothing to do",
                )
    except AccessRefused as error:
        yield Finding(f"{title}: API key", False, str(error), exit_code=3)
    except AlloyReceiverError as error:
        yield Finding(f"{title}: request", False, str(error))
    finally:
        client.close()


def _clock_finding(title: str, skew: float) -> Finding:
    words = f"the API's clock and this machine's differ by {abs(skew):.1f} s"
    if abs(skew) > 60:
        return Finding(f"{title}: clock", None, words + "; the API's is used, set yours if wrong")
    return Finding(f"{title}: clock", True, words)


def _records_finding(title: str, newest: Page) -> Finding:
    created = [r.created for r in newest.records if r.created is not None]
    if not created:
        return Finding(f"{title}: records", None, "the API has none yet")
    words = f"newest from {to_text(max(created))}"
    if newest.bad:
        words += f"; {len(newest.bad)} cannot be read and would be set aside"
    return Finding(f"{title}: records", True, words)


def _filter_finding(title: str, verdict: Filter) -> Finding:
    tried = f"{title}: createdAt filter"
    if verdict is Filter.HONOURED:
        return Finding(tried, True, "honoured; each page costs one request")
    if verdict is Filter.UNKNOWN:
        return Finding(tried, None, "too few records to tell; `run` finds out by itself")
    return Finding(
        tried,
        None,
        f"{verdict.value}; `run` reads newest first instead, which costs more requests",
    )


def _check_endpoint(settings: Settings) -> Iterator[Finding]:
    envelope = Envelope(settings.resource(settings.sources[0]), semconv.SCOPE_NAME, __version__)
    empty = envelope.request([])
    for signal, sender in zip(
        ("traces", "logs"), open_senders(settings.environment, USER_AGENT), strict=True
    ):
        try:
            outcome = sender.send(empty)
        finally:
            sender.close()
        if outcome.kind is Kind.DELIVERED:
            yield Finding(f"OTLP {signal}", True, "an empty request was acknowledged")
        else:
            yield Finding(
                f"OTLP {signal}",
                False,
                f"{outcome.reason}; check OTEL_EXPORTER_OTLP_ENDPOINT and that a collector "
                "listens there",
            )
