"""Each customer's executions at that customer's own endpoint: the whole receiver, with real sockets
and a real store, and endpoints that fail in ways of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from otel_alloy.checkpoint.store import open_store
from otel_alloy.mapping import semconv
from otel_alloy.testing.otlp_endpoint import Answer, OtlpEndpoint, Received, attributes
from otel_alloy.testing.simulator import Record

if TYPE_CHECKING:
    from conftest import Place

Judge = Callable[[Received], Answer | None]
TERMINAL = ("executionFinished", "executionError")


def by_user(records: list[Record]) -> dict[str, list[str]]:
    """The executions that ended, by the user they ran for."""
    found: dict[str, list[str]] = {}
    for record in records:
        if record["message"] in TERMINAL:
            found.setdefault(record["userId"], []).append(record["data"]["executionId"])
    return found


def got(endpoint: OtlpEndpoint, signal: Any = "traces") -> Counter[str]:
    return Counter(
        attributes(item.record.attributes)[semconv.EXECUTION_ID] for item in endpoint.items(signal)
    )


class Customers:
    """Endpoints, one for each user, as `destinations` names them."""

    def __init__(self, users: list[str], judges: Mapping[int, Judge]) -> None:
        self.users = users
        self.judges = dict(judges)
        self.endpoints = [OtlpEndpoint(self._judge(number)) for number in range(len(users))]

    def _judge(self, number: int) -> Judge:
        def judge(received: Received) -> Answer | None:
            found = self.judges.get(number)
            return None if found is None else found(received)

        return judge

    def settings(self, **more: Any) -> dict[str, Any]:
        return {
            f"d{number}": {
                "match": {"user.id": user},
                "otlp": {
                    "endpoint": endpoint.http_endpoint,
                    "headers": {"authorization": f"canary-{number}"},
                },
                **more,
            }
            for number, (user, endpoint) in enumerate(zip(self.users, self.endpoints, strict=True))
        }


@contextmanager
def customers(users: list[str], **judges: Judge) -> Iterator[Customers]:
    with ExitStack() as stack:
        found = Customers(users, {int(name[1:]): judge for name, judge in judges.items()})
        for endpoint in found.endpoints:
            stack.enter_context(endpoint)
        yield found


def refuse(received: Received) -> Answer:
    return Answer(status=503)


def test_each_gets_its_own_once_and_nothing_of_another(place: Place) -> None:
    """Executions, headers and resource; the main destination gets everything, and its headers stay
    its own."""
    owned = by_user(place.fill(300))
    with customers(list(owned)[:3]) as there:
        settings = there.settings(resource={"deployment.environment.name": "acme-production"})
        headers = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=canary-main"}
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": place.otlp.http_endpoint, **headers}
        place.receive(destinations=settings, environment=environment)
        for number, endpoint in enumerate(there.endpoints):
            for kind in ("traces", "logs"):
                assert got(endpoint, kind) == Counter(owned[there.users[number]])
            seen = {received.headers.get("authorization") for received in endpoint.requests}
            assert seen == {f"canary-{number}"}
            for item in endpoint.items("traces"):
                assert "acme-production" in str(item.resource)
        place.assert_exactly_once(e for some in owned.values() for e in some)
        assert {r.headers["authorization"] for r in place.otlp.requests} == {"canary-main"}
        assert not any("acme-production" in str(i.resource) for i in place.otlp.items("traces"))
    with closing(open_store(f"sqlite:///{place.storage}", exclusive=False)) as store:
        assert all(one.executions == 0 for one in store.outbox.backlogs().values())


@pytest.mark.parametrize("main", ["unmatched", "none"])
def test_the_main_destination_gets_what_it_is_to_get(place: Place, main: str) -> None:
    """What no destination matched, or nothing at all; nothing is lost by that."""
    owned = by_user(place.fill(200))
    users = list(owned)
    with customers(users[:2]) as there:
        place.receive(destinations=there.settings(), main_destination=main)
        for number, endpoint in enumerate(there.endpoints):
            assert got(endpoint) == Counter(owned[users[number]])
        rest = [e for user in users[2:] for e in owned[user]] if main == "unmatched" else []
        place.assert_exactly_once(rest)


def test_a_dead_destination_holds_up_nobody_and_gets_it_all_later(place: Place) -> None:
    """The checkpoint does not wait for it; what it has not acknowledged lies in the outbox, over
    restarts, and is delivered once when it is back."""
    owned = by_user(place.fill(300))
    with customers(list(owned)[:2], d0=refuse) as there:
        settings = there.settings()
        place.receive(destinations=settings)
        assert got(there.endpoints[0]) == Counter()
        assert got(there.endpoints[1]) == Counter(owned[there.users[1]])
        place.assert_exactly_once(e for some in owned.values() for e in some)
        there.judges.clear()
        place.receive(destinations=settings)
        for number, endpoint in enumerate(there.endpoints):
            assert got(endpoint) == Counter(owned[there.users[number]])
        place.assert_exactly_once(e for some in owned.values() for e in some)


def test_a_poisoned_record_is_set_aside_for_its_destination_alone(place: Place) -> None:
    """The destination's other executions arrive, and so does this one everywhere else; sent again
    it goes to that destination only, with its headers."""
    owned = by_user(place.fill(200))
    user = max(owned, key=lambda name: len(owned[name]))
    poison = owned[user][1]

    def judge(received: Received) -> Answer | None:
        mine = {attributes(i.record.attributes)[semconv.EXECUTION_ID] for i in received.items()}
        return Answer(status=400) if poison in mine else None

    with customers([user], d0=judge) as there:
        place.receive(destinations=there.settings())
        wanted = Counter(owned[user])
        wanted.subtract([poison])
        assert got(there.endpoints[0]) == +wanted
        place.assert_exactly_once(e for some in owned.values() for e in some)
        (aside,) = place.rejected()
        assert (aside["destination"], aside["signals"]) == ("d0", "traces,logs")
        there.judges.clear()
        before = len(place.otlp.requests)
        (place.folder / "settings.json").write_text(
            __import__("json").dumps({"destinations": there.settings()})
        )
        done = place.command("rejected", "retry", "--config", "settings.json")
        assert done.code == 0, done.err + done.out
        assert got(there.endpoints[0]) == Counter(owned[user])
        assert len(place.otlp.requests) == before


def test_privacy_and_rules_are_each_destination_s_own(place: Place) -> None:
    """What is dropped for one is there for another; a rule of one keeps back nothing elsewhere."""
    owned = by_user(place.fill(200, error_rate=0.3))
    user = max(owned, key=lambda name: len(owned[name]))
    with customers([user, user]) as there:
        settings = there.settings()
        settings["d0"] |= {
            "privacy": {"user.email": "drop"},
            "rules": [{"match": {"outcome": "success"}, "drop": True}],
        }
        place.receive(destinations=settings)
        kept = [attributes(i.record.attributes) for i in there.endpoints[0].items("traces")]
        assert kept and all(one[semconv.EXECUTION_OUTCOME] == "error" for one in kept)
        assert not any(semconv.USER_EMAIL in one for one in kept)
        assert got(there.endpoints[1]) == Counter(owned[user])
        whole = [attributes(i.record.attributes) for i in there.endpoints[1].items("traces")]
        assert any(semconv.USER_EMAIL in one for one in whole)


def test_rules_for_all_keep_back_and_count(place: Place) -> None:
    """What a rule drops goes nowhere, comes never again, and is counted by the rule."""
    records = place.fill(200, error_rate=0.3)
    failed = [r["data"]["executionId"] for r in records if r["message"] == "executionError"]
    rules = [{"name": "well", "match": {"outcome": "success"}, "drop": True}]
    place.receive(rules=rules)
    place.assert_exactly_once(failed)
    place.receive(rules=rules)
    place.assert_exactly_once(failed)
    with closing(open_store(f"sqlite:///{place.storage}", exclusive=False)) as store:
        found = store.filtered("default", 0, 2**50)
    assert found == {"well": len(place.ended(records)) - len(failed)}
