"""Guarantees of `grpc.GrpcSender`, against a real gRPC server: what each status comes to."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest
import trustme
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from otel_alloy.errors import ConfigurationError
from otel_alloy.otlp.answers import GRPC
from otel_alloy.otlp.grpc import GrpcSender
from otel_alloy.otlp.outcome import Kind, Outcome
from otel_alloy.settings.otlp import OtlpSettings, Signal, otlp_settings

from .otlp_servers import (
    GrpcEndpoint,
    grpc_endpoint,
    http_endpoint,
    nobody,
    raw_relay,
    silent_endpoint,
    status,
)


@pytest.fixture
def endpoint() -> Iterator[GrpcEndpoint]:
    with grpc_endpoint() as server:
        yield server


def settings(endpoint: str, signal: Signal = "traces", /, **variables: str) -> OtlpSettings:
    environment = {"OTEL_EXPORTER_OTLP_" + k: v for k, v in variables.items()}
    environment |= {
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
    }
    result, mistakes = otlp_settings(environment, signal)
    assert mistakes == []
    return result


def send(chosen: OtlpSettings, request: bytes = b"spans") -> Outcome:
    with closing(GrpcSender(chosen, "otel-alloy/test")) as sender:
        return sender.send(request)


def refuses(
    code: grpc.StatusCode, words: str = "no", details: bytes | None = None
) -> Callable[[grpc.ServicerContext], bytes]:
    def export(context: grpc.ServicerContext) -> bytes:
        if details is not None:
            context.set_trailing_metadata((("grpc-status-details-bin", details),))
        context.abort(code, words)

    return export


@pytest.mark.parametrize(
    ("signal", "method"),
    [
        ("traces", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
        ("logs", "/opentelemetry.proto.collector.logs.v1.LogsService/Export"),
    ],
)
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_call_is_what_otlp_asks_for(
    endpoint: GrpcEndpoint, signal: Signal, method: str, compression: str
) -> None:
    """Method, metadata and user agent arrive; the request is untouched, with gzip too."""
    url = f"http://127.0.0.1:{endpoint.port}"
    chosen = settings(url, signal, HEADERS="X-Team=one", COMPRESSION=compression)
    assert send(chosen, b"span" * 1000) == Outcome(Kind.DELIVERED)
    ((called, metadata, request),) = endpoint.calls
    assert (called, request) == (method, b"span" * 1000)
    assert metadata["x-team"] == "one"
    assert str(metadata["user-agent"]).startswith("otel-alloy/test ")


def test_partial_success_is_told(endpoint: GrpcEndpoint) -> None:
    """A partial success is delivered; the refused number and the words come with it."""
    answer = ExportLogsServiceResponse()
    answer.partial_success.rejected_log_records = 2
    answer.partial_success.error_message = "too old"
    endpoint.export = lambda _: answer.SerializeToString()
    outcome = send(settings(f"http://127.0.0.1:{endpoint.port}", "logs"))
    assert outcome == Outcome(Kind.DELIVERED, "too old", rejected=2)


RETRIED = ("CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS")
HELD = ("UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "NOT_FOUND")


@pytest.mark.parametrize("code", [c for c in grpc.StatusCode if c is not grpc.StatusCode.OK])
def test_every_status_code(endpoint: GrpcEndpoint, code: grpc.StatusCode) -> None:
    """The retryable codes of the OTLP specification are retried, and no code is left out."""
    endpoint.export = refuses(code, "my words")
    outcome = send(settings(f"http://127.0.0.1:{endpoint.port}"))
    expected = {"INVALID_ARGUMENT": Kind.REJECTED}
    expected |= dict.fromkeys(RETRIED, Kind.RETRY) | dict.fromkeys(HELD, Kind.MISCONFIGURED)
    assert outcome.kind is expected.get(code.name, Kind.UNEXPECTED)
    assert outcome.reason.startswith(f"gRPC {code.name}: my words")
    assert GRPC[code.name].kind is outcome.kind
    assert outcome.no_signal == ("OTEL_TRACES_EXPORTER=none" in outcome.reason)


def test_resource_exhausted(endpoint: GrpcEndpoint) -> None:
    """With RetryInfo, or in words of a rate limit (Tempo), it is retried: halving cannot help."""
    url = settings(f"http://127.0.0.1:{endpoint.port}")
    exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
    endpoint.export = refuses(exhausted, "busy", status("busy", 2.5, code=8))
    outcome = send(url)
    assert (outcome.kind, outcome.retry_after) == (Kind.RETRY, 2.5)
    endpoint.export = refuses(exhausted, "RATE_LIMITED: ingestion rate limit (15 bytes) exceeded")
    assert send(url).kind is Kind.RETRY
    assert send(url, bytes(5 << 20)).kind is Kind.TOO_LARGE


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (5 vs. 4)", Kind.TOO_LARGE),
        ("RESOURCE_EXHAUSTED", "received message after decompression larger than max",
         Kind.TOO_LARGE),
        ("OUT_OF_RANGE", "Error, decoded message length too large: found 9 bytes", Kind.TOO_LARGE),
        ("INVALID_ARGUMENT", "responded with HTTP Status Code 400, Message=http: request body too "
         "large", Kind.TOO_LARGE),
        ("RESOURCE_EXHAUSTED", "data refused due to high memory usage", Kind.RETRY),
        ("RESOURCE_EXHAUSTED", "", Kind.UNEXPECTED),
        ("FAILED_PRECONDITION", "LIVE_TRACES_EXCEEDED: max live traces", Kind.RETRY),
        ("FAILED_PRECONDITION", "TRACE_TOO_LARGE: max size of trace", Kind.REJECTED),
        ("INTERNAL", "Received RST_STREAM with error code 2", Kind.UNEXPECTED),
        ("UNKNOWN", "Received http2 header with status: 413", Kind.TOO_LARGE),
        ("UNAVAILABLE", "Received http2 header with status: 502", Kind.RETRY),
        ("INTERNAL", "Received http2 header with status: 400", Kind.MISCONFIGURED),
        ("PERMISSION_DENIED", "Received http2 header with status: 403", Kind.MISCONFIGURED),
        ("UNKNOWN", "error exporting items, responded with HTTP Status Code 418", Kind.UNEXPECTED),
    ],
)  # fmt: skip
def test_words_tell_more_than_the_code(
    endpoint: GrpcEndpoint, code: str, words: str, kind: Kind
) -> None:
    """What a server is known to say of size, memory or a proxy counts more than its code."""
    endpoint.export = refuses(grpc.StatusCode[code], words)
    assert send(settings(f"http://127.0.0.1:{endpoint.port}")).kind is kind


def test_unavailable_with_retry_info(endpoint: GrpcEndpoint) -> None:
    """RetryInfo counts for every retryable code."""
    endpoint.export = refuses(grpc.StatusCode.UNAVAILABLE, "later", status("later", 9, code=14))
    assert send(settings(f"http://127.0.0.1:{endpoint.port}")).retry_after == 9.0


def test_an_answer_that_is_none(endpoint: GrpcEndpoint) -> None:
    """An answer that is no OTLP message is not success."""
    endpoint.export = lambda _: b"<html>"
    assert send(settings(f"http://127.0.0.1:{endpoint.port}")).kind is Kind.MISCONFIGURED


def test_an_echoed_key_is_not_told(endpoint: GrpcEndpoint) -> None:
    """An endpoint that repeats the key it refuses does not bring it into our logs."""
    endpoint.export = refuses(grpc.StatusCode.UNAUTHENTICATED, "unknown key s3cret")
    url = f"http://127.0.0.1:{endpoint.port}"
    outcome = send(settings(url, HEADERS="authorization=Bearer%20s3cret"))
    assert "unknown key ***" in outcome.reason


def test_headers_that_grpc_cannot_carry(endpoint: GrpcEndpoint) -> None:
    """grpcio's complaint about metadata is an outcome, without the value."""
    chosen = OtlpSettings(
        "traces", "grpc", f"127.0.0.1:{endpoint.port}", True, (("A B", "s3cret"),)
    )
    outcome = send(chosen)
    assert outcome.kind is Kind.MISCONFIGURED and "s3cret" not in outcome.reason


