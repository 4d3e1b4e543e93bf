"""What people type besides `run`, what they see when something is wrong, and what they never see:
a traceback or a secret."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from otel_alloy.testing.otlp_endpoint import attributes
from otel_alloy.testing.simulator import iso, millis

if TYPE_CHECKING:
    from conftest import Finished, Place

CANARY = "canary-4711"


def assert_discreet(place: Place, *commands: Finished) -> None:
    """No secret and no traceback in what the commands said or left in their folder."""
    for command in commands:
        assert CANARY not in command.out + command.err
        assert "Traceback" not in command.out + command.err
    for path in place.folder.rglob("*"):
        if path.is_file() and path.suffix != ".yaml":
            assert CANARY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("answer", ["401", "403"])
def test_a_refused_key(place: Place, answer: str) -> None:
    """A key that Alloy refuses ends `run` and `check` with exit code 3 and one line that says what
    to look at."""
    place.fill(5)
    place.alloy.configure(api_key="another", forbidden=False)
    if answer == "403":
        place.alloy.configure(api_key=None, forbidden=True)
    run = place.command("run", ALLOY_API_KEY=CANARY)
    assert run.code == 3
    assert (run.out, run.err.count("\n")) == ("", 1)
    assert f"refuses the API key ({answer}); check ALLOY_API_KEY" in run.err
    check = place.command("check", ALLOY_API_KEY=CANARY)
    assert check.code == 3
    assert "FAIL  Alloy (default): API key" in check.out
    assert_discreet(place, run, check)


def test_no_key(place: Place) -> None:
    """Without a key: exit code 2, and the name of the variable to set."""
    del place.environment["ALLOY_API_KEY"]
    for command in ("run", "check"):
        done = place.command(command)
        assert done.code == 2
        assert "  - ALLOY_API_KEY: not set; set it to your Alloy API key, or " in done.err
        assert_discreet(place, done)


def test_all_mistakes_at_once(place: Place) -> None:
    """Whatever is wrong with flags, environment and file is told in one go, each with its name and
    never with a secret; the exit code is 2, and nothing was asked or written."""
    (place.folder / "settings.yaml").write_text(
        f"""
        collection_interval: soon
        pagesize: 10
        privacy_key: {CANARY}
        otlp:
          headers: {{authorization: {CANARY}}}
          speed: fast
        resource: {{a: "${{env:NOT_THERE}}"}}
        """
    )
    done = place.command(
        *("run", "--config", "settings.yaml", "--overlap=-1s", "--batch-size", "many"),
        ALLOY_ENDPOINT=f"https://user:{CANARY}@alloy.example",
        ALLOY_API_KEY=f"bearer {CANARY} {CANARY}",
        OTEL_ALLOY_PAGE_SIZE="0",
        OTEL_ALLOY_SPEED=CANARY,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"ftp://user:{CANARY}@host",
        OTEL_EXPORTER_OTLP_HEADERS=f"authorization={CANARY}",
    )
    assert done.code == 2
    assert done.out == ""
    for name in (
        *("collection_interval in settings.yaml", "pagesize in settings.yaml"),
        *("otlp.speed in settings.yaml", "NOT_THERE", "--overlap", "--batch-size"),
        *("ALLOY_ENDPOINT", "ALLOY_API_KEY", "OTEL_ALLOY_PAGE_SIZE", "OTEL_ALLOY_SPEED"),
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ):
        assert any(name in line for line in done.err.splitlines() if line.startswith("  - ")), name
    assert_discreet(place, done)
    assert not place.alloy.requests
    assert not place.storage.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"api_key: {CANARY}\n  endpoint: [", "settings.yaml, line 2, column 3: it is not YAML"),
        (f"api_key: '{CANARY}", "  1 | api_key: …\n          |          ^"),
        (f"- {CANARY}", "settings.yaml, line 1, column 1: it has to be `name: value` lines"),
        (f"# all\napi_key:{CANARY}\npage_size:30", "settings.yaml, line 2, column 1: it has to be"),
        ("sources: 7", "sources"),
        ("sources: [{name: a}, {name: a}]", "'a'"),
        (f"sources: [{{name: a, api_kee: {CANARY}}}]", "api_kee"),
    ],
)
def test_a_file_that_is_wrong(place: Place, text: str, words: str) -> None:
    """A settings file that cannot be used is named, with the place of the mistake."""
    (place.folder / "settings.yaml").write_text(text)
    done = place.command("run", "--config", "settings.yaml")
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert_discreet(place, done)


def test_wrong_usage(place: Place) -> None:
    """An option, a command or a file that does not exist: exit code 2 and what was meant."""
    for words in (["run", "--sinse", "60d"], ["rum"], ["run", "--config", "not-there.yaml"]):
        done = place.command(*words)
        assert done.code == 2
        assert words[-1] in done.err or words[1] in done.err
        assert_discreet(place, done)
    assert "60d" in place.command("run", "--since", "yesterday").err


def test_secrets_stay_secret(place: Place) -> None:
    """A run through faults of Alloy and of the endpoint, with secrets in every place that takes
    one, shows and keeps none of them."""
    place.fill(50)
    place.alloy.script("500", "html", "429:0", "drop")
    done = place.once(
        ALLOY_API_KEY=f"bearer {CANARY}",
        OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer%20{CANARY}",
        OTEL_ALLOY_PRIVACY_KEY=CANARY,
        OTEL_ALLOY_PRIVACY_USER_EMAIL="hash",
    )
    assert place.otlp.requests[0].headers["authorization"] == f"Bearer {CANARY}"
    assert_discreet(place, done)


def test_one_process_per_checkpoint(place: Place) -> None:
    """A second process on the same checkpoint ends with exit code 1 and says why, does no harm to
    the first one, and looking at the checkpoint is always possible."""
    place.fill(20)
    first = place.start("run", "--since", "60d")
    assert place.otlp.wait_for(lambda otlp: otlp.log_record_count == 20, 30)
    for words in (["run", "--once"], ["checkpoint", "reset", "default"]):
        second = place.command(*words)
        assert (second.code, second.out, second.err.count("\n")) == (1, "", 1)
        assert "another process is using the checkpoint" in second.err
    assert place.command("checkpoint", "show").code == 0
    assert place.command("rejected", "list").code == 0
    first.terminate()
    assert place.end(first).code == 0
    assert place.command("run", "--once").code == 0


@pytest.mark.parametrize("damage", ["overwritten", "cut", "header", "another-database"])
def test_a_damaged_checkpoint(place: Place, damage: str) -> None:
    """A checkpoint that cannot be read ends every command with exit code 1 and a remedy; it is
    never taken for a new one, and never changed."""
    place.fill(200)
    place.once()
    known = place.otlp.request_count
    for path in place.folder.glob("checkpoint.db-*"):
        path.unlink()
    content = place.storage.read_bytes()
    spoiled = {
        "overwritten": b"not a database " * 4096,
        "cut": content[: len(content) // 2],
        "header": b"\0" * 100 + content[100:],
        "another-database": content[:68] + b"\0\0\0\1" + content[72:],  # the application id
    }[damage]
    place.storage.write_bytes(spoiled)
    for words in (["run", "--once"], ["checkpoint", "show"], ["rejected", "list"]):
        done = place.command(*words)
        assert done.code == 1, (words, done.err)
        assert done.err.count("\n") == 1
        assert "checkpoint.db" in done.err
        assert_discreet(place, done)
    assert place.otlp.request_count == known
    assert place.storage.read_bytes() == spoiled


def test_check(place: Place) -> None:
    """`check` says of each part whether it works, sends no data and keeps none."""
    place.fill(20)
    good = place.command("check")
    assert good.code == 0, good.out
    for part in ("configuration", "API key", "createdAt filter", "OTLP traces", "OTLP logs"):
        assert any(part in line for line in good.out.splitlines() if line.startswith("ok ")), part
    assert "note  Alloy (default): clock: " in good.out  # a year away from ours, which is no harm
    assert place.otlp.span_count == place.otlp.log_record_count == 0
    assert not place.storage.exists()

    place.alloy.configure(ignore_filters=True)
    odd = place.command("check")
    assert odd.code == 0
    assert "note  Alloy (default): createdAt filter: ignored" in odd.out

    place.alloy.stop()
    gone = place.command("check", OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"{place.otlp.http_endpoint}/x")
    assert gone.code == 1
    assert "FAIL  Alloy (default)" in gone.out
    assert "ok    OTLP traces" in gone.out
    assert "FAIL  OTLP logs" in gone.out
    assert_discreet(place, good, odd, gone)


def test_id(place: Place) -> None:
    """`id` follows the published recipe, needs no key and no configuration."""
    text = "35SnGU0DUSNP5L26fsmnq"
    digest = hashlib.sha256(f"runalloy.execution:{text}".encode()).hexdigest()
    del place.environment["ALLOY_API_KEY"]
    plain = place.command("id", text)
    assert plain.out == f"trace_id {digest[:32]}\nspan_id  {digest[32:48]}\n"
    told = json.loads(place.command("id", "--json", text).out)
    assert told == {"trace_id": digest[:32], "span_id": digest[32:48]}
    assert plain.err == ""


@pytest.mark.parametrize(
    ("written", "uuid", "told"),
    [
        ("35SnGU0DUSNP5L26fsmnq", "35SnGU0DUSNP5L26fsmnq", ""),
        ("0f8fad5b-d9cb-469f-a165-70867728950e", "0f8fad5b-d9cb-469f-a165-70867728950e", ""),
        (" 35SnGU0DUSNP5L26fsmnq\n", "35SnGU0DUSNP5L26fsmnq", "without what stands around it: 35S"),
        ('"35SnGU0DUSNP5L26fsmnq",', "35SnGU0DUSNP5L26fsmnq", "without what stands around it: 35S"),
        ("X-Alloy-ExecutionUuid: 35SnGU0DUSNP5L26fsmnq", "35SnGU0DUSNP5L26fsmnq", "stands around"),
        ("notauuid", "notauuid", "does not look like an executionUuid of Alloy, such as 35SnGU0D"),
        ("two words", "two words", "does not look like an executionUuid of Alloy"),
        ("68110fea7d181f356acd1bf1", "68110fea7d181f356acd1bf1", "is like an executionId"),
        ("552ee3cef1041c5b427d7f9ec5f43d71", "552ee3cef1041c5b427d7f9ec5f43d71", "like a trace id"),
        ("9e4d23769a60d237", "9e4d23769a60d237", "is like a span id"),
    ],
)
def test_id_of_what_is_pasted(place: Place, written: str, uuid: str, told: str) -> None:
    """What stands around a uuid is left out and said; what is none is computed all the same, as any
    text has ids, with a warning on standard error."""
    digest = hashlib.sha256(f"runalloy.execution:{uuid}".encode()).hexdigest()
    done = place.command("id", written)
    assert (done.code, done.out) == (0, f"trace_id {digest[:32]}\nspan_id  {digest[32:48]}\n")
    assert told in done.err and (done.err == "") == (told == "")


def test_id_of_nothing(place: Place) -> None:
    """There is no id of an empty text."""
    for nothing in ("", " ", '""'):
        done = place.command("id", nothing)
        assert (done.code, done.out) == (2, "") and "EXECUTION_UUID is empty" in done.err


def test_checkpoint(place: Place) -> None:
    """`checkpoint show` tells how far each source is, `set` moves it and `reset` forgets it; what
    is read again arrives with the same bytes. None of them needs a key."""
    key = place.environment.pop("ALLOY_API_KEY")
    assert place.command("checkpoint", "show").out == "no checkpoint yet\n"
    records = place.fill(300)
    place.once(ALLOY_API_KEY=key)
    newest = records[-1]["createdAt"]
    shown = json.loads(place.command("checkpoint", "show", "--json").out)
    assert [(row["source"], row["settled_up_to"]) for row in shown] == [("default", newest)]
    assert place.command("checkpoint", "show").out == f"default: settled up to {newest}\n"

    back = iso(round((place.now - 10 * 86400) * 1000))
    moved = place.command("checkpoint", "set", "default", back)
    assert (moved.code, moved.out) == (0, f"default: begins at {back}\n")
    assert place.command("run", "--once", ALLOY_API_KEY=key).code == 0
    again = {execution for execution, times in place.sent("traces").items() if times == 2}
    since = (millis(back) or 0) - 120_000
    assert again == set(place.ended(r for r in records if (millis(r["createdAt"]) or 0) >= since))
    assert len(place.bytes_sent("traces")) == len(place.bytes_sent("logs")) == 300

    reset = place.command("checkpoint", "reset", "default")
    assert (reset.code, reset.out) == (0, "default: forgotten\n")
    unknown = place.command("checkpoint", "reset", "default")
    assert (unknown.code, "no source 'default'" in unknown.err) == (1, True)
    assert place.command("checkpoint", "set", "default", "yesterday").code == 2
    place.once(ALLOY_API_KEY=key)
    assert min(place.sent("traces").values()) == 2
    assert len(place.bytes_sent("traces")) == 300


def test_a_checkpoint_of_another_query(place: Place) -> None:
    """A checkpoint is not used for another endpoint or filter: exit code 1 and what to do."""
    place.fill(10)
    place.once()
    done = place.command("run", "--once", "--workflow-id", "abc")
    assert done.code == 1
    assert "otel-alloy checkpoint reset default" in done.err


def test_simulate(place: Place) -> None:
    """`simulate` says where it listens and how to use it, answers, and ends well on SIGTERM."""
    words = ("--port", "0", "--executions", "7", "--rate", "0", "--never-ends", "0")
    process = place.start("simulate", *words)
    assert process.stdout is not None
    url = process.stdout.readline().split()[3].rstrip(",")
    assert "otel-alloy run" in process.stdout.readline()
    answer = httpx.get(url, headers={"Authorization": "Bearer any"}, trust_env=False)
    assert answer.json()["pagination"]["totalItems"] == 14
    process.send_signal(signal.SIGTERM)
    assert place.end(process, within=10).code == 0
    port = url.rsplit(":", 1)[1].partition("/")[0]
    assert port.isdecimal()
    taken = place.otlp.http_endpoint.rsplit(":", 1)[1]
    busy = place.command("simulate", "--port", taken)
    assert (busy.code, "choose another with --port" in busy.err) == (1, True)


def test_simulated_executions_that_never_end(place: Place) -> None:
    """A share of them, as it is asked for, starts and has no end; what is older than a day becomes
    incomplete with default settings."""
    words = ("--port", "0", "--executions", "60", "--rate", "0", "--never-ends", "0.5")
    process = place.start("simulate", *words)
    assert process.stdout is not None
    url = process.stdout.readline().split()[3].rstrip(",").removesuffix("/logs")
    place.once(ALLOY_ENDPOINT=url)
    outcomes = Counter(
        attributes(item.record.attributes)["runalloy.execution.outcome"]
        for item in place.otlp.items("traces")
    )
    assert outcomes["success"] > 10 and outcomes["incomplete"] > 3


def test_demo(place: Place) -> None:
    """`demo` in a pipe: a line for each execution, a summary, how to go on, exit code 0; it
    needs no setting and leaves nothing behind."""
    for name in ("ALLOY_API_KEY", "ALLOY_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        del place.environment[name]
    before = set(place.folder.iterdir())
    done = place.command("demo", "--seconds", "2")
    assert done.code == 0, done.out + done.err
    assert "executions" in done.out
    assert done.out.endswith(
        "  export OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318\n"
        "  export ALLOY_API_KEY=...; otel-alloy run\n"
    )
    assert "\x1b" not in done.out
    assert set(place.folder.iterdir()) == before


def test_help_and_version(place: Place) -> None:
    """Every command has its help, which fits a page, and none needs a configuration."""
    assert place.command("--version").out.startswith("otel-alloy, version ")
    for words in ([], ["run"], ["check"], ["demo"], ["simulate"], ["checkpoint"], ["rejected"]):
        done = place.command(*words, "--help")
        assert done.code == 0
        assert done.out.startswith("Usage: otel-alloy")
    assert CANARY not in Path(place.folder).name


def test_health(place: Place) -> None:
    """`health` asks the health port that `run` was told to open: 0 while it lives, 1 and why where
    nobody answers, 0 where there is none; it needs no key, and takes a key's file for none."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
    away = place.command("health", "--health-endpoint", endpoint)
    assert (away.code, away.out) == (1, f"{endpoint} does not answer: Connection refused\n")
    off = place.command("health")
    assert (off.code, off.out) == (0, "the health port is off: nothing to ask\n")
    del place.environment["ALLOY_API_KEY"]
    place.environment["ALLOY_API_KEY_FILE"] = str(place.folder / "not-there")
    assert place.command("health").code == 0
