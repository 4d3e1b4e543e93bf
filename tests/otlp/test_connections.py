"""Guarantees of how connections are made: through real proxies and over real TLS, the Logs API,
OTLP/HTTP, OTLP/gRPC and the SDK's exporters of our own telemetry go the same way."""

from __future__ import annotations

import re
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData

from otel_alloy.alloy.client import AlloyClient
from otel_alloy.alloy.query import Query
from otel_alloy.errors import ConfigurationError, Unavailable
from otel_alloy.network import Network, network
from otel_alloy.otlp.outcome import Kind, Outcome
from otel_alloy.otlp.senders import open_senders, sdk_exporters
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.otlp import otlp_exporters

from .otlp_servers import (
    HttpEndpoint,
    grpc_endpoint,
    http_endpoint,
    nobody,
    raw_endpoint,
    raw_relay,
)

FAR = "collector.invalid"
P = "OTEL_EXPORTER_OTLP_"


def send(environment: dict[str, str], **variables: str) -> Outcome:
    """One request for traces, as the environment asks for it."""
    found = otlp_exporters(environment | {P + k: v for k, v in variables.items()})
    assert found.mistakes == []
    traces, logs = open_senders(found, "test", system_runtime())
    assert traces is not None and logs is not None
    with closing(traces), closing(logs):
        return traces.send(b"")


def send_metrics(environment: dict[str, str], **variables: str) -> bool:
    """Whether the SDK's own exporter was answered."""
    variables = {P + k: v for k, v in variables.items()} | {"OTEL_METRICS_EXPORTER": "otlp"}
    found = otlp_exporters(environment | variables)
    assert found.mistakes == []
    (exporter,) = sdk_exporters(*found.metrics)
    result = exporter.export(MetricsData([]))
    exporter.shutdown()
    return bool(result is MetricExportResult.SUCCESS)


def ask(endpoint: str, ways: Network) -> None:
    """One request to the Logs API; the answers of these tests are no pages, and that is Retry."""
    client = AlloyClient(endpoint, "key", system_runtime(), timeout=5, network=ways)
    with closing(client):
        client.fetch(Query(10))


class Proxy:
    """A proxy on a real socket that leads every connection to `port`, and what it was asked."""

    def __init__(self, port: int, socks: bool) -> None:
        self._target, self._socks = port, socks
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.asked: list[str] = []
        self.tasks = [threading.Thread(target=self._serve, daemon=True)]
        self.tasks[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._lead, args=(near,), daemon=True).start()

    def _lead(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self._target)) as far:
            if self._socks:
                near.recv(1024)  # the methods
                near.sendall(b"\5\0")
                request = near.recv(1024)
                self.asked.append(f"SOCKS {request[5:-2].decode()}")
                near.sendall(b"\5\0\0\1\0\0\0\0\0\0")
            else:
                request = near.recv(65536)
                self.asked.append(request.decode("latin-1"))
                if request.startswith(b"CONNECT"):
                    near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                else:
                    far.sendall(request)
            back = threading.Thread(target=_copy, args=(far, near), daemon=True)
            back.start()
            _copy(near, far)
            back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


@contextmanager
def proxy(port: int, socks: bool = False) -> Iterator[Proxy]:
    with closing(Proxy(port, socks)) as one:
        yield one


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    """An authority, and its certificate as a file in a folder of its own."""
    file = tmp_path_factory.mktemp("trust") / "ca.pem"
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(file))
    return ca, file


