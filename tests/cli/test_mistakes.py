"""docs/mistakes.md: each mistake of the page is made with the real command, which says what the
page says that it says."""

from __future__ import annotations

import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from otel_alloy.testing.otlp_endpoint import Answer, OtlpEndpoint, Received

if TYPE_CHECKING:
    from conftest import Place

PAGE = Path(__file__).parents[2] / "docs" / "mistakes.md"
ROW = re.compile(
    r"^\| (?P<mistake>.+?) \| (?P<told>``.+``|`.+`) \| (?P<code>\d|–) \|$", re.MULTILINE
)
ROWS = {row["mistake"]: row for row in ROW.finditer(PAGE.read_text("utf-8"))}

Words = list[str]
Make = Callable[["Place", dict[str, str]], Words]
"""Makes the mistake in a place and its variables; the words of the command."""

MISTAKES: dict[str, Make] = {}


def mistake(name: str) -> Callable[[Make], Make]:
    def keep(make: Make) -> Make:
        MISTAKES[name] = make
        return make

    return keep


def with_variables(*words: str, **variables: str) -> Make:
    def make(place: Place, environment: dict[str, str]) -> Words:
        environment.update(variables)
        return [*(words or ("run", "--once"))]

    return make


def with_file(text: str, keep_key: bool = True) -> Make:
    def make(place: Place, environment: dict[str, str]) -> Words:
        (place.folder / "settings.yaml").write_text(text)
        if not keep_key:
            del environment["ALLOY_API_KEY"]
        return ["run", "--once", "--config", "settings.yaml"]

    return make


@mistake("no key")
def _(place: Place, environment: dict[str, str]) -> Words:
    del environment["ALLOY_API_KEY"]
    return ["run"]


@mistake("the key under another name")
def _(place: Place, environment: dict[str, str]) -> Words:
    environment["ALLOY_API_TOKEN"] = environment.pop("ALLOY_API_KEY")
    return ["run"]


@mistake("a wrong key (401)")
def _(place: Place, environment: dict[str, str]) -> Words:
    place.alloy.configure(api_key="another")
    return ["run"]


@mistake("a wrong key in the settings file")
def _(place: Place, environment: dict[str, str]) -> Words:
    place.alloy.configure(api_key="another")
    return with_file("api_key: mine\n", keep_key=False)(place, environment)


MISTAKES |= {
    "the key with quotes": with_variables(ALLOY_API_KEY='"abc"'),
    "`bearer` twice before the key": with_variables(ALLOY_API_KEY="bearer bearer abc"),
    "the key as an option": with_variables("run", "--api-key", "abc"),
    "a misspelt variable": with_variables(OTEL_ALLOY_PAGESIZE="5"),
    "a variable that is no setting": with_variables(OTEL_ALLOY_POLLING="5"),
    "a misspelt variable of OpenTelemetry": with_variables(OTEL_EXPORTER_OTLP_ENDPONT="http://a"),
    "a misspelt command": with_variables("rum"),
    "a misspelt option": with_variables("run", "--sinse", "1h"),
    "an option before the command": with_variables("--config", "a.yaml", "run"),
    "a file that is not there": with_variables("run", "--config", "sttings.yaml"),
    "a misspelt name": with_file("colection_interval: 30s\n"),
    "a name in the wrong place": with_file("compression: gzip\n"),
    "a tab": with_file("sources:\n\t- name: a\n"),
    "a missing colon": with_file("api_key abc\nendpoint: https://a.example\n"),
    "no space behind the colons": with_file("page_size:30\noverlap:2m\n"),
    "a quote that is not closed": with_file('api_key: "abc\nendpoint: https://a.example\n'),
    "a name twice": with_file("page_size: 1\npage_size: 2\n"),
    "a shell's reference": with_file("api_key: ${MY_KEY}\n"),
    "a reference to a variable that is not set": with_file("api_key: ${env:MY_KEY}\n"),
    "two sources of one name": with_file("sources:\n  - { name: a }\n  - { name: a }\n"),
    "a duration that is none": with_variables(OTEL_ALLOY_OVERLAP="two minutes"),
    "a misspelt choice": with_variables(OTEL_ALLOY_PRIVACY_USER_EMAIL="hashed"),
    "seconds in `OTEL_EXPORTER_OTLP_TIMEOUT`": with_variables(OTEL_EXPORTER_OTLP_TIMEOUT="10"),
    "`:` in place of `=` in headers": with_variables(OTEL_EXPORTER_OTLP_HEADERS="api-key: abc"),
    "`--since` in the future": with_variables("run", "--since", "2099-01-01"),
    "a hook that cannot be imported": with_variables(OTEL_ALLOY_HOOK="my_hooks:correlate"),
    "a uuid that is none": with_variables("id", "notauuid"),
    "an endpoint without `http://`": with_variables(OTEL_EXPORTER_OTLP_ENDPOINT="localhost:4318"),
    "a proxy that is none": with_variables(HTTP_PROXY="proxy:99999999"),
}


@mistake("no command")
def _(place: Place, environment: dict[str, str]) -> Words:
    return []


