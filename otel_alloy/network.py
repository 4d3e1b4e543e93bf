"""How connections leave this machine: through which proxy, and whose certificates are trusted.

Read from the environment once, into values, with one meaning for all that connects: httpcore (the
Logs API and OTLP/HTTP), grpcio, and requests inside the SDK's exporters. Left to themselves, the
last two read different variables and read NO_PROXY differently, and the first one reads none.

- **Proxy**: `http_proxy`, `https_proxy`, by the scheme of the URL, else `all_proxy`; for gRPC
  `grpc_proxy` before them. The lower-case name wins over the upper-case one, as in curl. A loopback
  address never goes through a proxy, nor does what `no_proxy` names (`no_grpc_proxy` for gRPC).
- **Trust**: see `trust`.

Nothing here connects, and nothing here knows Alloy or OTLP.
"""

from __future__ import annotations

import re
import ssl
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from otel_alloy.environment import first_set, kept_quotes
from otel_alloy.errors import ConfigurationError
from otel_alloy.trust import VARIABLES as TRUST_VARIABLES
from otel_alloy.trust import Trust, trust_of

_PROXIES = ("http", "https", "all", "grpc")
_SCHEMES = ("http", "https", "socks5", "socks5h")
_EXCEPTIONS = ("no_proxy", "NO_PROXY")
_MOST_SHOWN = 10
_GRPC_EXCEPTIONS = ("no_grpc_proxy", "NO_GRPC_PROXY", *_EXCEPTIONS)
VARIABLES = frozenset(
    (
        *(case(f"{name}_proxy") for name in _PROXIES for case in (str.lower, str.upper)),
        *_GRPC_EXCEPTIONS,
        *TRUST_VARIABLES,
    )
)
"""Every variable that is read here."""

_Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the variable that names it."""

    variable: str
    url: str = field(repr=False)
    """With user and password, percent-encoded; always with a scheme."""

    @property
    def place(self) -> str:
        """Scheme, host and port, as they may be shown."""
        url = urlsplit(self.url)
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}"

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User and password, decoded; None where there are none."""
        url = urlsplit(self.url)
        if url.username is None:
            return None
        return unquote(url.username), unquote(url.password or "")

    @property
    def secret(self) -> str:
        """The password, as it was written; empty where there is none."""
        return urlsplit(self.url).password or ""

    def __str__(self) -> str:
        return f"{self.place} ({self.variable})"


@dataclass(frozen=True, slots=True)
class _Rule:
    """One entry of NO_PROXY."""

    host: str = ""
    """In lower case; with a leading dot it matches what lies below it only. `*` is everything."""
    network: IPv4Network | IPv6Network | None = None
    port: int | None = None

    def covers(self, host: str, address: _Address | None, port: int | None) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            return address is not None and address in self.network
        if self.host == "*":
            return True
        below = address is None and host.endswith(f".{self.host.removeprefix('.')}")
        return below or host == self.host


@dataclass(frozen=True, slots=True)
class Route:
    """How one endpoint is reached."""

    proxy: Proxy | None = None
    trust: Trust = field(default_factory=Trust)

    @property
    def via(self) -> str:
        """` through the proxy …` where there is one: the words behind the name of the endpoint."""
        return f" through the proxy {self.proxy}" if self.proxy else ""

    def channel_options(self, target: str) -> tuple[str, list[tuple[str, str | int]]]:
        """What to connect a gRPC channel to in order to reach `target`, and its options. The proxy
        is asked with CONNECT; grpcio reads no proxy variable then."""
        options: list[tuple[str, str | int]] = [("grpc.enable_http_proxy", 0)]
        if self.proxy is None:
            return target, options
        url = urlsplit(self.proxy.url)
        name = target.rpartition("/")[2]
        options += [("grpc.http_connect_server", name), ("grpc.default_authority", name)]
        if self.proxy.credentials:
            pair = ":".join(self.proxy.credentials)
            header = f"Proxy-Authorization:Basic {b64encode(pair.encode()).decode()}"
            options.append(("grpc.http_connect_headers", header))
        host = url.netloc.rpartition("@")[2]
        return host if url.port else f"{host.rstrip(':')}:80", options

    def session(self, context: ssl.SSLContext) -> Any:
        """A `requests.Session` for the SDK's exporters."""
        import requests
        from requests.adapters import HTTPAdapter

        class Adapter(HTTPAdapter):
            """With our TLS context, which knows whom to trust and what to show."""

            def init_poolmanager(self, *args: Any, **options: Any) -> None:
                super().init_poolmanager(*args, **options, ssl_context=context)

            def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
                return super().proxy_manager_for(proxy, **options, ssl_context=context)

            def build_connection_pool_key_attributes(
                self, request: Any, verify: Any, cert: Any = None
            ) -> Any:
                host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
                return host, {"ssl_context": context}

            def cert_verify(self, *_: Any) -> None:
                """Nothing: what requests would set here stands in the context."""

        session = requests.Session()
        session.trust_env = False
        if self.proxy:
            session.proxies = dict.fromkeys(("http", "https"), self.proxy.url)
        session.mount("https://", Adapter())
        return session