def server_tls(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1", FAR).configure_cert(context)
    return context


def grpc_tls(ca: trustme.CA) -> grpc.ServerCredentials:
    issued = ca.issue_cert("127.0.0.1", FAR)
    pair = (issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())
    return grpc.ssl_server_credentials([pair])


@pytest.mark.parametrize("tls", [False, True])
def test_all_go_through_the_proxy(authority: tuple[trustme.CA, Path], tls: bool) -> None:
    """The same variable leads all of them, with user and password, and TLS goes end to end; what
    NO_PROXY names and the loopback is reached directly."""
    ca, file = authority
    scheme = "https" if tls else "http"
    with ExitStack() as stack:
        http = stack.enter_context(http_endpoint(server_tls(ca) if tls else None))
        rpc = stack.enter_context(grpc_endpoint(grpc_tls(ca) if tls else None))
        to_http = stack.enter_context(proxy(http.port))
        to_rpc = stack.enter_context(proxy(rpc.port))
        variable = f"{scheme}_proxy".upper()

        def by(one: Proxy) -> dict[str, str]:
            url = f"http://me:s3%40cret@127.0.0.1:{one.port}"
            return {"SSL_CERT_FILE": str(file), variable: url}

        url = f"{scheme}://{FAR}:4318"
        assert send(by(to_http), ENDPOINT=url).kind is Kind.DELIVERED
        assert send_metrics(by(to_http), ENDPOINT=url)
        with pytest.raises(Unavailable, match="501"):  # the endpoint answers no GET
            ask(url, network(by(to_http)))
        assert len(to_http.asked) == 3
        assert send(by(to_rpc), ENDPOINT=url, PROTOCOL="grpc").kind is Kind.DELIVERED
        assert not send_metrics(by(to_rpc), ENDPOINT=url, PROTOCOL="grpc", TIMEOUT="2000")
        assert len(to_rpc.asked) >= 2  # that endpoint has no service for metrics
        for asked in (*to_http.asked, *to_rpc.asked):
            assert re.match(rf"(?i)(CONNECT |(GET|POST) http://){FAR}:4318", asked)
            assert "proxy-authorization: basic bwu6czna" in asked.lower()
        near = {variable: f"http://127.0.0.1:{nobody()}", "SSL_CERT_FILE": str(file)}
        here = f"{scheme}://127.0.0.1"
        assert send(near, ENDPOINT=f"{here}:{http.port}").kind is Kind.DELIVERED
        assert send_metrics(near, ENDPOINT=f"{here}:{http.port}")
        outcome = send(near, ENDPOINT=f"{here}:{rpc.port}", PROTOCOL="grpc")
        assert outcome.kind is Kind.DELIVERED


def test_a_socks_proxy() -> None:
    """With the extra `socks`, HTTP goes through SOCKS proxies; the name is resolved there."""
    with http_endpoint() as http, proxy(http.port, socks=True) as one:
        url = f"http://{FAR}:4318"
        environment = {"ALL_PROXY": f"socks5h://127.0.0.1:{one.port}"}
        assert send(environment, ENDPOINT=url).kind is Kind.DELIVERED
        assert send_metrics(environment, ENDPOINT=url)
        with pytest.raises(Unavailable, match="501"):
            ask(url, network(environment))
        assert one.asked == [f"SOCKS {FAR}"] * 3


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\5\xff"])
def test_what_is_no_socks_proxy(says: bytes) -> None:
    """One that breaks the connection, as one that starts again, or that speaks something else, is
    told as the proxy's failure, and tried again."""
    with raw_endpoint(says) as port:
        environment = {"ALL_PROXY": f"socks5h://127.0.0.1:{port}"}
        outcome = send(environment, ENDPOINT=f"http://{FAR}")
        assert outcome.kind is Kind.RETRY and "through the proxy" in outcome.reason
        with pytest.raises(Unavailable, match=r"through the proxy socks5h://.*(SOCKS5|METHODS)"):
            ask(f"http://{FAR}", network(environment))


def test_a_socks_proxy_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the mistake names the variable and the extra."""
    monkeypatch.setitem(sys.modules, "socksio", None)  # as if it were not installed
    with pytest.raises(ConfigurationError, match=r"ALL_PROXY is 'socks5://p:1'.*extra `socks`"):
        network({"ALL_PROXY": "socks5://p:1"}).route("https://c")


def test_a_proxy_that_is_away_is_named() -> None:
    """The words say that it is the proxy which cannot be reached, and which variable names it."""
    port = nobody()
    environment = {"ALL_PROXY": f"http://me:s3cret@127.0.0.1:{port}"}
    outcome = send(environment, ENDPOINT=f"http://{FAR}")
    assert outcome.kind is Kind.RETRY
    with pytest.raises(Unavailable) as error:
        ask(f"https://{FAR}", network(environment))
    for words in (outcome.reason, str(error.value)):
        assert f"through the proxy http://127.0.0.1:{port} (ALL_PROXY)" in words
        assert "s3cret" not in words


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
def test_one_trust_for_every_stack(authority: tuple[trustme.CA, Path], variable: str) -> None:
    """Each variable is honoured by httpcore, grpcio and requests alike, for Alloy and for OTLP;
    without it none of them trusts the server."""
    ca, file = authority
    value = str(file.parent if variable == "SSL_CERT_DIR" else file)
    with http_endpoint(server_tls(ca)) as http, grpc_endpoint(grpc_tls(ca)) as rpc:
        url = f"https://127.0.0.1:{http.port}"
        rpc_url = f"https://127.0.0.1:{rpc.port}"
        for environment, trusted in (({variable: value}, True), ({}, False)):
            with pytest.raises(Unavailable, match="501" if trusted else "cannot prove who it is"):
                ask(url, network(environment))
            assert send_metrics(environment, ENDPOINT=url, TIMEOUT="2000") is trusted
            wanted = Kind.DELIVERED if trusted else Kind.MISCONFIGURED
            assert send(environment, ENDPOINT=url).kind is wanted
            assert send(environment, ENDPOINT=rpc_url, PROTOCOL="grpc").kind is wanted
        other = {variable: value, "OTEL_EXPORTER_OTLP_CERTIFICATE": str(file)}
        assert send(other, ENDPOINT=url).kind is Kind.DELIVERED


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_alloys_authority_is_exchanged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, variable: str
) -> None:
    """A file of authorities that is exchanged while the receiver runs counts for the next request
    to Alloy; what is half written changes nothing."""
    old, new = trustme.CA(), trustme.CA()
    file = tmp_path / "ca.pem"
    old.cert_pem.write_to_path(str(file))
    with (
        http_endpoint(server_tls(old)) as before,
        http_endpoint(server_tls(new)) as after,
        raw_relay(before.port) as relay,
    ):
        ways = network({variable: str(file if variable == "SSL_CERT_FILE" else tmp_path)})
        url = f"https://127.0.0.1:{relay.port}"
        client = AlloyClient(url, "key", system_runtime(), timeout=5, network=ways)

        def refused(words: str) -> None:
            with pytest.raises(Unavailable, match=words):
                client.fetch(Query(10))

        with closing(client):
            refused("501")  # the endpoint answers no GET
            if variable == "SSL_CERT_FILE":
                file.write_text("half of a certif")
                refused("501")
                assert "Going on with the files" in caplog.text
            relay.move(after.port)
            refused("cannot prove who it is")
            new.cert_pem.write_to_path(str(file))
            refused("501")


def test_the_certificate_of_otlp_wins(authority: tuple[trustme.CA, Path], tmp_path: Path) -> None:
    """OTEL_EXPORTER_OTLP_CERTIFICATE counts for OTLP, whatever the others say."""
    ca, file = authority
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with http_endpoint(server_tls(ca)) as http, grpc_endpoint(grpc_tls(ca)) as rpc:
        for variables in (
            {"ENDPOINT": f"https://127.0.0.1:{http.port}"},
            {"ENDPOINT": f"https://127.0.0.1:{rpc.port}", "PROTOCOL": "grpc"},
        ):
            environment = {"SSL_CERT_FILE": str(other)}
            right = send(environment, CERTIFICATE=str(file), **variables)
            assert right.kind is Kind.DELIVERED
            assert send(environment, **variables).kind is Kind.MISCONFIGURED


def without_key_identifier(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """An authority and a server's certificate, as old scripts make them: no key identifiers."""
    now = datetime.now(UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n)]) for n in ("old ca", "old")]

    def issue(number: int, *extensions: tuple[x509.ExtensionType, bool]) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[number])
            .issuer_name(names[0])
            .public_key(keys[number].public_key())
            .serial_number(number + 1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(keys[0], hashes.SHA256())

    ca = issue(0, (x509.BasicConstraints(ca=True, path_length=None), True))
    alternative = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    server = issue(1, (alternative, False))
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(ca.public_bytes(pem))
    key = keys[1].private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(key + server.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return folder / "ca.pem", context


def test_a_certificate_without_key_identifier(tmp_path: Path) -> None:
    """Python 3.13 and newer refuse it, and the words name what is missing and what to do; older
    ones take it."""
    file, context = without_key_identifier(tmp_path)
    environment = {"SSL_CERT_FILE": str(file)}

    def told(http: HttpEndpoint) -> tuple[str, str]:
        url = f"https://localhost:{http.port}"
        with pytest.raises(Unavailable) as error:
            ask(url, network(environment))
        return str(error.value), send(environment, ENDPOINT=url).reason

    with http_endpoint(context) as http:
        alloy, otlp = told(http)
    if sys.version_info >= (3, 13):
        for words in (alloy, otlp):
            assert "Python 3.13" in words and "authorityKeyIdentifier" in words
    else:
        assert "501" in alloy and otlp == ""


def test_a_request_without_limit_waits() -> None:
    """TIMEOUT=0 is no limit: an answer that takes its time is waited for, over both transports."""
    late = threading.Event()
    timer = threading.Timer(0.3, late.set)

    def answer(context: grpc.ServicerContext) -> bytes:
        late.wait(10)
        return b""

    with grpc_endpoint() as rpc, http_endpoint() as http:
        rpc.export = answer
        timer.start()
        url = f"http://127.0.0.1:{rpc.port}"
        assert send({}, ENDPOINT=url, PROTOCOL="grpc", TIMEOUT="0").kind is Kind.DELIVERED
        url = f"http://127.0.0.1:{http.port}"
        assert send({}, ENDPOINT=url, TIMEOUT="0").kind is Kind.DELIVERED
        assert send_metrics({}, ENDPOINT=url, TIMEOUT="0")
