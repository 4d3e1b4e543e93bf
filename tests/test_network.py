"""Guarantees of `network`, `trust` and `environment`: one meaning of the variables of proxies and
certificates for every connection, and each mistake named with its remedy and without a password."""

from __future__ import annotations

import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from otel_alloy.environment import kept_quotes
from otel_alloy.errors import ConfigurationError
from otel_alloy.network import network
from otel_alloy.trust import Identity, certificate_remedy, shared_context

PROXY = {"ALL_PROXY": "http://proxy:3128"}


@pytest.mark.parametrize(
    ("exceptions", "host", "direct"),
    [
        ("", "collector.example.com", False),
        ("*", "collector.example.com", True),
        ("other,*", "collector.example.com", True),
        ("example.com", "example.com", True),
        ("example.com", "collector.example.com", True),
        ("example.com", "notexample.com", False),
        (".example.com", "collector.example.com", True),
        (".example.com", "example.com", False),
        ("*.example.com", "collector.example.com", True),
        ("*.example.com", "notexample.com", False),
        ("EXAMPLE.com", "collector.example.COM", True),
        ("example.com.", "example.com", True),
        ("example.com", "example.com.", True),
        ("a b,example.com", "example.com", True),
        ("http://example.com", "example.com", True),
        ("example.com:4318", "example.com", True),
        ("example.com:4317", "example.com", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("169.254/16", "169.254.1.1", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:4318", "10.1.2.3", True),
        ("10.1.2.3:1", "10.1.2.3", False),
        ("1.2.3", "10.1.2.3", False),
        ("::1", "[fd00::1]", False),
        ("fd00::1", "[fd00::1]", True),
        ("[fd00::1]", "[fd00::1]", True),
        ("[FD00::1]:4318", "[fd00::1]", True),
        ("[fd00::1]:1", "[fd00::1]", False),
        ("fd00::/8", "[fd12:3456::1]", True),
        ("[fd00::]/8", "[fd12:3456::1]", True),
        ("fd00::/8", "10.0.0.1", False),
        ("fd00::/8", "name.example", False),
        ("10.0.0.0/8", "[::ffff:10.0.0.1]", True),
    ],
)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_no_proxy_means_the_same_to_http_and_grpc(
    variable: str, exceptions: str, host: str, direct: bool
) -> None:
    """One table for both transports; httpx, grpcio and requests differ in half of these rows."""
    found = network(PROXY | {variable: exceptions})
    assert found.mistakes == ()
    assert (found.route(f"http://{host}:4318/v1/traces").proxy is None) is direct
    for target in (f"{host}:4318", f"dns:///{host}:4318"):
        assert (found.grpc_route(target, insecure=True).proxy is None) is direct


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "[::1]", "a.localhost"]
)
def test_loopback_never_goes_through_a_proxy(host: str) -> None:
    """Proxies are meant for the outside, whatever NO_PROXY forgets."""
    found = network(PROXY)
    assert found.route(f"https://{host}/logs").proxy is None
    assert found.grpc_route(f"{host}:4317", insecure=False).proxy is None


