"""Executions as destinations get them: under the privacy of each, and otherwise the same."""

from __future__ import annotations

import json
from typing import Any

from opentelemetry.proto.logs.v1.logs_pb2 import ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

from otel_alloy.alloy.models import read_notification
from otel_alloy.checkpoint.outbox import Entry
from otel_alloy.destinations.packing import Items, Packer
from otel_alloy.destinations.router import Plan, Route
from otel_alloy.mapping import semconv
from otel_alloy.mapping.convert import Converter, Execution, Role
from otel_alloy.mapping.enrichment import Enrichment, Reason
from otel_alloy.routing.match import Match
from otel_alloy.routing.rules import Rules
from otel_alloy.settings.values import Privacy
from otel_alloy.testing.otlp_endpoint import attributes

OWN = Privacy.model_validate({"error_message": "keep"})


def converter(privacy: Privacy) -> Converter:
    return Converter(
        email=privacy.user_email, full_name=privacy.user_full_name, privacy_key=b"secret"
    )


def route(name: str, **privacy: str) -> Route:
    chosen = Privacy.model_validate({k.replace("__", "."): v for k, v in privacy.items()})
    return Route(name, Match.parse({"user.id": "u"}), Rules(), chosen.over(OWN))


def failed(**fields: Any) -> Execution:
    record = {
        "_id": f"{1:024x}",
        "message": "executionError",
        "data": {"executionId": "e", "executionUuid": "uuid"},
        "startedAt": "2025-10-09T08:00:00.000Z",
        "completedAt": "2025-10-09T08:00:02.000Z",
        "createdAt": "2025-10-09T08:00:02.000Z",
        "userId": "u",
        "user": {"email": "jo@example.com", "fullName": "Jo"},
        **fields,
    }
    known = Enrichment((), None, Reason("webhook", "jo@example.com was refused"))
    return Execution(read_notification(json.dumps(record)), Role.ENDED, enrichment=known)


def packed(execution: Execution, *routes: Route, ready: Items | None = None) -> dict[str, Entry]:
    packer = Packer(OWN, converter(OWN), converter)
    plan = Plan([ready is not None], [routes])
    aside: list[tuple[int, str, str]] = []
    found = packer.pack(
        plan, [execution], lambda i: "{}", lambda i: ready, lambda *what: aside.append(what)
    )
    assert not aside
    return {name: entries[0] for name, entries in found.items()}


def span_of(entry: Entry) -> Any:
    return ScopeSpans.FromString(entry.span or b"").spans[0]


def log_of(entry: Entry) -> Any:
    return ScopeLogs.FromString(entry.log or b"").log_records[0]


def test_each_gets_what_its_privacy_allows() -> None:
    """Address, name and reason are dropped, hashed or masked for one, and stay for another."""
    routes = (
        route("open"),
        route("dropped", user__email="drop", error_message="drop"),
        route("hashed", user__email="hash", error_message="mask"),
    )
    found = packed(failed(), *routes)
    texts = {name: str(span_of(one)) + str(log_of(one)) for name, one in found.items()}
    assert "jo@example.com" in texts["open"] and "was refused" in texts["open"]
    assert "jo@example.com" not in texts["dropped"] and "refused" not in texts["dropped"]
    assert "jo@example.com" not in texts["hashed"] and "was refused" in texts["hashed"]
    assert semconv.USER_HASH in attributes(span_of(found["hashed"]).attributes)
    assert semconv.USER_HASH not in attributes(span_of(found["dropped"]).attributes)


def test_what_the_main_destination_has_ready_is_taken_where_privacy_is_the_same() -> None:
    """And nowhere else: another privacy is encoded by itself."""
    ready = (b"span", b"log")
    found = packed(failed(), route("same"), route("other", user__email="drop"), ready=ready)
    assert (found["same"].span, found["same"].log) == ready
    assert found["other"].span != ready[0]


def test_what_is_encoded_again_has_the_same_bytes() -> None:
    """For what is read again from Alloy, as for whoever shares the privacy."""
    one = route("one", user__email="drop")
    first = packed(failed(), one, route("two", user__email="drop"))
    again = Packer(OWN, converter(OWN), converter).encode(one, failed(), "{}")
    assert first["one"] == first["two"] == again
    assert (again.created, again.record) == (1_759_996_802_000, f"{1:024x}")