@dataclass(frozen=True, slots=True)
class Network:
    """What the environment says of all connections. Without arguments: no proxy, certifi."""

    proxies: tuple[tuple[str, Proxy], ...] = ()
    exceptions: tuple[_Rule, ...] = ()
    grpc_exceptions: tuple[_Rule, ...] = ()
    trust: Trust = field(default_factory=Trust)
    mistakes: tuple[str, ...] = ()
    """What is wrong with the variables, each with its remedy and without a password."""

    @property
    def secrets(self) -> set[str]:
        """What must not be shown."""
        written = {proxy.secret for _, proxy in self.proxies} - {""}
        return written | {unquote(secret) for secret in written}

    def route(self, url: str) -> Route:
        """How to reach a URL of http or https. Raises ConfigurationError with all mistakes, and
        where the proxy is one that needs a package which is not installed."""
        self._checked()
        parts = urlsplit(url)
        proxy = self._proxy((parts.scheme, "all"), self.exceptions, parts)
        if proxy and proxy.url.startswith("socks") and find_spec("socksio") is None:
            raise ConfigurationError(
                [
                    f"{proxy.variable} is {proxy.place!r}, and what SOCKS proxies need is not "
                    "installed: install the extra `socks` of otel-alloy (the packages socksio and "
                    "PySocks), or name an http:// proxy."
                ]
            )
        return Route(proxy, self.trust)

    def grpc_route(self, target: str, *, insecure: bool) -> Route:
        """How to reach a gRPC target. Raises ConfigurationError with all mistakes, and where the
        proxy is not an `http://` one."""
        self._checked()
        rest = target.rpartition("/")[2]
        if target.startswith(("unix:", "unix-abstract:", "vsock:")):
            return Route(None, self.trust)
        parts = urlsplit(f"//{rest}")
        names = ("grpc", "http" if insecure else "https", "all")
        proxy = self._proxy(names, self.grpc_exceptions, parts)
        if proxy and not proxy.url.startswith("http://"):
            raise ConfigurationError(
                [
                    f"{proxy.variable} is {proxy.place!r}, and gRPC goes through http:// proxies "
                    "only: name one in grpc_proxy, put the endpoint into NO_PROXY, or set "
                    "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf."
                ]
            )
        return Route(proxy, self.trust)

    def _checked(self) -> None:
        if self.mistakes:
            raise ConfigurationError(list(self.mistakes))

    def _proxy(
        self, names: tuple[str, ...], exceptions: tuple[_Rule, ...], url: SplitResult
    ) -> Proxy | None:
        known = dict(self.proxies)
        proxy = next((known[name] for name in names if name in known), None)
        if proxy is None:
            return None
        try:
            host, port = (url.hostname or "").rstrip("."), url.port
        except ValueError:
            return None
        port = port or {"http": 80, "https": 443}.get(url.scheme)
        address = _address(host)
        if _is_loopback(host, address):
            return None
        return None if any(r.covers(host, address, port) for r in exceptions) else proxy


def network(environment: Mapping[str, str]) -> Network:
    """What the variables in `environment` say, mistakes included. Only looks at files."""
    mistakes: list[str] = []
    proxies = []
    for name in _PROXIES:
        variable, value = first_set(environment, (f"{name}_proxy", f"{name.upper()}_PROXY"))
        if value:
            try:
                proxies.append((name, _proxy(variable, value)))
            except ValueError as error:
                mistakes.append(kept_quotes(variable, value) or str(error))
    exceptions = _rules(environment, _EXCEPTIONS, mistakes)
    of_grpc = _rules(environment, _GRPC_EXCEPTIONS, mistakes)
    trust, wrong = trust_of(environment)
    if wrong:
        mistakes.append(wrong)
    return Network(tuple(proxies), exceptions, of_grpc, trust, tuple(dict.fromkeys(mistakes)))


