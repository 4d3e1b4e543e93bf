"""`otel-alloy destinations …`: what people see of each customer's endpoint, what they can do about
it, and that no secret is ever shown."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_alloy.alloy.timestamps import to_text
from otel_alloy.checkpoint.outbox import Entry, Sent
from otel_alloy.checkpoint.store import Progress, RejectedRecord, Settlement, Store, open_store
from otel_alloy.testing.otlp_endpoint import Answer, OtlpEndpoint

if TYPE_CHECKING:
    from conftest import Finished, Place

CANARY = "canary-1618033988"
NOW = 1_760_000_000_000
EXAMPLE = Path(__file__).parents[2] / "examples" / "destinations"


class Customers:
    """Destinations `acme` (in the settings) and `globex` (in a folder) with secrets, beside the
    checkpoint of a place."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.folder = place.folder / "destinations"
        self.folder.mkdir()
        secrets = place.folder / "secrets" / "globex"
        secrets.mkdir(parents=True)
        (secrets / "header").write_text(f"Bearer {CANARY}\n")
        self.write("http://127.0.0.1:1", f"{secrets}/header")
        (place.folder / "settings.yaml").write_text(
            f"""
            destinations_dir: {self.folder}
            destinations_policy: {{ secrets_dir: {secrets.parent} }}
            destinations:
              acme:
                match: {{ user.id: [u_17, u_18], outcome: error }}
                otlp:
                  endpoint: "http://user:{CANARY}@127.0.0.1:1?key={CANARY}"
                  headers: {{ x-key: "{CANARY}" }}
                  logs: none
                privacy: {{ user.email: drop }}
                rules: [ {{ name: some, match: {{ duration: "<5s" }}, sample: 0.5 }} ]
                resource: {{ tenant.key: "{CANARY}" }}
            """
        )

    def write(self, endpoint: str, secret: str) -> None:
        """The file about `globex`."""
        (self.folder / "globex.yaml").write_text(
            f"match: {{ user.id: g }}\n"
            f'otlp: {{ endpoint: "{endpoint}", headers: {{ authorization: "${{file:{secret}}}" }}}}'
        )

    def command(self, *words: str, **environment: str) -> Finished:
        """`otel-alloy destinations …`, which shows no secret and no traceback."""
        done = self.place.command(
            *("destinations", *words), OTEL_ALLOY_CONFIG="settings.yaml", **environment
        )
        assert CANARY not in done.out + done.err
        assert "Traceback" not in done.err
        return done

    def listed(self) -> dict[str, dict[str, object]]:
        """What `list --json` says, by name."""
        done = self.command("list", "--json")
        return {one["destination"]: one for one in json.loads(done.out)}

    def store(self) -> closing[Store]:
        """The checkpoint."""
        return closing(open_store(f"sqlite:///{self.place.storage}", exclusive=False))

    def put(self, destination: str, *created: int) -> None:
        """Executions that wait for it, of these createdAt (Unix ms)."""
        entries = [Entry(b"s", b"l", c, f"r{c}", "ended", "{}") for c in created]
        with self.store() as store:
            store.add({"default": ""})
            settlement = Settlement(Progress(NOW), outbox={destination: entries}, at=NOW)
            store.settle("default", settlement)


@pytest.fixture
def customers(place: Place) -> Customers:
    return Customers(place)


def test_list_tells_how_each_one_is(customers: Customers) -> None:
    """Every destination has its line and its object: what waits, what is to be read again, what was
    delivered, refused and had no more, and its state; looking creates no checkpoint. The exit code
    is 1 where one is failing or disabled."""
    done = customers.command("list")
    assert done.code == 0 and not customers.place.storage.exists()
    assert done.out.splitlines() == [
        "acme  ok  0 waiting, 0 delivered",
        "globex  ok  0 waiting, 0 delivered",
    ]
    customers.put("acme", *range(1, 4))
    customers.put("gone", 7)
    with customers.store() as store:
        outbox = store.outbox
        assert outbox.spill("acme", 0, 0, ()) == 3
    customers.put("acme", 5, 6)
    with customers.store() as store:
        (packet,) = store.outbox.take("acme", 10**6, 10)
        refused = RejectedRecord("default", "logs", "no", "ended", "{}", destination="acme")
        store.outbox.sent([Sent("acme", [packet.number], 2, [refused])], NOW)
        of_main = RejectedRecord("default", "logs", "no", "ended", "{}")
        store.settle("default", Settlement(Progress(NOW), rejected=[of_main]))
        assert store.rejected_by_destination() == {"acme": 1}
        store.outbox.pause("globex", NOW)
    customers.put("acme", 8, 9)
    assert customers.command("list").code == 0
    found = customers.listed()
    assert {name: one["state"] for name, one in found.items()} == {
        **{"acme": "ok", "globex": "paused", "gone": "removed"}
    }
    acme = found["acme"]
    assert (acme["waiting"], acme["read_again"], acme["delivered"]) == (2, 3, 1)
    assert (acme["set_aside"], acme["missing"]) == (1, 0)
    assert (acme["oldest"], acme["delivered_at"]) == (to_text(NOW), to_text(NOW))
    assert acme["read_again_from"] == to_text(1) and int(str(acme["bytes"])) > 0
    assert found["globex"]["paused_since"] == to_text(NOW)

    with customers.store() as store:
        store.outbox.failed({"acme": "HTTP 503"}, NOW)
    done = customers.command("list")
    assert done.code == 1 and "acme  failing  2 waiting (" in done.out
    assert "3 to be read again, 1 delivered, 1 set aside: HTTP 503\n" in done.out
    with customers.store() as store:
        store.outbox.failed({"acme": None}, NOW)
    (customers.folder / "globex.yaml").write_text("match: [")
    done = customers.command("list")
    assert (
        done.code == 1
        and "globex  disabled" in done.out
        and "globex.yaml: line 1, column 9: it is not YAML" in done.out
    )