def test_broken_connections_are_retried() -> None:
    """Nobody listens, silence."""
    outcome = send(settings(f"http://127.0.0.1:{nobody()}", TIMEOUT="5000"))
    assert (outcome.kind, outcome.size) == (Kind.RETRY, False)  # nothing was sent
    with silent_endpoint() as port:
        assert send(settings(f"http://127.0.0.1:{port}", TIMEOUT="100")).kind is Kind.RETRY


def test_an_http_port_is_recognised() -> None:
    """gRPC against an HTTP/1.1 port: the words name the setting."""
    with http_endpoint() as endpoint:
        outcome = send(settings(f"http://127.0.0.1:{endpoint.port}"))
    assert outcome.kind is Kind.MISCONFIGURED
    assert "http/protobuf" in outcome.reason


def test_tls(tmp_path: Path) -> None:
    """TLS with client certificates works; each thing that is missing is named."""
    ca = trustme.CA()
    server, client = ca.issue_cert("127.0.0.1"), ca.issue_cert("client@example.com")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    client.private_key_pem.write_to_path(tmp_path / "key.pem")
    client.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    files = {
        "CERTIFICATE": str(tmp_path / "ca.pem"),
        "CLIENT_KEY": str(tmp_path / "key.pem"),
        "CLIENT_CERTIFICATE": str(tmp_path / "cert.pem"),
    }
    pair = (server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())
    credentials = grpc.ssl_server_credentials([pair], ca.cert_pem.bytes(), True)
    with grpc_endpoint(credentials) as endpoint:
        url = f"https://127.0.0.1:{endpoint.port}"
        assert send(settings(url, **files)).kind is Kind.DELIVERED
        outcome = send(settings(url))
        assert outcome.kind is Kind.MISCONFIGURED
        assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in outcome.reason
        outcome = send(settings(url, CERTIFICATE=files["CERTIFICATE"]))
        assert outcome.kind in (Kind.MISCONFIGURED, Kind.RETRY)
    with grpc_endpoint() as plain:
        outcome = send(settings(f"https://127.0.0.1:{plain.port}"))
        assert outcome.kind is Kind.MISCONFIGURED and "speaks no TLS" in outcome.reason