def _proxy(variable: str, value: str) -> Proxy:
    """Raises ValueError with the mistake."""
    written = value if "://" in value else f"http://{value}"
    remedy = "write http://host:port, with http://user:password@host:port where it wants them"
    try:
        url = urlsplit(written)
        port = url.port
    except ValueError:
        url, port = urlsplit(""), None
    shown = f"{url.scheme}://{url.netloc.rpartition('@')[2]}" if "://" in value else value
    if "@" in shown or not url.netloc:
        shown = "" if "@" in value else value
    why = ""
    if not url.hostname or re.search(r"[\s\x00-\x1f\x7f]", value):
        why = "is not the URL of a proxy"
    elif not value.isascii():
        why, remedy = "holds characters outside ASCII", f"percent-encode them; {remedy}"
    elif url.scheme not in _SCHEMES:
        why = f"has a scheme other than {', '.join(_SCHEMES)}"
    elif port == 0 or ("://" not in value and port is None):
        why = "has no port"
    elif not re.fullmatch(r"[\w.:%-]+", url.hostname):
        why = "has an impossible host name"
    if why:
        place = f" ({shown!r})" if shown else ""
        raise ValueError(f"{variable} {why}{place}: {remedy}, or unset it.")
    return Proxy(variable, written)


def _rules(
    environment: Mapping[str, str], names: tuple[str, ...], mistakes: list[str]
) -> tuple[_Rule, ...]:
    variable, value = first_set(environment, names)
    if wrong := kept_quotes(variable, value):
        mistakes.append(wrong)
        return ()
    rules, wrong_entries = _entries(value)
    shown = wrong_entries[:_MOST_SHOWN]
    mistakes += [
        f"{variable} holds {entry[:100]!r}: write names, addresses or networks with commas "
        "between them, such as .example.com,10.0.0.0/8,[::1]:4318."
        for entry in shown
    ]
    if len(wrong_entries) > len(shown):
        mistakes.append(f"{variable} holds {len(wrong_entries) - len(shown)} more of the kind.")
    return rules


@lru_cache(maxsize=8)  # everybody who connects asks, and some have thousands of entries
def _entries(value: str) -> tuple[tuple[_Rule, ...], tuple[str, ...]]:
    """The rules of a value, and its entries that can be none."""
    rules: list[_Rule] = []
    wrong: list[str] = []
    for entry in dict.fromkeys(re.split(r"[\s,]+", value)):
        if entry:
            try:
                rules.append(_rule(entry))
            except ValueError:
                wrong.append(entry)
    return tuple(rules), tuple(wrong)


def _rule(entry: str) -> _Rule:
    """Raises ValueError for what cannot be an entry."""
    text = entry.rpartition("://")[2].rstrip("/").lower()
    if text == "*":
        return _Rule("*")
    if "/" in text:
        return _Rule(network=_network(text))
    if (address := _address(text)) is not None:
        return _Rule(network=ip_network(address))
    match = re.fullmatch(r"(\[[^\]]*\]|[^\[\]:]+)(?::(\d{1,5}))?", text)
    if match is None or int(match[2] or 1) not in range(1, 65536):
        raise ValueError(entry)
    port = int(match[2]) if match[2] else None
    address = _address(match[1].strip("[]"))
    if address is not None:
        return _Rule(network=ip_network(address), port=port)
    if "[" in match[1]:
        raise ValueError(entry)
    host = match[1].removesuffix(".")
    return _Rule(host[1:] if host.startswith("*.") else host, port=port)


def _network(text: str) -> IPv4Network | IPv6Network:
    """A CIDR network; that of IPv4 also as `169.254/16`, as macOS writes it. Raises ValueError."""
    address, _, length = text.rpartition("/")
    address = address.strip("[]")
    if re.fullmatch(r"\d+(\.\d+){0,2}", address):
        address += ".0" * (3 - address.count("."))
    return ip_network(f"{address}/{length}", strict=False)


def _address(host: str) -> _Address | None:
    try:
        address = ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_loopback(host: str, address: _Address | None) -> bool:
    if address is not None:
        return address.is_loopback
    return host == "localhost" or host.endswith(".localhost")
