"""Guarantees of `http.HttpSender`, against real sockets: what each answer comes to."""

import gzip
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpcore
import pytest
import trustme
from opentelemetry import context
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otel_alloy.errors import ConfigurationError
from otel_alloy.otlp.answers import HTTP, http_rule
from otel_alloy.otlp.http import HttpSender
from otel_alloy.otlp.outcome import Kind, Outcome
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.otlp import OtlpSettings, Signal, otlp_settings

from .otlp_servers import (
    PROTOBUF,
    Answer,
    HttpEndpoint,
    grpc_endpoint,
    http_endpoint,
    nobody,
    raw_endpoint,
    raw_relay,
    silent_endpoint,
    status,
)

TEXT = {"Content-Type": "text/plain; charset=utf-8"}
HTML = {"Content-Type": "text/html"}
OTLP = {"Content-Type": PROTOBUF}
JSON = {"Content-Type": "application/json; charset=utf-8"}


@pytest.fixture
def endpoint() -> Iterator[HttpEndpoint]:
    with http_endpoint() as server:
        yield server


def settings(endpoint: str, **variables: str) -> OtlpSettings:
    environment = {"OTEL_EXPORTER_OTLP_" + k: v for k, v in variables.items()}
    result, mistakes = otlp_settings(
        {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint} | environment, "traces"
    )
    assert mistakes == []
    return result


def send(endpoint: str, request: bytes = b"spans", /, **variables: str) -> Outcome:
    with closing(
        HttpSender(settings(endpoint, **variables), "otel-alloy/test", system_runtime())
    ) as sender:
        return sender.send(request)


def test_a_request_is_what_otlp_asks_for(endpoint: HttpEndpoint) -> None:
    """Path, content type, user agent and the user's headers arrive; the body is untouched."""
    assert send(endpoint.url, HEADERS="X-Scope-OrgID=team%201,a=%C3%A4") == Outcome(Kind.DELIVERED)
    (request,) = endpoint.requests
    assert request.path == "/v1/traces"
    assert request.body == b"spans"
    assert request.headers["content-type"] == PROTOBUF
    assert request.headers["user-agent"] == "otel-alloy/test"
    assert request.headers["x-scope-orgid"] == "team 1"
    assert "content-encoding" not in request.headers


def test_the_connection_is_kept(endpoint: HttpEndpoint) -> None:
    """Many requests, refused ones among them, pass over one connection."""
    with closing(HttpSender(settings(endpoint.url), "test", system_runtime())) as sender:
        for code in (200, 400, 503, 301, 200):
            endpoint.answer = Answer(code)
            sender.send(b"x")
    assert len(endpoint.requests) == 5 and len(endpoint.connections) == 1


def test_after_a_rest_the_next_request_connects_anew(endpoint: HttpEndpoint) -> None:
    """A rest gives the connection back, and costs no request."""
    with closing(HttpSender(settings(endpoint.url), "test", system_runtime())) as sender:
        for _ in range(3):
            assert sender.send(b"x").kind is Kind.DELIVERED
            sender.rest()
            sender.rest()
    assert len(endpoint.requests) == 3


def test_gzip_is_deterministic_and_complete(endpoint: HttpEndpoint) -> None:
    """With gzip the endpoint decodes the same bytes, and a retry is byte for byte the same."""
    spans = b"span" * 10_000
    for _ in range(2):
        assert send(endpoint.url, spans, COMPRESSION="gzip").kind is Kind.DELIVERED
    first, second = endpoint.requests
    assert first.headers["content-encoding"] == "gzip"
    assert gzip.decompress(first.body) == spans
    assert first.body == second.body


