"""Guarantees of `outbound` and `pinned`, with real sockets: whoever names an endpoint, or answers
for its name, leads no connection to an inner address."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import grpc
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from otel_alloy.errors import ConfigurationError
from otel_alloy.otlp.grpc import GrpcSender
from otel_alloy.otlp.outcome import Kind, Sender
from otel_alloy.otlp.pinned import PinnedTarget
from otel_alloy.otlp.senders import open_senders
from otel_alloy.outbound import Address, OutboundPolicy, Refused, Resolve, is_public, look_up
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.otlp import OtlpSettings, otlp_exporters

from .otlp_servers import Answer, grpc_endpoint, http_endpoint, raw_relay

NAME = "collector.example"
OUTSIDE, INSIDE = "127.0.0.1", "127.0.0.2"
PROTOCOLS = pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
REFUSAL = "refused by destinations_policy: {} leads to an address that is not public"


def outside(address: Address) -> bool:
    """These tests have loopback only: one of its addresses stands for the Internet."""
    return str(address) == OUTSIDE or is_public(address)


class Names:
    """A name server: its answers one after the other, the last one for ever, and the questions."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, _: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    @property
    def policy(self) -> OutboundPolicy:
        return OutboundPolicy(public_only=True, resolve=self, public=outside)


def opened(policy: OutboundPolicy | None, url: str, protocol: str, **variables: str) -> Sender:
    """The sender of traces."""
    environment = {"OTEL_EXPORTER_OTLP_" + k: v for k, v in variables.items()} | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_LOGS_EXPORTER": "none",
    }
    traces, _ = open_senders(otlp_exporters(environment), "test", system_runtime(), policy)
    assert traces is not None
    return traces


@contextmanager
def canary(address: str = INSIDE, port: int = 0) -> Iterator[tuple[int, Callable[[], bool]]]:
    """The port of an inner server, and whether anybody has connected to it. Without an address it
    listens on all of them, of both families where the machine has both."""
    both = not address and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    with socket.create_server((address, port), family=family, dualstack_ipv6=both) as listener:
        listener.setblocking(False)

        def heard() -> bool:
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                return False
            return True

        yield listener.getsockname()[1], heard


@contextmanager
def endpoint(protocol: str) -> Iterator[tuple[int, Callable[[], int]]]:
    """The port of an endpoint outside, and how many requests it has had."""
    if protocol == "grpc":
        with grpc_endpoint() as over_grpc:
            yield over_grpc.port, lambda: len(over_grpc.calls)
    else:
        with http_endpoint() as over_http:
            yield over_http.port, lambda: len(over_http.requests)


# Each special network by its first and last address, and what is known for it.
INNER = """
    0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 100.100.100.200
    127.0.0.0 127.255.255.255 169.254.0.0 169.254.169.254 169.254.170.2 169.254.255.255
    172.16.0.0 172.31.255.255 192.0.0.0 192.0.0.192 192.0.0.255 192.0.2.1 192.88.99.1
    192.168.0.0 192.168.255.255 198.18.0.0 198.19.255.255 198.51.100.1 203.0.113.1
    224.0.0.1 239.255.255.255 240.0.0.0 255.255.255.255
    :: ::1 ::7f00:1 ::a9fe:a9fe ::808:808 100::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%lo
    febf:ffff::1 fec0::1 ff02::1 2001:db8::1 3fff::1 5f00::1 4000::1 2001:2::1 2001:10::1
    ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1
    64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b::a00:1 64:ff9b:1::808:808 64:ff9b:1::7f00:1
    2002:7f00:1::1 2002:a9fe:a9fe:: 2002:808:808::1 2001:0:7f00:1::1 2001:0:808:808::1
    2a00:1450:4001:81b:0:5efe:a00:1 2a00:1450:4001:81b:200:5efe:7f00:1 2a00:1450::1%eth0
"""
PUBLIC = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0
    169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0 192.167.255.255
    192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255
    2001:4860:4860::8888 2606:4700:4700::1111 2a00:1450:4001:81b::200e 2001:200:: 2003::
    ::ffff:8.8.8.8 64:ff9b::808:808