@pytest.mark.parametrize(
    ("environment", "url", "variable"),
    [
        ({"http_proxy": "http://a:1", "HTTP_PROXY": "http://b:1"}, "http://c", "http_proxy"),
        ({"http_proxy": "", "HTTP_PROXY": "http://b:1"}, "http://c", "HTTP_PROXY"),
        ({"HTTPS_PROXY": "b:1"}, "https://c", "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "b:1"}, "http://c", None),
        ({"HTTPS_PROXY": " ", **PROXY}, "https://c", "ALL_PROXY"),
        ({"grpc_proxy": "http://a:1", **PROXY}, "https://c", "ALL_PROXY"),
        ({}, "https://c", None),
    ],
)
def test_which_proxy(environment: dict[str, str], url: str, variable: str | None) -> None:
    """The scheme's variable, then ALL_PROXY; lower case first; an empty one counts as unset."""
    proxy = network(environment).route(url).proxy
    assert (proxy and proxy.variable) == variable


def test_grpc_has_variables_of_its_own() -> None:
    """`grpc_proxy` and `no_grpc_proxy`, which grpcio knows, come first; sockets take no proxy."""
    found = network(PROXY | {"grpc_proxy": "http://a:1", "no_grpc_proxy": "x", "NO_PROXY": "c"})
    proxy = found.grpc_route("c:4317", insecure=False).proxy
    assert proxy is not None and proxy.variable == "grpc_proxy"
    assert found.grpc_route("x:4317", insecure=False).proxy is None
    assert found.grpc_route("unix:///run/otel.sock", insecure=True).proxy is None


@pytest.mark.parametrize(
    "value",
    [
        "http://",
        "foo",
        "http://proxy:99999",
        "http://proxy:0",
        "http://proxy:x",
        "http://pröxy:3128",
        "http://me:pässword@proxy:3128",
        "ftp://me:s3cret@proxy:21",
        "socks9://proxy:1080",
        "http://me:s3cret@:3128",
        "http://a b:1",
        "http://[::1:3128",
        '"http://proxy:3128"',
        "'http://me:s3cret@proxy:3128'",
        "://",
    ],
)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_broken_proxy_is_one_mistake(variable: str, value: str) -> None:
    """Named by its variable, with the remedy; a password is never shown."""
    found = network({variable: value})
    (mistake,) = found.mistakes
    assert mistake.startswith(f"{variable} ")
    assert "write " in mistake
    assert "s3cret" not in mistake and "pässword" not in mistake
    with pytest.raises(ConfigurationError):
        found.route("https://c")


@pytest.mark.parametrize("value", ["10.0.0.0/33", "fd00::/129", "[nonsense]", "a:b:c", "x:99999"])
def test_a_broken_exception_is_a_mistake(value: str) -> None:
    """An entry of NO_PROXY that can never match is told, not passed over."""
    (mistake,) = network({"NO_PROXY": f"good.example,{value}"}).mistakes
    assert mistake.startswith(f"NO_PROXY holds {value!r}: write ")


def test_what_a_transport_cannot_do_is_a_mistake() -> None:
    """SOCKS and https:// proxies for gRPC are refused where they would be used, and only there."""
    for value in ("socks5://proxy:1080", "https://proxy:3129"):
        found = network({"ALL_PROXY": value, "NO_PROXY": "near"})
        with pytest.raises(ConfigurationError, match="gRPC goes through http:// proxies only"):
            found.grpc_route("c:4317", insecure=False)
        assert found.grpc_route("near:4317", insecure=False).proxy is None
    assert network({"ALL_PROXY": "https://proxy:3129"}).route("https://c").proxy is not None


def test_passwords_of_proxies_are_secrets() -> None:
    """As written and decoded; they are in no representation."""
    found = network({"ALL_PROXY": "http://me:s3%40cret@proxy:3128"})
    assert found.secrets == {"s3%40cret", "s3@cret"}
    route = found.route("https://c")
    assert "cret" not in f"{found!r} {route!r} {route.via}"
    assert route.via == " through the proxy http://proxy:3128 (ALL_PROXY)"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize(
    "variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_DIR"]
)
def test_one_trust_for_all(tmp_path: Path, authority: trustme.CA, variable: str) -> None:
    """Each variable, a file or a folder without hashed names, makes the same store; and who has the
    same trust shares one TLS context until the files change."""
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    (tmp_path / "readme.txt").write_text("no certificate")
    found = network({variable: str(tmp_path if variable == "SSL_CERT_DIR" else file)})
    assert found.mistakes == ()
    context = shared_context(found.trust)
    assert len(context.get_ca_certs()) == 1
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
    assert authority.cert_pem.bytes().strip() in found.trust.roots()
    assert shared_context(network({variable: found.trust.path}).trust) is context
    trustme.CA().cert_pem.write_to_path(str(file))
    assert shared_context(found.trust) is not context