@pytest.mark.parametrize("signal", ["traces", "logs"])
def test_partial_success_is_told(endpoint: HttpEndpoint, signal: str) -> None:
    """A partial success is delivered; the refused number and the words come with it."""
    answer: ExportTraceServiceResponse | ExportLogsServiceResponse
    if signal == "traces":
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = 3
        answer.partial_success.error_message = "too old"
        chosen = settings(endpoint.url)
    else:
        answer = ExportLogsServiceResponse()
        answer.partial_success.rejected_log_records = 3
        answer.partial_success.error_message = "too old"
        chosen = OtlpSettings("logs", endpoint=endpoint.url)
    endpoint.answer = Answer(200, answer.SerializeToString())
    with closing(HttpSender(chosen, "test", system_runtime())) as sender:
        assert sender.send(b"x") == Outcome(Kind.DELIVERED, "too old", rejected=3)


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (Answer(200), Kind.DELIVERED, ""),
        (Answer(200, b"", {}), Kind.DELIVERED, ""),
        (Answer(204, b"", {}), Kind.DELIVERED, ""),
        (Answer(202), Kind.DELIVERED, ""),
        (Answer(200, b"<html>Log in", HTML), Kind.MISCONFIGURED, "text/html that is no OTLP"),
        (Answer(200, b"", HTML), Kind.MISCONFIGURED, "no OTLP answer"),
        (Answer(200, b"OK", TEXT), Kind.MISCONFIGURED, "no OTLP answer"),
        (Answer(203, b"<html>Log in", HTML), Kind.MISCONFIGURED, "no OTLP answer"),
        (Answer(200, b"", TEXT), Kind.DELIVERED, ""),
        (Answer(202, b"", JSON), Kind.DELIVERED, ""),
        (Answer(200, b"{}", JSON), Kind.DELIVERED, ""),
        (Answer(200, b" {} \n", JSON), Kind.DELIVERED, ""),
        (Answer(202, b'"OK"', JSON), Kind.DELIVERED, ""),
        (Answer(200, b'{"status": "success"}', JSON), Kind.DELIVERED, ""),
        (Answer(200, b'{"success": true, "id": "x"}', JSON), Kind.DELIVERED, ""),
        (Answer(200, b'{"code": 200, "status": []}', JSON), Kind.DELIVERED, ""),
        (Answer(200, b'{"code": 0, "text": "Success"}', JSON), Kind.DELIVERED, ""),
        (Answer(200, b'{"message": "received", "partialSuccess": {}}', JSON), Kind.DELIVERED, ""),
        (Answer(200, b'{"error": "log in first"}', JSON), Kind.MISCONFIGURED, "no OTLP answer"),
        (Answer(200, b'{"login": "https://idp"}', JSON), Kind.MISCONFIGURED, "no OTLP answer"),
        (Answer(200, b'{"code": 401}', JSON), Kind.MISCONFIGURED, "no OTLP answer"),
        (Answer(200, b'{"status": "ok", "errors": [1]}', JSON), Kind.MISCONFIGURED, "no OTLP"),
        (Answer(200, b"[]", JSON), Kind.MISCONFIGURED, "no OTLP answer"),
        (Answer(200, b"<html>", JSON), Kind.MISCONFIGURED, "no OTLP answer"),
        (Answer(200, b"[" * 100_000, JSON), Kind.MISCONFIGURED, "no OTLP answer"),
        (Answer(200, b"<html>Log in", OTLP), Kind.MISCONFIGURED, "no OTLP answer"),
        (Answer(200, bytes(5 << 20), OTLP), Kind.MISCONFIGURED, "no OTLP answer"),
        (Answer(400, status("bad span"), OTLP), Kind.REJECTED, "HTTP 400 Bad Request: bad span"),
        (Answer(400, b"entry too far behind", TEXT), Kind.REJECTED, "entry too far behind"),
        (Answer(400, b"<html>nginx", HTML), Kind.REJECTED, "HTTP 400 Bad Request"),
        (Answer(422), Kind.REJECTED, "HTTP 422"),
        (Answer(413), Kind.TOO_LARGE, "HTTP 413"),
        (Answer(401), Kind.MISCONFIGURED, "OTEL_EXPORTER_OTLP_HEADERS"),
        (Answer(403), Kind.MISCONFIGURED, "OTEL_EXPORTER_OTLP_HEADERS"),
        (Answer(404), Kind.MISCONFIGURED, "path of OTEL_EXPORTER_OTLP_ENDPOINT"),
        (Answer(405), Kind.MISCONFIGURED, "HTTP 405"),
        (Answer(407), Kind.MISCONFIGURED, "proxy"),
        (Answer(415), Kind.MISCONFIGURED, "HTTP 415"),
        (Answer(429), Kind.RETRY, "HTTP 429"),
        (Answer(502), Kind.RETRY, "HTTP 502"),
        (Answer(503), Kind.RETRY, "HTTP 503"),
        (Answer(504), Kind.RETRY, "HTTP 504"),
        (Answer(500, status("panic", code=13)), Kind.UNEXPECTED, "panic"),
        (Answer(418), Kind.UNEXPECTED, "HTTP 418"),
        (Answer(501), Kind.MISCONFIGURED, "OTEL_TRACES_EXPORTER=none"),
        (Answer(404, b"404 page not found", TEXT), Kind.MISCONFIGURED, "OTEL_TRACES_EXPORTER=none"),
        (Answer(403, b"<html>Request blocked", HTML), Kind.MISCONFIGURED, "HTTP 403"),
        (Answer(400, b"http: request body too large", TEXT), Kind.TOO_LARGE, "too large"),
        (Answer(400, status("message larger than max"), OTLP), Kind.TOO_LARGE, "larger than max"),
        (Answer(422, b'{"detail":"payload exceeds limit"}', JSON), Kind.TOO_LARGE, "exceeds"),
        (Answer(500, b"request entity too large", TEXT), Kind.TOO_LARGE, "HTTP 500"),
        (Answer(500, status("data dropped due to high memory usage"), OTLP), Kind.RETRY, "memory"),
        (Answer(503, b"body too large", TEXT), Kind.RETRY, "HTTP 503"),
        (Answer(408), Kind.RETRY, "HTTP 408"),
        (Answer(425), Kind.RETRY, "HTTP 425"),
        (Answer(499), Kind.RETRY, "HTTP 499"),
        (Answer(507), Kind.RETRY, "HTTP 507"),
        (Answer(530, b"<html>error code: 1033", HTML), Kind.RETRY, "HTTP 530"),
        (Answer(511, b"<html>", HTML), Kind.MISCONFIGURED, "login"),
        (Answer(304, b"", {}), Kind.MISCONFIGURED, "HTTP 304"),
    ],
)
def test_answers(endpoint: HttpEndpoint, answer: Answer, kind: Kind, words: str) -> None:
    """Each answer comes to the outcome that the policy foresees, in the endpoint's own words."""
    endpoint.answer = answer
    outcome = send(endpoint.url)
    assert outcome.kind is kind
    assert words in outcome.reason


