"""Each customer's executions at that customer's own endpoint: the whole receiver, with real sockets
and a real store, and endpoints that fail in ways of their own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from otel_alloy.checkpoint.store import SINCE, open_store
from otel_alloy.mapping import semconv
from otel_alloy.pipeline.receiver import Receiver
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
        assert (
            place.command("rejected", "list", "--destination", "d1").out == "nothing is set aside\n"
        )
        assert "default for d0" in place.command("rejected", "list", "--destination", "d0").out
        there.judges.clear()
        before = len(place.otlp.requests)
        (place.folder / "settings.json").write_text(json.dumps({"destinations": there.settings()}))
        words = ("rejected", "retry", "--config", "settings.json", "--destination")
        assert place.command(*words, "d1").out == "0 delivered, 0 still set aside\n"
        done = place.command(*words, "d0")
        assert (done.code, done.out) == (0, "1 delivered, 0 still set aside\n"), done.err
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


def test_the_audit_tells_what_rules_kept_back(place: Place) -> None:
    """It is settled, not missing; and nobody asks Alloy for the blocks of what nobody gets."""
    records = place.fill(200, days=0.9, error_rate=0.5)
    failed = [r for r in records if r["message"] == "executionError"]
    rules = [{"name": "failures", "match": {"outcome": "error"}, "drop": True}]
    (place.folder / "settings.json").write_text(json.dumps({"rules": rules}))
    place.once("--config", "settings.json", OTEL_ALLOY_ENRICH="failed")
    asked = {request.path for request in place.alloy.requests}
    assert asked == {"/logs"}
    done = place.command("audit", "--json", "--config", "settings.json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["missing"] == 0
    kept_back = sum(one["filtered"].get("failures", 0) for one in found["stretches"])
    assert kept_back == len(failed)
    shown = place.command("audit", "--config", "settings.json")
    assert f"of which rules kept back {len(failed):,} executions" in shown.out


@contextmanager
def running(place: Place, **settings: Any) -> Iterator[Receiver]:
    """The receiver at work, until the end of the block."""
    receiver = Receiver(place.settings(collection_interval=1, **settings))
    thread = Thread(target=receiver.run, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.stop()
        thread.join(60)
        assert not thread.is_alive()


def until(done: Callable[[], bool], arrived: Event, within: float = 60.0) -> None:
    """Looks again whenever something arrived, or a quarter of a second has passed."""
    end = monotonic() + within
    while not done():
        assert monotonic() < end, "it did not come"
        arrived.wait(0.25)
        arrived.clear()


def test_what_there_is_no_room_for_is_read_again_from_alloy(place: Place) -> None:
    """While a destination is dead its outbox keeps to its size, and when it is back it gets each
    of its executions once: what is left in the outbox and what is read again."""
    wanted = Counter(place.ended(place.fill(2500)))
    arrived = Event()

    def judge(received: Received) -> Answer | None:
        arrived.set()
        return None

    with customers(["*"], d0=refuse) as there:
        settings = {"destinations": there.settings(), "outbox": {"max_bytes": 300_000}}
        place.receive(**settings)
        with running(place, **settings):
            store = open_store(f"sqlite:///{place.storage}", exclusive=False)
            with closing(store):

                def fits() -> bool:
                    backlog = store.outbox.backlogs()["d0"]
                    assert backlog.executions + backlog.recall == wanted.total()
                    return backlog.recall > 0 and backlog.bytes <= 300_000

                until(fits, arrived)
                there.judges[0] = judge
                until(lambda: store.outbox.backlogs()["d0"].delivered >= wanted.total(), arrived)
                assert store.outbox.backlogs()["d0"].recall == 0
        for kind in ("traces", "logs"):
            assert got(there.endpoints[0], kind) == wanted
        assert place.bytes_sent("traces") == Counter(
            i.record.SerializeToString(deterministic=True)
            for i in there.endpoints[0].items("traces")
        )


def test_a_customer_that_comes_later_gets_its_past_and_its_future_once(place: Place) -> None:
    """`backfill --destination` brings what was settled before `run` knew of it, `run` the rest."""
    past = by_user(place.fill(300))
    user = max(past, key=lambda name: len(past[name]))
    place.receive()
    with customers([user]) as there:
        settings = {"destinations": there.settings()}
        (place.folder / "settings.json").write_text(json.dumps(settings))
        place.now += 3600
        more = by_user(place.fill(200, days=0.03))
        place.receive(**settings)
        before = len(place.otlp.requests)
        words = ("backfill", "--from", "60d", "--destination", "d0", "--config", "settings.json")
        done = place.command(*words)
        assert done.code == 0, done.err
        assert got(there.endpoints[0]) == Counter(past[user]) + Counter(more.get(user, ()))
        assert len(place.otlp.requests) == before
        assert place.command(*words).code == 0
        assert got(there.endpoints[0]) == Counter(past[user]) + Counter(more.get(user, ()))
        done = place.command(
            "backfill", "--from", "60d", "--destination", "d7", "--config", "settings.json"
        )
        assert done.code == 2 and "known are d0" in done.err


def test_destinations_come_and_go_while_it_runs(place: Place) -> None:
    """A file that appears is served with the next cycle, one that is wrong waits and holds up
    nobody, and what lies ready for it is delivered when it is right again."""
    owned = by_user(place.fill(200))
    users = sorted(owned, key=lambda name: -len(owned[name]))[:2]
    folder = place.folder / "destinations"
    folder.mkdir()
    arrived = Event()

    def judge(received: Received) -> Answer | None:
        arrived.set()
        return None

    with customers(users, d0=judge, d1=judge) as there:
        files = {name: json.dumps(one) for name, one in there.settings().items()}
        (folder / "d0.yaml").write_text(files["d0"])
        with running(place, destinations_dir=str(folder)) as receiver:
            until(lambda: got(there.endpoints[0]) == Counter(owned[users[0]]), arrived)
            (folder / "d1.yaml").write_text(files["d1"])
            receiver.reload()
            store = open_store(f"sqlite:///{place.storage}", exclusive=False)
            with closing(store):
                until(lambda: SINCE + "d1" in store.learned("default"), arrived)
            (folder / "d0.yaml").write_text("match: {nonsense: 1}")
            receiver.reload()
            place.now += 3600
            more = by_user(place.fill(400, days=0.03))
            until(lambda: got(there.endpoints[1]) == Counter(more[users[1]]), arrived)
            (folder / "d0.yaml").write_text(files["d0"])
            receiver.reload()
            wanted = Counter(owned[users[0]]) + Counter(more[users[0]])
            until(lambda: got(there.endpoints[0]) == wanted, arrived)