def test_certificates_that_are_exchanged_on_disk_are_taken_up(tmp_path: Path) -> None:
    """Authority, key and certificate are exchanged: the next call uses them, without a restart."""
    old, new = trustme.CA(), trustme.CA()
    names = {"CERTIFICATE": "ca", "CLIENT_KEY": "key", "CLIENT_CERTIFICATE": "cert"}
    files = {name: str(tmp_path / f"{file}.pem") for name, file in names.items()}

    def write(ca: trustme.CA) -> None:
        client = ca.issue_cert("client@example.com")
        ca.cert_pem.write_to_path(files["CERTIFICATE"])
        client.private_key_pem.write_to_path(files["CLIENT_KEY"])
        client.cert_chain_pems[0].write_to_path(files["CLIENT_CERTIFICATE"])

    def server(ca: trustme.CA) -> grpc.ServerCredentials:
        own = ca.issue_cert("127.0.0.1")
        pair = (own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())
        return grpc.ssl_server_credentials([pair], ca.cert_pem.bytes(), True)

    write(old)
    with (
        grpc_endpoint(server(old)) as before,
        grpc_endpoint(server(new)) as after,
        raw_relay(before.port) as relay,
    ):
        url = f"https://127.0.0.1:{relay.port}"
        with closing(GrpcSender(settings(url, **files), "test")) as sender:
            assert sender.send(b"1").kind is Kind.DELIVERED
            relay.move(after.port)
            assert sender.send(b"2").kind is not Kind.DELIVERED
            write(new)
            assert sender.send(b"3").kind is Kind.DELIVERED
    assert [request for _, _, request in after.calls] == [b"3"]


def test_unreadable_certificate_files_are_mistakes() -> None:
    """A file that vanished after the settings were read is a configuration error."""
    chosen = OtlpSettings("traces", "grpc", "c:4317", False, certificate="/nonexistent/ca.pem")
    with pytest.raises(ConfigurationError, match="/nonexistent"):
        GrpcSender(chosen, "test")


def test_grpcio_is_imported_only_when_used() -> None:
    """OTLP over HTTP pays neither the time nor the threads of grpcio."""
    code = (
        "import sys\n"
        "from otel_alloy.otlp.senders import open_senders\n"
        "from otel_alloy.runtime import system_runtime\n"
        "from otel_alloy.settings.otlp import otlp_exporters\n"
        "open_senders(otlp_exporters({}), 'x', system_runtime())\n"
        "assert not {'grpc', 'opentelemetry.sdk'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