"""


def test_which_addresses_are_public() -> None:
    """Every special network, at its edges and with IPv4 embedded in IPv6, is told from what lies
    beside it."""
    assert [a for a in INNER.split() if is_public(ip_address(a))] == []
    assert [a for a in PUBLIC.split() if not is_public(ip_address(a))] == []


@given(st.integers(0, 2**32 - 1))
def test_embedded_addresses_are_judged(number: int) -> None:
    """Nothing is public within IPv6 that is not public by itself, and what is called public here,
    Python's own table calls so, too."""
    address = IPv4Address(number)
    judged = is_public(address)
    assert judged <= address.is_global
    for base in (0xFFFF << 32, 0x64_FF9B << 96):
        assert is_public(IPv6Address(base | number)) is judged
    for written in (number, 0x2002 << 112 | number << 80, 0x2001_0000 << 96 | number << 64):
        assert not is_public(IPv6Address(written))
    assert not is_public(IPv6Address(0x2A00 << 112 | 0x5EFE << 32 | number))


@given(st.integers(0, 2**128 - 1))
def test_no_ipv6_address_is_public_that_python_does_not_call_global(number: int) -> None:
    """The same for all of IPv6."""
    address = IPv6Address(0x2 << 124 | number >> 4)
    assert is_public(address) <= address.is_global
    assert is_public(IPv6Address(number)) <= IPv6Address(number).is_global


@PROTOCOLS
@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost.", "LOCALHOST", "127.0.0.1", "127.1", "127.0.0.2", "2130706433",
        "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "127.0.0.1.", "0", "0.0.0.0",
        "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]",
        "[64:ff9b::7f00:1]", "[::127.0.0.1]", "[2002:7f00:1::]",
        "１２７.0.0.1", "127。0。0。1", "①②⑦.0.0.1", "ｌocalhost", "user@127.0.0.1",
        "8.8.8.8@127.0.0.1", "8.8.8.8%2f@127.0.0.1", "169.254.169.254", "[fd00:ec2::254]",
    ],
)  # fmt: skip
def test_spellings_of_inner_addresses(host: str, protocol: str) -> None:
    """However an inner address is written, nobody connects to it. What the machine's own look-up
    does not understand is no address at all."""
    with canary("") as (port, heard):
        try:
            sender = opened(OutboundPolicy(public_only=True), f"http://{host}:{port}", protocol)
        except ConfigurationError:
            pass
        else:
            with closing(sender):
                outcome = sender.send(b"x")
                assert outcome.kind in (Kind.MISCONFIGURED, Kind.RETRY)
                refused = "not public" in outcome.reason
                assert refused or "connection failed" in outcome.reason
                # These are known to every look-up.
                known = ("localhost", "127.1", "2130706433", "0x7f.1", "[::1]")
                assert refused or host not in known
        assert not heard()


@PROTOCOLS
@pytest.mark.parametrize(
    "answer",
    [
        [INSIDE], [OUTSIDE, INSIDE], [INSIDE, OUTSIDE], [OUTSIDE, "::1"], ["::ffff:127.0.0.2"],
        [OUTSIDE, "169.254.169.254"], [OUTSIDE, "fe80::1%lo"], [OUTSIDE, "nonsense"],
    ],
)  # fmt: skip
def test_one_inner_address_refuses_the_name(answer: list[str], protocol: str) -> None:
    """An answer that mixes public and inner addresses leads nowhere. The words name the host, and
    no address of the inner network."""
    with endpoint(protocol) as (port, requests), canary(INSIDE, port) as (_, heard):
        with closing(opened(Names(answer).policy, f"http://{NAME}:{port}", protocol)) as sender:
            outcome = sender.send(b"x")
        assert (outcome.kind, outcome.reason) == (Kind.MISCONFIGURED, REFUSAL.format(NAME))
        assert requests() == 0 and not heard()


@PROTOCOLS
def test_a_name_that_is_bound_anew_gains_nothing(protocol: str) -> None:
    """One look-up for one connection: the answer that was judged is the one that is connected to. A
    later one that is inner refuses, and public again it is served again."""
    names = Names([OUTSIDE], [INSIDE], [OUTSIDE])
    with endpoint(protocol) as (port, requests), canary(INSIDE, port) as (_, heard):
        with closing(opened(names.policy, f"http://{NAME}:{port}", protocol)) as sender:
            assert names.asked == []  # nothing is asked before something is sent
            for number in (1, 2):
                assert sender.send(b"x").kind is Kind.DELIVERED
                assert (requests(), names.asked) == (number, [NAME])
            sender.rest()
            assert sender.send(b"x").reason == REFUSAL.format(NAME)
            assert sender.send(b"x").kind is Kind.DELIVERED
        assert requests() == 3 and not heard()
    assert names.asked == [NAME] * 3