def unused() -> int:
    """A port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


RUN = ["run", "--since", "60d"]


@mistake("`/v1/traces` in the general endpoint")
def _(place: Place, environment: dict[str, str]) -> Words:
    environment["OTEL_EXPORTER_OTLP_ENDPOINT"] += "/v1/traces"
    return RUN


@mistake("the collector does not run")
def _(place: Place, environment: dict[str, str]) -> Words:
    environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{unused()}"
    return RUN


@mistake("gRPC to the port of HTTP")
def _(place: Place, environment: dict[str, str]) -> Words:
    environment["OTEL_EXPORTER_OTLP_PROTOCOL"] = "grpc"
    return RUN


@mistake("Jaeger, which takes no logs")
def _(place: Place, environment: dict[str, str]) -> Words:
    plain = {"Content-Type": "text/plain; charset=utf-8"}

    def judge(received: Received) -> Answer | None:
        if received.signal == "traces":
            return None
        return Answer(status=404, headers=plain, body=b"404 page not found\n")

    place.judge = judge
    return RUN


@mistake("`https://` to a port without TLS")
def _(place: Place, environment: dict[str, str]) -> Words:
    environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = place.otlp.http_endpoint.replace("http", "https")
    return RUN


@mistake("Alloy's endpoint with `https://` and no TLS there")
def _(place: Place, environment: dict[str, str]) -> Words:
    environment["ALLOY_ENDPOINT"] = place.alloy.endpoint.replace("http", "https")
    return RUN


@mistake("a proxy that cannot be reached")
def _(place: Place, environment: dict[str, str]) -> Words:
    environment["ALLOY_ENDPOINT"] = "http://alloy.example"
    environment["HTTP_PROXY"] = f"http://127.0.0.1:{unused()}"
    return RUN


@mistake("a folder that cannot be written")
def _(place: Place, environment: dict[str, str]) -> Words:
    (place.folder / "file").touch()
    environment["OTEL_ALLOY_STORAGE"] = f"sqlite:///{place.folder}/file/checkpoint.db"
    return ["run", "--once"]


APART = {
    "HTTP to the port of gRPC",
    "a certificate of an authority that is not known",
    "the health port is taken",
    "a second `run` on one checkpoint",
    "PostgreSQL without its extra",
}
"""Mistakes that need something beside the command; each has a test of its own."""


def test_the_page_has_each_mistake_that_is_made() -> None:
    """And no other one."""
    assert set(ROWS) == MISTAKES.keys() | APART
    assert len(ROWS) > 40


def pattern(row: re.Match[str]) -> re.Pattern[str]:
    """The line of the page; `…` is anything on that line."""
    told = row["told"].strip("`").strip()
    return re.compile(".*".join(re.escape(part) for part in told.split("…")))


def look(place: Place, name: str, process: subprocess.Popen[str]) -> None:
    """Waits for the line and the exit code that the page has, or for the line alone."""
    row = ROWS[name]
    if row["code"] != "–":
        done = place.end(process)
        said = done.out + done.err
        assert done.code == int(row["code"]), said
        assert pattern(row).search(said), said
    else:
        assert process.stderr is not None
        patience = threading.Timer(60, process.kill)
        patience.start()
        said = ""
        while not pattern(row).search(said):
            line = process.stderr.readline()
            assert line, said
            said += line
        patience.cancel()
        process.send_signal(signal.SIGINT)
        assert place.end(process).code == 130
    assert "Traceback" not in said


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_printed(place: Place, name: str) -> None:
    """Word for word what the page says, and the exit code."""
    place.fill(5)
    words = MISTAKES[name](place, place.environment)
    look(place, name, place.start(*words))


def test_http_to_the_port_of_grpc(place: Place) -> None:
    """As the others."""
    place.fill(5)
    with OtlpEndpoint(grpc=True) as endpoint:
        process = place.start(*RUN, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint.grpc_endpoint)
        look(place, "HTTP to the port of gRPC", process)


def test_an_authority_that_is_not_known(place: Place) -> None:
    """As the others; the server shows a certificate that nobody vouches for."""
    place.fill(5)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with ExitStack() as stack:
        listening = socket.create_server(("127.0.0.1", 0))
        endpoint = f"https://127.0.0.1:{listening.getsockname()[1]}"
        server = stack.enter_context(context.wrap_socket(listening, server_side=True))

        def serve() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except ssl.SSLError:
                    continue
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        process = place.start(*RUN, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
        look(place, "a certificate of an authority that is not known", process)


def test_the_health_port_is_taken(place: Place) -> None:
    """As the others."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process = place.start("run", OTEL_ALLOY_HEALTH_ENDPOINT=address)
        look(place, "the health port is taken", process)


def test_a_second_run(place: Place) -> None:
    """As the others."""
    place.fill(5)
    first = place.start(*RUN)
    assert place.otlp.wait_for(lambda otlp: otlp.log_record_count == 5, 60)
    look(place, "a second `run` on one checkpoint", place.start("run"))
    first.terminate()
    assert place.end(first).code == 0


def test_postgresql_without_its_extra(place: Place) -> None:
    """As the others; the driver cannot be imported."""
    code = (
        "import sys\nsys.modules.update(psycopg=None, psycopg_pool=None)\n"
        "from otel_alloy.__main__ import main\nmain()\n"
    )
    row = ROWS["PostgreSQL without its extra"]
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "--once"],
        env=place.environment | {"OTEL_ALLOY_STORAGE": "postgresql://me:secret@db.example/alloy"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == int(row["code"]) and pattern(row).search(done.stderr), done.stderr
    assert "secret" not in done.stderr