def test_show_tells_the_settings_without_secrets(customers: Customers) -> None:
    """`show` has the match and the rules in words, endpoint, names of headers and resource
    attributes, what waits and which createdAt is to be read again; no value that may be secret."""
    customers.put("acme", 1_000, 2_000)
    with customers.store() as store:
        store.outbox.spill("acme", 0, 0, ())
        store.outbox.failed({"acme": "HTTP 503"}, NOW)
    done = customers.command("show", "acme")
    assert done.code == 0
    for words in (
        "acme  failing  0 waiting, 2 to be read again",
        f"to be read again: created from {to_text(1_000)} to {to_text(2_000)}",
        f"last error: HTTP 503 (since {to_text(NOW)})",
        "match: user.id is u_17 or u_18 and outcome is error",
        "rules: some: sample 0.5 where duration is <5s",
        "traces: endpoint http://127.0.0.1:1/v1/traces, protocol http/protobuf, compression none, "
        "headers authorization; x-key",
        "logs: none",
        "privacy: user.email drop, user.full_name keep, error_message mask",
        "resource: tenant.key",
    ):
        assert words in done.out, done.out
    shown = json.loads(customers.command("show", "globex", "--json").out)
    assert shown["settings"]["logs"]["headers"] == ["authorization"]
    assert shown["read_again_created"] is None
    for words in ("show", "test", "pause", "resume", "drain"):
        done = customers.command(words, "nobody")
        assert done.code == 2 and "known are acme, globex" in done.err


def test_pause_and_resume(customers: Customers) -> None:
    """`pause` is noted with the moment of the first time, `resume` forgets it; both also where
    there is no checkpoint yet."""
    assert customers.command("pause", "acme").code == 0
    since = customers.listed()["acme"]["paused_since"]
    assert since is not None
    assert customers.command("pause", "acme").code == 0
    assert customers.listed()["acme"]["paused_since"] == since
    assert customers.command("resume", "acme").code == 0
    assert customers.listed()["acme"]["state"] == "ok"


def test_drain_without_hope(customers: Customers) -> None:
    """`drain` ends at once where nothing waits (0), and where waiting would not help (1), and says
    what to do."""
    assert customers.command("drain", "acme").code == 0
    customers.put("acme", 1)
    customers.put("gone", 1)
    for name, words in (("acme", "start `otel-alloy run`"), ("gone", "it is removed: ")):
        done = customers.command("drain", name)
        assert done.code == 1 and f"1 executions wait for {name}" in done.err and words in done.err
    customers.command("pause", "acme")
    assert "it is paused: since" in customers.command("drain", "acme").err
    assert customers.command("drain", "acme", "--timeout", "soon").code == 2
    assert customers.command("drain", "acme", "--yes").code == 2


def test_drain_looks_on_while_a_run_delivers(customers: Customers) -> None:
    """Beside a process that holds the checkpoint, `drain` waits until nothing waits, and no longer
    than --timeout."""
    customers.put("acme", 1, 2)
    url = f"sqlite:///{customers.place.storage}"
    with closing(open_store(url, exclusive=True)) as store:  # as `run` has it
        done = customers.command("drain", "acme", "--timeout", "1s")
        assert done.code == 1 and "2 executions wait for acme still" in done.err
        process = customers.place.start(
            *("destinations", "drain", "acme"), OTEL_ALLOY_CONFIG="settings.yaml"
        )
        assert process.stderr is not None
        assert process.stderr.readline() == "2 executions wait for acme\n"
        (packet,) = store.outbox.take("acme", 10**6, 10)
        store.outbox.sent([Sent("acme", [packet.number], 2)], NOW)
        done = customers.place.end(process)
        assert (done.code, done.out) == (0, "acme: nothing waits\n")
        store.outbox.pause("acme", None)
        customers.put("acme", 3)
        process = customers.place.start(
            *("destinations", "drain", "acme"), OTEL_ALLOY_CONFIG="settings.yaml"
        )
        assert process.stderr is not None and process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert customers.place.end(process).code == 143