@PROTOCOLS
def test_a_connection_that_breaks_comes_back_to_no_inner_address(protocol: str) -> None:
    """The endpoint breaks its connection, and then its name leads inside: that is asked again and
    refused, or the connection is made to the address that was judged."""
    names = Names([OUTSIDE], [INSIDE])
    with endpoint(protocol) as (port, requests), raw_relay(port) as relay:
        url = f"http://{NAME}:{relay.port}"
        with canary(INSIDE, relay.port) as (_, heard):
            with closing(opened(names.policy, url, protocol, TIMEOUT="5000")) as sender:
                assert sender.send(b"x").kind is Kind.DELIVERED
                relay.move(port)
                reasons = [sender.send(b"x").reason for _ in range(3)]
                sender.rest()
                assert sender.send(b"x").reason == REFUSAL.format(NAME)
            assert not heard() and requests() == 1 + reasons.count("")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(code: int) -> None:
    """Neither to the metadata of a cloud nor to a server that would answer."""
    with http_endpoint() as server, canary() as (port, heard):
        url = f"http://{NAME}:{server.port}"
        with closing(opened(Names([OUTSIDE]).policy, url, "http/protobuf")) as sender:
            for place in (f"http://{INSIDE}:{port}/", "http://169.254.169.254/latest/", "//[::1]/"):
                server.answer = Answer(code, b"", {"Location": place})
                outcome = sender.send(b"x")
                assert outcome.kind is Kind.MISCONFIGURED and "not followed" in outcome.reason
        assert len(server.requests) == 3 and not heard()