def test_every_row_of_the_answer_table(endpoint: HttpEndpoint) -> None:
    """Each status code of the table, and each that is none of its, comes to what the table says,
    with its remedy, over a real socket."""
    for code in (*HTTP, 305, 409, 412, 416, 418, 440, 500, 506, 561, 599):
        endpoint.answer = Answer(code, b"words", TEXT)
        outcome, rule = send(endpoint.url), http_rule(code, "words")
        assert (outcome.kind, outcome.size) == (rule.kind, rule.size), code
        assert rule.remedy.partition(";")[0] in outcome.reason or code < 400, code
        assert outcome.reason.startswith(f"HTTP {code}")


@pytest.mark.parametrize("signal", ["traces", "logs"])
def test_partial_success_as_json_is_told(endpoint: HttpEndpoint, signal: Signal) -> None:
    """LangWatch and others answer protobuf with JSON; its numbers are text by protobuf's rules."""
    name = "rejectedSpans" if signal == "traces" else "rejected_log_records"
    for number in ("3", '"3"'):
        body = f'{{"partialSuccess": {{"{name}": {number}, "errorMessage": "too old"}}}}'
        endpoint.answer = Answer(200, body.encode(), JSON)
        chosen = OtlpSettings(signal, endpoint=endpoint.url)
        with closing(HttpSender(chosen, "test", system_runtime())) as sender:
            assert sender.send(b"x") == Outcome(Kind.DELIVERED, "too old", rejected=3)


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ("entry with timestamp 2025 ignored, reason: 'entry too far behind', total ignored: 3 "
         "out of 1000", 3),
        ("2 errors like: entry for stream '{a=\"b\"}' has timestamp too old: 2020; 5 errors like: "
         "max entry size", 7),
        ("entry for stream '{a=\"b\"}' has timestamp too old: 2020", 1),
        ("bad span", 0),
    ],
)  # fmt: skip
def test_loki_tells_that_it_kept_the_others(
    endpoint: HttpEndpoint, words: str, refused: int
) -> None:
    """Its 400 names how many entries it means, or one of them; nobody else's does."""
    endpoint.answer = Answer(400, words.encode(), TEXT)
    outcome = send(endpoint.url)
    assert (outcome.kind, outcome.rejected) == (Kind.REJECTED, refused)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_no_success_and_not_followed(endpoint: HttpEndpoint, code: int) -> None:
    """Only the host of Location is told: the rest may hold a secret."""
    location = "https://user:pw@login.example.com/start?token=s3cret"
    endpoint.answer = Answer(code, b"", {"Location": location})
    outcome = send(endpoint.url)
    assert outcome.kind is Kind.MISCONFIGURED
    assert "login.example.com" in outcome.reason
    assert "s3cret" not in outcome.reason and "pw" not in outcome.reason
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"Retry-After": "7"}, b"", 7.0),
        ({"Retry-After": "86400"}, b"", 86400.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:45 GMT"}, b"", 45.0),
        (OTLP, status("busy", 2.5), 2.5),
        (OTLP | {"Retry-After": "7"}, status("busy", 2.5), 7.0),
        ({"Retry-After": "nonsense"}, b"", None),
        ({}, b"", None),
    ],
)
def test_the_endpoint_says_how_long_to_wait(
    endpoint: HttpEndpoint, headers: dict[str, str], body: bytes, seconds: float | None
) -> None:
    """Retry-After in both forms, else RetryInfo in the body; not capped here."""
    endpoint.answer = Answer(503, body, headers)
    assert send(endpoint.url).retry_after == seconds