def test_the_order_of_trust(tmp_path: Path, authority: trustme.CA) -> None:
    """The first variable that is set counts alone; without any it is certifi's store."""
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    both = {"REQUESTS_CA_BUNDLE": "/missing", "SSL_CERT_FILE": str(file), "SSL_CERT_DIR": ""}
    found = network(both)
    assert (found.trust.variable, found.mistakes) == ("SSL_CERT_FILE", ())
    assert str(network({}).trust) == "certifi's authorities"
    assert len(shared_context(network({}).trust).get_ca_certs()) > 50


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize("content", [None, "", "nothing", "a\0b"])
def test_an_unusable_store_is_a_mistake(tmp_path: Path, variable: str, content: str | None) -> None:
    """Missing, empty or not PEM: told by variable and value, before anything connects."""
    path = tmp_path / "store"
    if content is not None and variable == "SSL_CERT_DIR":
        path.mkdir()
        (path / "x.pem").write_text(content)
    elif content is not None:
        path.write_text(content)
    (mistake,) = network({variable: str(path)}).mistakes
    assert mistake.startswith(f"{variable} is {str(path)!r} (")
    assert "PEM file" in mistake and "unset it" in mistake


def test_all_who_agree_share_one_context(tmp_path: Path) -> None:
    """However many sources and senders start at once, and however many distinct settings there
    are: one context for each, those with a client's certificate among them, until files change."""
    ca = trustme.CA()
    trusts = []
    for number in range(8):
        path = tmp_path / f"{number}.pem"
        ca.cert_pem.write_to_path(str(path))
        trusts.append(network({"SSL_CERT_FILE": str(path)}).trust)
    issued = ca.issue_cert("client@example.com")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    shown = Identity(str(certificate), str(key))
    settings = [(trust, who) for trust in trusts for who in (None, shown)]
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda one: shared_context(*one), settings * 5))
    assert len(set(map(id, made))) == len(settings)
    assert made[: len(settings)] == made[-len(settings) :]
    key.write_text("half of a k")
    with pytest.raises(ssl.SSLError):
        shared_context(trusts[0], shown)
    issued.private_key_pem.write_to_path(str(key))
    again = shared_context(trusts[0], shown)
    assert again is not made[1] and shared_context(trusts[0], shown) is again
    assert shared_context(trusts[0]) is made[0]


def test_a_store_with_a_broken_certificate(tmp_path: Path) -> None:
    """What only OpenSSL can see is a configuration error where it is loaded."""
    path = tmp_path / "ca.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
        shared_context(network({"SSL_CERT_FILE": str(path)}).trust)


def test_strict_checks_have_a_remedy_of_their_own() -> None:
    """What Python 3.13 refuses is told as what is missing in the certificate; the rest is not."""
    missing = "CA cert does not include key usage extension"
    for words in ("Missing Authority Key Identifier", missing):
        assert "Python 3.13" in certificate_remedy(words, "usual")
        assert "authorityKeyIdentifier" in certificate_remedy(words, "usual")
    assert certificate_remedy("unable to get local issuer certificate", "usual") == "usual"


@pytest.mark.parametrize(
    ("value", "kept"),
    [('"abc"', True), ("'abc'", True), ('"abc', True), ("abc'", True), ("abc", False), ("", False),
     ('a="b"', False)],
)  # fmt: skip
def test_quotes_that_were_kept(value: str, kept: bool) -> None:
    """Quotes around a value, or half of them, are a mistake that does not show the value."""
    mistake = kept_quotes("ALLOY_API_KEY", value)
    assert (mistake is not None) is kept
    assert mistake is None or ("ALLOY_API_KEY" in mistake and "abc" not in mistake)
