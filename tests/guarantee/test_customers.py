"""Several destinations and the real process, threads and sockets: killed while it delivers to them;
and one that is well among many that are not."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from otel_alloy.destinations.events import DestinationsLooked
from otel_alloy.mapping import semconv
from otel_alloy.pipeline.receiver import Receiver
from otel_alloy.testing.otlp_endpoint import Answer, OtlpEndpoint, Received, attributes

from .scale import scaled
from .test_crashes import at_least

if TYPE_CHECKING:
    from conftest import Place

BATCH, CHUNK = 20, 160
PATIENCE = 120.0


class Customer:
    """An endpoint that counts what it took by its bytes. `busy`: answers 503 to each fifth."""

    def __init__(self, *, busy: bool = False) -> None:
        self.copies: Counter[bytes] = Counter()
        self.users: set[str] = set()
        self.keys: set[str | None] = set()
        self._busy = busy
        self._lock = threading.Lock()
        self.endpoint = OtlpEndpoint(self._receive, store=False)

    def _receive(self, request: Received) -> Answer | None:
        with self._lock:
            self.keys.add(request.headers.get("authorization"))
            if self._busy and self.endpoint.request_count % 5 == 4:
                return Answer(status=503, headers={"Retry-After": "0"})
            for item in request.items():
                self.copies[item.record.SerializeToString()] += 1
                self.users.add(str(attributes(item.record.attributes)[semconv.USER_ID]))
        return None

    def has(self, executions: int, end: OtlpEndpoint) -> bool:
        return len(self.copies) >= 2 * executions

    def settings(self, match: dict[str, Any], key: str) -> dict[str, Any]:
        headers = {"authorization": key}
        return {
            "match": match,
            "otlp": {"endpoint": self.endpoint.http_endpoint, "headers": headers},
        }


def test_killed_while_it_delivers_to_customers(place: Place) -> None:
    """SIGKILL in the middle of that, again and again: each customer gets each execution of theirs,
    and nothing of another; what comes twice is the same bytes, and at most a chunk per kill."""
    kills = scaled(4, 12)
    ended = [r for r in place.fill(1500) if r["message"] in ("executionFinished", "executionError")]
    owned = Counter(record["userId"] for record in ended)
    (user, of_user), *_ = owned.most_common(1)
    one, all_of_them = Customer(), Customer(busy=True)
    with one.endpoint, all_of_them.endpoint:
        settings = {
            "destinations": {
                "one": one.settings({"user.id": user}, "canary-one"),
                "all": all_of_them.settings({"user.id": "*"}, "canary-all"),
            }
        }
        (place.folder / "settings.json").write_text(json.dumps(settings))
        words = ("run", "--config", "settings.json", "--since", "60d")
        variables = {"OTEL_ALLOY_BATCH_SIZE": str(BATCH)}
        for number in range(kills):
            watched = (one, all_of_them)[number % 2].endpoint
            least = watched.request_count + 2 + number % 4
            process = place.start(*words, **variables)
            assert watched.wait_for(partial(at_least, least), PATIENCE)
            process.send_signal(signal.SIGKILL)
            place.end(process)
            assert process.returncode == -signal.SIGKILL
        process = place.start(*words, **variables)
        for customer, wanted in ((one, of_user), (all_of_them, len(ended))):
            customer.endpoint.wait_for(partial(customer.has, wanted), PATIENCE)
        process.terminate()
        done = place.end(process)
        assert done.code == 0, done.err
    for customer, wanted in ((one, of_user), (all_of_them, len(ended))):
        assert len(customer.copies) == 2 * wanted
        assert sum(customer.copies.values()) - 2 * wanted <= 2 * kills * (CHUNK + BATCH)
    assert one.users == {user} and all_of_them.users == set(owned)
    assert (one.keys, all_of_them.keys) == ({"canary-one"}, {"canary-all"})
    assert set(place.bytes_sent("traces")) <= all_of_them.copies.keys()


@contextmanager
def silent() -> Iterator[str]:
    """An endpoint that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_one_that_is_well_does_not_wait_for_those_that_hang(place: Place) -> None:
    """Thirty never answer, thirty take their time; one that is served after them by name gets all
    of its executions, and later ones, before a single one of those requests has timed out."""
    release = Event()
    hanging = [f"a-hangs-{number}" for number in range(30)]
    failed: set[str] = set()

    def observe(event: object) -> None:
        if isinstance(event, DestinationsLooked):
            failed.update(event.failing)

    def slowly(request: Received) -> None:
        release.wait(1.5)

    well = Customer()

    with ExitStack() as stack:
        ways_out = stack.enter_context(ExitStack())
        settings: dict[str, Any] = {}
        for name in hanging:
            otlp = {"endpoint": ways_out.enter_context(silent()), "timeout": 300_000}
            settings[name] = {"match": {"user.id": "*"}, "otlp": otlp}
        for number in range(30):
            endpoint = stack.enter_context(OtlpEndpoint(slowly, store=False)).http_endpoint
            one = {"match": {"user.id": "*"}, "otlp": {"endpoint": endpoint}}
            settings[f"b-slow-{number}"] = one
        stack.enter_context(well.endpoint)
        settings["z-well"] = well.settings({"user.id": "*"}, "canary-well")
        receiver = Receiver(
            place.settings(destinations=settings, collection_interval=1), observe=observe
        )
        wanted = len(place.ended(place.fill(100)))
        thread = Thread(target=receiver.run, daemon=True)
        thread.start()
        try:
            assert well.endpoint.wait_for(partial(well.has, wanted), PATIENCE)
            place.now += 3600
            wanted += len(place.ended(place.fill(50, days=0.03)))
            assert well.endpoint.wait_for(partial(well.has, wanted), PATIENCE)
            assert not failed, "one of them has timed out before"
        finally:
            release.set()
            ways_out.close()
            receiver.stop()
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert set(well.copies.values()) == {1} and len(well.copies) == 2 * wanted
    assert well.keys == {"canary-well"}