def test_an_echoed_key_is_not_told(endpoint: HttpEndpoint) -> None:
    """An endpoint that repeats the key it refuses does not bring it into our logs."""
    endpoint.answer = Answer(401, b"unknown key s3cret in Bearer s3cret", TEXT)
    outcome = send(endpoint.url, HEADERS="authorization=Bearer%20s3cret")
    assert "unknown key ***" in outcome.reason and "s3cret" not in outcome.reason


def test_broken_connections_are_retried() -> None:
    """Nobody listens, a name that does not exist, a connection that breaks, silence."""
    for nowhere in (f"http://127.0.0.1:{nobody()}", "http://name.invalid:4318"):
        outcome = send(nowhere)
        assert (outcome.kind, outcome.size) == (Kind.RETRY, False)  # nothing was sent
    with raw_endpoint(b"") as port:
        outcome = send(f"http://127.0.0.1:{port}")
        assert (outcome.kind, outcome.size) == (Kind.RETRY, True)
    with raw_endpoint(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf") as port:
        assert send(f"http://127.0.0.1:{port}").kind is Kind.RETRY
    with silent_endpoint() as port:
        outcome = send(f"http://127.0.0.1:{port}", TIMEOUT="50")
        assert outcome.kind is Kind.RETRY
        assert "no answer within 0.05 s" in outcome.reason


def test_a_grpc_port_is_recognised() -> None:
    """HTTP/2 frames instead of an answer: the words name the setting to change."""
    with grpc_endpoint() as grpc:
        outcome = send(f"http://127.0.0.1:{grpc.port}")
    assert outcome.kind is Kind.MISCONFIGURED
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in outcome.reason


ERRORS = [
    error
    for error in vars(httpcore).values()
    if isinstance(error, type)
    and issubclass(error, Exception)
    # A connection that another request uses; here each has one of its own.
    and error is not httpcore.ConnectionNotAvailable
]


@pytest.mark.parametrize("error", ERRORS)
def test_every_exception_of_httpcore_is_an_outcome(error: type[Exception]) -> None:
    """No exception of httpcore leaves `send`, also not one that a later release adds."""

    def fail() -> float:
        raise error("it broke")

    runtime = replace(system_runtime(), monotonic=fail)  # what every request asks first
    with closing(HttpSender(settings("http://localhost"), "test", runtime)) as sender:
        outcome = sender.send(b"x")
    assert outcome.kind in (Kind.RETRY, Kind.MISCONFIGURED)
    assert "it broke" in outcome.reason


def test_exports_are_not_traced(endpoint: HttpEndpoint) -> None:
    """Within a request both suppress-instrumentation keys are set, and afterwards they are not."""
    seen = []

    def monotonic() -> float:
        seen.append(context.get_current())
        return time.monotonic()

    runtime = replace(system_runtime(), monotonic=monotonic)
    with closing(HttpSender(settings(endpoint.url), "test", runtime)) as sender:
        assert sender.send(b"x").kind is Kind.DELIVERED
    key = context._SUPPRESS_INSTRUMENTATION_KEY
    assert len(seen) > 3  # connecting, sending, reading
    for one in seen:
        assert one.get(key) is True and one.get("suppress_instrumentation") is True
    assert context.get_value(key) is None


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, dict[str, str]]:
    """A certificate authority, and the files of a client of it, by variable."""
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    client = ca.issue_cert("client@example.com")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    client.private_key_pem.write_to_path(folder / "key.pem")
    client.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    client.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
    names = {"CERTIFICATE": "ca", "CLIENT_KEY": "key", "CLIENT_CERTIFICATE": "cert", "BOTH": "both"}
    return ca, {name: str(folder / f"{file}.pem") for name, file in names.items()}