def _server(ca: trustme.CA, name: str, seen: list[str | None]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    context.sni_callback = lambda _, asked, __: seen.append(asked)
    return context


@pytest.mark.parametrize("name", [NAME, "other.example", OUTSIDE])
def test_https_stays_by_name(name: str, tmp_path: Path) -> None:
    """Certificate, SNI and Host are those of the name, though the connection is one to an address:
    a certificate for another name, or for that address, is none."""
    ca, asked = trustme.CA(), list[str | None]()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    policy = OutboundPolicy(True, True, Names([OUTSIDE]), outside)
    with http_endpoint(_server(ca, name, asked)) as server:
        url = f"https://{NAME}:{server.port}"
        files = {"CERTIFICATE": str(tmp_path / "ca.pem")}
        with closing(opened(policy, url, "http/protobuf", **files)) as sender:
            outcome = sender.send(b"x")
    assert asked == [NAME]
    if name == NAME:
        assert outcome.kind is Kind.DELIVERED
        assert server.requests[0].headers["host"] == f"{NAME}:{server.port}"
    else:
        assert outcome.kind is Kind.MISCONFIGURED and server.requests == []


@pytest.mark.parametrize("name", [NAME, "other.example", OUTSIDE])
def test_grpc_over_tls_stays_by_name(name: str, tmp_path: Path) -> None:
    """The same for gRPC."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    own = ca.issue_cert(name)
    pair = (own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())
    policy = OutboundPolicy(True, True, Names([OUTSIDE]), outside)
    with grpc_endpoint(grpc.ssl_server_credentials([pair])) as server:
        url = f"https://{NAME}:{server.port}"
        files = {"CERTIFICATE": str(tmp_path / "ca.pem")}
        with closing(opened(policy, url, "grpc", **files)) as sender:
            outcome = sender.send(b"x")
    if name == NAME:
        assert outcome.kind is Kind.DELIVERED
    else:
        assert outcome.kind is Kind.MISCONFIGURED and "another host name" in outcome.reason
        assert server.calls == []


def test_when_a_grpc_name_is_looked_up_again() -> None:
    """After a minute, after a rest, and after a failure, which is also the turn of the other
    family. A look-up that fails keeps what was judged; one that is refused does not."""
    now = 0.0
    fails = False
    names = Names(["8.8.8.8", "2001:4860::1", "1.1.1.1"])

    def resolve(host: str, port: int) -> Sequence[str]:
        found = names(host, port)
        if fails:
            raise OSError("no name server")
        return found

    policy = OutboundPolicy(public_only=True, resolve=resolve)
    chosen = OtlpSettings("traces", "grpc", NAME, False)
    pinned = PinnedTarget(policy, chosen, lambda: now)
    four, six = "ipv4:8.8.8.8:443,1.1.1.1:443", "ipv6:[2001:4860::1]:443"
    fails = True
    with pytest.raises(OSError):
        pinned.look()
    fails = False
    assert (pinned.look(), pinned.target, pinned.authority) == (True, four, f"{NAME}:443")
    now = 59.0
    assert not pinned.look() and len(names.asked) == 2
    pinned.forget()
    assert not pinned.look() and len(names.asked) == 3
    pinned.doubt()
    assert pinned.look() and pinned.target == six and len(names.asked) == 4
    now, fails = 120.0, True
    assert not pinned.look() and pinned.target == six and len(names.asked) == 5
    fails, names.answers = False, [["10.0.0.1"]]
    for _ in range(2):
        with pytest.raises(Refused):
            pinned.look()
    names.answers = [["1.1.1.1"]]
    assert pinned.look() and pinned.target == "ipv4:1.1.1.1:443"


@pytest.mark.parametrize(
    ("policy", "variables", "words"),
    [
        (OutboundPolicy(https_only=True), {"ENDPOINT": "http://c.example"}, "write https://"),
        (OutboundPolicy(https_only=True), {"ENDPOINT": "http://c:1", "PROTOCOL": "grpc"},
         "write https://"),
        (OutboundPolicy(https_only=True),
         {"ENDPOINT": "c.example:1", "PROTOCOL": "grpc", "INSECURE": "true"}, "write https://"),
        *(
            (policy, {"ENDPOINT": target, "PROTOCOL": "grpc"}, "only a host and a port")
            for policy in (OutboundPolicy(https_only=True), OutboundPolicy(public_only=True))
            for target in ("unix:/run/c.sock", "unix:80", "unix:///c", "unix-abstract:c", "dns:c:1",
                           "dns:///c:1", "dns://127.0.0.1/c", "xds:///c", "ipv4:127.0.0.1:1",
                           "ipv6:[::1]:1", "vsock:1:2", "c:1,127.0.0.1:2", "c%lo:1")
        ),
        (OutboundPolicy(public_only=True),
         {"ENDPOINT": "https://c.example", "proxy": "http://proxy.example:3128"}, "NO_PROXY"),
        (OutboundPolicy(public_only=True),
         {"ENDPOINT": "https://c.example:1", "PROTOCOL": "grpc",
          "proxy": "http://proxy.example:3128"}, "NO_PROXY"),
        (OutboundPolicy(public_only=True), {"exporter": "console"}, "choose otlp"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_judged_are_mistakes(
    policy: OutboundPolicy, variables: dict[str, str], words: str
) -> None:
    """What is not encrypted, what names no host, what connects by itself or through a proxy is said
    at the start, once for both signals; without a policy each is allowed."""
    own = {"proxy": "https_proxy", "exporter": "OTEL_TRACES_EXPORTER"}
    found = otlp_exporters(
        {own.get(k, f"OTEL_EXPORTER_OTLP_{k}"): v for k, v in variables.items()}
        | {"OTEL_LOGS_EXPORTER": "none"}
    )
    with pytest.raises(ConfigurationError) as raised:
        open_senders(found, "test", system_runtime(), policy)
    (mistake,) = raised.value.mistakes
    assert words in mistake
    for nothing in (None, OutboundPolicy()):
        for sender in open_senders(found, "test", system_runtime(), nothing):
            if sender is not None and not isinstance(sender, GrpcSender):
                sender.close()


def test_the_same_look_up_without_a_policy() -> None:
    """The machine's own answer is one of plain addresses, so that connecting looks nothing up."""
    resolve: Resolve = look_up
    found = resolve("127.1", 80)
    assert found and all(ip_address(one).is_loopback for one in found)