def test_drop_forgets_only_what_was_meant(customers: Customers) -> None:
    """`drain --drop` forgets what waits for one destination, also for one that the settings have no
    more, and only where that was confirmed; a pause stays."""
    for name in ("acme", "gone"):
        customers.put(name, 1, 2)
    done = customers.command("drain", "gone", "--drop")
    assert done.code == 2 and "2 executions wait for gone; say --yes" in done.err
    assert customers.listed()["gone"]["waiting"] == 2
    done = customers.command("drain", "gone", "--drop", "--yes")
    assert (done.code, done.out) == (0, "gone: 2 forgotten\n")
    assert set(customers.listed()) == {"acme", "globex"}
    assert customers.listed()["acme"]["waiting"] == 2
    customers.command("pause", "acme")
    assert customers.command("drain", "acme", "--drop", "--yes").code == 0
    acme = customers.listed()["acme"]
    assert (acme["waiting"], acme["state"]) == (0, "paused")


def test_a_test_goes_through_the_destinations_own_settings(customers: Customers) -> None:
    """`test` sends what the destination's own section says, with its header and none of the main
    one's; with --send-test a span and a log record. What fails names the destination's setting."""
    secret = f"{customers.place.folder}/secrets/globex/header"
    main = {"OTEL_EXPORTER_OTLP_HEADERS": f"x-main={CANARY}"}
    with OtlpEndpoint() as otlp:
        customers.write(otlp.http_endpoint, secret)
        done = customers.command("test", "globex", "--send-test", **main)
        assert done.code == 0, done.out
        assert [request.headers.get("authorization") for request in otlp.requests] == (
            [f"Bearer {CANARY}"] * 4
        )
        assert not any("x-main" in request.headers for request in otlp.requests)
        assert len(list(otlp.items("traces"))) == len(list(otlp.items("logs"))) == 1
    assert not customers.place.otlp.requests
    with OtlpEndpoint(lambda received: Answer(status=401)) as otlp:
        customers.write(otlp.http_endpoint, secret)
        done = customers.command("test", "globex", "--json")
        findings = json.loads(done.out)["findings"]
        assert done.code == 1 and len(findings) == 2
        assert "check destinations.globex.otlp.headers" in findings[0]["answer"]
        assert "OTEL_EXPORTER_OTLP" not in done.out
    (customers.folder / "globex.yaml").write_text("match: [")
    done = customers.command("test", "globex")
    assert (
        done.code == 1 and "FAIL  destination globex: destination globex is disabled: " in done.out
    )


def test_the_policy_holds_for_a_test(customers: Customers) -> None:
    """What the policy forbids is refused before anything is sent."""
    path = customers.place.folder / "settings.yaml"
    path.write_text(path.read_text().replace("policy: {", "policy: { public_only: true,"))
    with OtlpEndpoint() as otlp:
        secret = f"{customers.place.folder}/secrets/globex/header"
        customers.write(otlp.http_endpoint, secret)
        done = customers.command("test", "globex")
        assert done.code == 1 and "destinations_policy" in done.out
        assert not otlp.requests


def test_check_leaves_out_a_main_destination_that_gets_nothing(customers: Customers) -> None:
    """With `main_destination: none`, `check` tries no endpoint that nothing is sent to."""
    done = customers.place.command(
        *("check", "--config", "settings.yaml"), OTEL_ALLOY_MAIN_DESTINATION="none"
    )
    assert done.code == 0 and "OTLP traces" not in done.out, done.out + done.err
    assert not customers.place.otlp.requests


def test_names_are_completed(customers: Customers) -> None:
    """The shell completes the names of destinations, those that only the checkpoint knows too."""
    customers.put("gone", 1)
    done = customers.place.command(
        OTEL_ALLOY_CONFIG="settings.yaml",
        _OTEL_ALLOY_COMPLETE="bash_complete",
        COMP_WORDS="otel-alloy destinations show g",
        COMP_CWORD="3",
    )
    assert done.out.splitlines() == ["plain,globex", "plain,gone"]


def test_the_example_works(place: Place) -> None:
    """examples/destinations, as its README says it: both destinations are there and their endpoints
    get what their settings say."""
    folder = place.folder / "example"
    subprocess.run(["cp", "-r", EXAMPLE, folder], check=True)
    (folder / "secrets").mkdir()
    (folder / "secrets" / "acme").write_text(f"Bearer {CANARY}")
    os.chmod(folder / "secrets" / "acme", stat.S_IRUSR)
    acme = folder / "destinations" / "acme.yaml"
    with OtlpEndpoint() as theirs, OtlpEndpoint() as other:
        acme.write_text(acme.read_text().replace("http://localhost:4338", theirs.http_endpoint))
        place.folder = folder
        more = {"GLOBEX_ENDPOINT": other.http_endpoint}
        done = place.command("destinations", "list", "--config", "settings.yaml", **more)
        assert [line.split()[:2] for line in done.out.splitlines()] == [
            *(["acme", "ok"], ["globex", "ok"]),
        ]
        for name, endpoint in (("acme", theirs), ("globex", other)):
            words = ("destinations", "test", name, "--config", "settings.yaml")
            done = place.command(*words, **more)
            assert done.code == 0 and CANARY not in done.out + done.err, done.out
            assert len(endpoint.requests) == 2
        assert theirs.requests[0].headers["authorization"] == f"Bearer {CANARY}"
        assert "authorization" not in other.requests[0].headers
