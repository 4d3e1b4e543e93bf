"""`otel-alloy rejected retry`: what is sent again is what was refused, as its own source's."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

from otel_alloy.checkpoint.store import Progress, RejectedRecord, Settlement, open_store
from otel_alloy.pipeline.factory import Factory
from otel_alloy.pipeline.rejected import retry_rejected
from otel_alloy.runtime import system_runtime
from otel_alloy.testing.otlp_endpoint import Answer, Received, attributes

if TYPE_CHECKING:
    from conftest import Place

NAMES = {"resource": {"service.name": "their-alloy", "team": "a"}}


def refused(received: Received) -> Answer:
    return Answer(status=400)


def test_with_the_resource_of_its_own_source(place: Place) -> None:
    """A record whose source is not configured any more, or has another resource by now, is sent
    with the resource that it was set aside with: byte for byte what the first sending was."""
    place.fill(1, lifecycle="terminal")
    first: list[bytes] = []

    def refuse(received: Received) -> Answer:
        first.append(received.body)
        return Answer(status=400)

    place.judge = refuse
    place.receive(sources=[{"name": "theirs", **NAMES}])
    place.judge = lambda received: None
    now_configured = place.settings(sources=[{"name": "ours", "resource": {"team": "b"}}])
    with closing(open_store(now_configured.storage, exclusive=False)) as store:
        done = retry_rejected(Factory(now_configured, system_runtime()), store, ())
        assert (len(done.delivered), done.refused, store.rejected()) == (1, {}, [])
    for signal in ("traces", "logs"):
        (item,) = place.otlp.items(signal)
        found = attributes(item.resource.attributes)
        assert (found["service.name"], found["team"]) == ("their-alloy", "a")
    assert {request.body for request in place.otlp.requests} <= set(first)


def test_where_the_resource_cannot_be_known(place: Place) -> None:
    """A record of an older version kept no resource: its source's is taken while that is
    configured; else the command says so, leaves the record, and ends with 1."""
    (record,) = place.fill(1, lifecycle="terminal")
    place.alloy.store.remove(record["_id"])
    old = [RejectedRecord(s, "traces,logs", "400", "ended", json.dumps(record)) for s in "ab"]
    url = f"sqlite:///{place.storage}"
    with closing(open_store(url)) as store:
        store.load("default", "")
        store.settle("default", Settlement(Progress(1), rejected=old))
    done = place.command("rejected", "retry")
    assert done.code == 1
    assert "its source 'a' is not configured" in done.out and "drop" in done.out
    assert "0 delivered, 2 still set aside" in done.out
    config = place.folder / "settings.yaml"
    config.write_text("sources: [{name: a, resource: {team: a}}]")
    done = place.command("rejected", "retry", "--config", str(config))
    assert done.out.endswith("1 delivered, 1 still set aside\n"), done.out
    (item,) = place.otlp.items("traces")
    assert attributes(item.resource.attributes)["team"] == "a"
    assert [row["source"] for row in place.rejected()] == ["b"]
