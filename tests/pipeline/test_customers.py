"""Guarantees of `resource_per` and `headers`, through the whole receiver and over real sockets."""

from __future__ import annotations

import hashlib
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from otel_alloy.checkpoint.store import open_store
from otel_alloy.errors import ConfigurationError
from otel_alloy.mapping import semconv
from otel_alloy.pipeline.factory import Factory
from otel_alloy.pipeline.rejected import retry_rejected
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.loader import load_settings
from otel_alloy.testing.otlp_endpoint import Answer, Received, Signal, attributes

if TYPE_CHECKING:
    from conftest import Place

SIGNALS: tuple[Signal, Signal] = ("traces", "logs")
EACH = ["user.id", "workflow.id", "workflow.name", "workflow.version", "integration.id",
        "integration.name", "team.id"]  # fmt: skip
KEYS = {name: name if name == "user.id" else f"runalloy.{name}" for name in EACH}
TENANT = "x-scope-orgid"


def under_their_own(place: Place, fields: list[str]) -> None:
    """Fails where a resource says something else than what lies under it."""
    for signal in SIGNALS:
        for item in place.otlp.items(signal):
            own, above = attributes(item.record.attributes), attributes(item.resource.attributes)
            assert above[semconv.SERVICE_NAME] == "runalloy"
            for name in fields:
                key = KEYS[name]
                assert (above.get(key), type(above.get(key))) == (own.get(key), type(own.get(key)))
            assert len(above) == 2 + sum(KEYS[name] in own for name in fields)


@pytest.mark.parametrize("fields", [["user.id"], EACH])
def test_values_stand_on_the_resource_as_on_the_record(place: Place, fields: list[str]) -> None:
    """Each span and log record lies under a resource with its own values, of the same type; no
    request more than without, and the records are the same bytes."""
    records = place.fill(200)
    place.receive(environment=environment(place), resource_per=fields)
    place.assert_exactly_once(place.ended(records))
    under_their_own(place, fields)
    assert Counter(r.signal for r in place.otlp.requests) == {"traces": 1, "logs": 1}
    grouped = {signal: place.bytes_sent(signal) for signal in SIGNALS}
    place.otlp.requests.clear()
    place.storage.unlink()
    place.receive(environment=environment(place))
    assert {signal: place.bytes_sent(signal) for signal in SIGNALS} == grouped


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_each_request_is_of_one_tenant(place: Place, grpc_place: Place, protocol: str) -> None:
    """With a header, whatever is in a request belongs to the customer in its header."""
    here = grpc_place if protocol == "grpc" else place
    records = here.fill(150)
    config = here.folder / "settings.yaml"
    config.write_text('resource_per: [user.id]\nheaders: { X-Scope-OrgID: "{user.id}" }\n')
    here.once("--config", str(config))
    here.assert_exactly_once(here.ended(records))
    under_their_own(here, ["user.id"])
    seen = set()
    for request in here.otlp.requests:
        (user,) = {attributes(i.record.attributes).get("user.id") for i in request.items()}
        assert request.headers[TENANT] == (user or "!none")
        seen.add((request.signal, user))
    assert len(seen) == len(here.otlp.requests) > 10


def test_what_is_set_aside_goes_to_its_customer_later(place: Place) -> None:
    """A record that a tenant's backend refused is kept with its resource; sent again, it has that
    and the header of its customer, byte for byte as before."""
    records = place.fill(60, lifecycle="terminal")
    users = Counter(record["userId"] for record in records)
    unlucky, count = users.most_common(1)[0]
    first: set[tuple[str, str]] = set()

    def judge(received: Received) -> Answer | None:
        if received.headers[TENANT] != unlucky:
            return None
        items = list(received.items())
        if len(items) == 1:
            first.add((received.signal, hashlib.sha256(received.body).hexdigest()))
        return Answer(status=400)

    place.judge = judge
    settings = place.settings(
        resource_per=["user.id"], headers={"X-Scope-OrgID": "{user.id}"},
        environment=environment(place),
    )  # fmt: skip
    place.receive(
        resource_per=["user.id"], headers={"X-Scope-OrgID": "{user.id}"},
        environment=environment(place),
    )  # fmt: skip
    with closing(open_store(settings.storage, exclusive=False)) as store:
        aside = store.rejected()
        assert len(aside) == count
        assert {(r.resource or {}).get("user.id") for r in aside} == {unlucky}
        place.judge = lambda received: None
        again: set[tuple[str, str]] = set()
        begin = len(place.otlp.requests)
        for record in aside:
            done = retry_rejected(Factory(settings, system_runtime()), store, [record.number])
            assert done.delivered == [record.number]
        for received in place.otlp.requests[begin:]:
            assert received.headers[TENANT] == unlucky
            again.add((received.signal, hashlib.sha256(received.body).hexdigest()))
    assert again == first
    place.assert_exactly_once(place.ended(records))
    under_their_own(place, ["user.id"])


def environment(place: Place) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": place.otlp.http_endpoint}


@pytest.mark.parametrize(
    ("text", "variables", "words"),
    [
        ("resource_per: [user.email]", {}, "'user.email' is none of the fields"),
        ("", {"OTEL_ALLOY_RESOURCE_PER": "user.id,outcome"}, "OTEL_ALLOY_RESOURCE_PER: 'outcome'"),
        ("headers: { a: '{user.id}' }", {}, "which holds nothing yet"),
        ("resource_per: user.id\nheaders: { a: '{user.id}', A: '{user.id}' }", {}, "there twice"),
        ("resource_per: user.id\nheaders: { a: '{user.id}' }\notlp: { headers: { A: b } }", {},
         "The header a stands in `headers` and in otlp.headers in "),
        ("resource_per: user.id\nheaders: { a: '{user.id}' }", {"OTEL_LOGS_EXPORTER": "console"},
         "OTEL_LOGS_EXPORTER is 'console', which cannot send headers"),
        ("resource_per: user.id\nheaders: { 'a b': '{user.id}' }", {}, "'a b' can be no header"),
    ],
)  # fmt: skip
def test_mistakes_are_told_at_the_start(
    place: Place, text: str, variables: dict[str, str], words: str
) -> None:
    """Each with its remedy."""
    config = place.folder / "settings.yaml"
    config.write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        load_settings({}, {"ALLOY_API_KEY": "key"} | variables, file=str(config))
    assert words in "\n".join(raised.value.mistakes)


def test_the_variable_takes_commas(place: Place) -> None:
    """As `audit` does."""
    given = {"ALLOY_API_KEY": "key", "OTEL_ALLOY_RESOURCE_PER": "user.id, team.id,user.id"}
    assert load_settings({}, given).resource_per == ("user.id", "team.id")
    assert load_settings({}, {"ALLOY_API_KEY": "key"}).resource_per == ()


def test_check_names_a_tenant_too(place: Place) -> None:
    """A backend with tenants refuses what names none: `check` asks it as for an execution without
    customer."""
    place.judge = lambda received: None if TENANT in received.headers else Answer(status=401)
    config = place.folder / "settings.yaml"
    config.write_text('resource_per: [user.id]\nheaders: { X-Scope-OrgID: "{user.id}" }\n')
    done = place.command("check", "--send-test", "--config", str(config))
    assert done.code == 0, done.out
    assert {received.headers[TENANT] for received in place.otlp.requests} == {"!none"}