def server_tls(ca: trustme.CA, client_needed: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    if client_needed:
        ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_tls(authority: tuple[trustme.CA, dict[str, str]]) -> None:
    """Trusted by CERTIFICATE it works; otherwise the outcome names the remedy."""
    ca, files = authority
    with http_endpoint(server_tls(ca, False)) as endpoint:
        url = f"https://127.0.0.1:{endpoint.port}"
        assert send(url, CERTIFICATE=files["CERTIFICATE"]).kind is Kind.DELIVERED
        outcome = send(url)
        assert outcome.kind is Kind.MISCONFIGURED
        assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in outcome.reason
    with http_endpoint() as endpoint:
        outcome = send(f"https://127.0.0.1:{endpoint.port}")
        assert outcome.kind is Kind.MISCONFIGURED
        assert "speaks no TLS" in outcome.reason


def test_tls_with_client_certificates(authority: tuple[trustme.CA, dict[str, str]]) -> None:
    """Client key and certificate are shown to the server; without them the words say so."""
    ca, files = authority
    tls = {k: files[k] for k in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")}
    with http_endpoint(server_tls(ca, True)) as endpoint:
        url = f"https://127.0.0.1:{endpoint.port}"
        assert send(url, **tls).kind is Kind.DELIVERED
        both = {"CERTIFICATE": files["CERTIFICATE"], "CLIENT_CERTIFICATE": files["BOTH"]}
        assert send(url, **both).kind is Kind.DELIVERED
        outcome = send(url, CERTIFICATE=files["CERTIFICATE"])
        assert outcome.kind in (Kind.MISCONFIGURED, Kind.RETRY)


def test_certificates_that_are_exchanged_on_disk_are_taken_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """cert-manager exchanges authority, key and certificate: the next request uses them, without a
    restart; what is half written changes nothing."""
    old, new = trustme.CA(), trustme.CA()
    names = {"CERTIFICATE": "ca", "CLIENT_KEY": "key", "CLIENT_CERTIFICATE": "cert"}
    files = {name: str(tmp_path / f"{file}.pem") for name, file in names.items()}

    def write(ca: trustme.CA) -> None:
        client = ca.issue_cert("client@example.com")
        ca.cert_pem.write_to_path(files["CERTIFICATE"])
        client.private_key_pem.write_to_path(files["CLIENT_KEY"])
        client.cert_chain_pems[0].write_to_path(files["CLIENT_CERTIFICATE"])

    write(old)
    with (
        http_endpoint(server_tls(old, True)) as before,
        http_endpoint(server_tls(new, True)) as after,
        raw_relay(before.port) as relay,
    ):
        url = f"https://127.0.0.1:{relay.port}"
        with closing(HttpSender(settings(url, **files), "test", system_runtime())) as sender:
            assert sender.send(b"1").kind is Kind.DELIVERED
            Path(files["CLIENT_KEY"]).write_text("half of a k")
            assert sender.send(b"2").kind is Kind.DELIVERED
            assert "Going on with the files" in caplog.text
            relay.move(after.port)
            assert sender.send(b"3").kind in (Kind.MISCONFIGURED, Kind.RETRY)
            write(new)
            assert sender.send(b"4").kind is Kind.DELIVERED
    assert [r.body for r in after.requests] == [b"4"]


def test_unusable_certificate_files_are_mistakes(tmp_path: Path) -> None:
    """A file that is no PEM is a configuration error before anything is sent."""
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing")
    for name in ("CERTIFICATE", "CLIENT_CERTIFICATE"):
        with pytest.raises(ConfigurationError, match="PEM"):
            send("https://localhost", **{name: str(broken)})
