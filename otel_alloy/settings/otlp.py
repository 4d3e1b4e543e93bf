"""OpenTelemetry's own variables, parsed once into values: which exporter each signal goes to, and
how (`OtlpExporters`).

Every OTEL_EXPORTER_OTLP_* variable exists in a general form and in one per signal
(`OTEL_EXPORTER_OTLP_TRACES_*` and so on), which wins; an empty value counts as unset. Source:
opentelemetry-specification v1.60.0, specification/protocol/exporter.md.

TIMEOUT: integer milliseconds, 0 is no limit, as specified. opentelemetry-python (1.45, issue 4044)
counts seconds, so a value below a second gets a warning.

Nothing here opens a connection or reads the process's environment. The only I/O is to look whether
the certificate files can be read, and which exporters are installed. How a connection leaves this
machine is `network`'s business.
"""

from __future__ import annotations

import math
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from otel_alloy.bounded_file import check_file
from otel_alloy.environment import first_set, kept_quotes
from otel_alloy.errors import ConfigurationError
from otel_alloy.near import did_you_mean
from otel_alloy.network import Network, Route, network
from otel_alloy.settings.otlp_section import OTLP_KEYS, PREFIX, renamed
from otel_alloy.settings.places import Find, Place, from_environment
from otel_alloy.trust import MOST_BYTES, Identity, Trust

Signal = Literal["traces", "logs", "metrics"]

PROTOCOLS = ("http/protobuf", "grpc")
COMPRESSIONS = ("none", "gzip")
_PORTS = {"http/protobuf": 4318, "grpc": 4317}
_SIGNAL_PATH = re.compile(r"/v1/(traces|logs|metrics)$")
_TIMEOUT = 10_000
_MOST = 2**31 - 1
"""Milliseconds, of any of these variables: 24 days."""
_EXECUTIONS: tuple[Signal, Signal] = ("traces", "logs")
_KEY = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_GRPC_KEY = re.compile(r"[0-9a-z_.\-]+")
SCRAPED = "prometheus"
"""Named as an exporter, but asked for its metrics; needs the extra of that name."""


@dataclass(frozen=True)
class OtlpSettings:
    """The effective settings of one signal. `repr` shows no header value and no URL query."""

    signal: Signal
    protocol: Literal["http/protobuf", "grpc"] = "http/protobuf"
    endpoint: str = field(default="", repr=False)
    """HTTP: the full URL. gRPC: the target, without the schemes http and https."""
    insecure: bool = True
    """No TLS: decided by the scheme; for gRPC without one by OTEL_EXPORTER_OTLP_INSECURE."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Lower-case names and decoded values, sent with each request."""
    timeout: float = _TIMEOUT / 1000
    """Seconds that one request may take; infinite for no limit."""
    compression: Literal["none", "gzip"] = "none"
    certificate: str | None = None
    """PEM file of the authorities to trust instead of the usual ones."""
    client_key: str | None = None
    client_certificate: str | None = None
    network: Network = field(default_factory=Network)
    places: Mapping[str, Place] = field(default_factory=dict, compare=False, repr=False)
    """Where the variables are written that count for this signal, or would be."""

    def place_of(self, name: str) -> Place:
        """The place of one of the variables OTEL_EXPORTER_OTLP_*: of its general form that which
        counts for this signal. Also of OTEL_TRACES_EXPORTER and its like."""
        return self.places.get(name) or from_environment(name)

    def named(self, words: str) -> str:
        """Words that name variables, with where the values were written in their place."""
        return renamed(words, self.place_of)

    @property
    def route(self) -> Route:
        """How the endpoint is reached. Raises ConfigurationError."""
        if self.protocol == "grpc":
            route = self.network.grpc_route(self.endpoint, insecure=self.insecure)
        else:
            route = self.network.route(self.endpoint)
        if self.certificate and self.certificate != route.trust.path:
            name = str(self.place_of(f"{PREFIX}CERTIFICATE"))
            return replace(route, trust=Trust(name, self.certificate))
        return route

    @property
    def identity(self) -> Identity | None:
        """The certificate that is shown to the endpoint."""
        if not self.client_certificate:
            return None
        return Identity(self.client_certificate, self.client_key)

    @property
    def place(self) -> str:
        """The endpoint as it may be shown: no query, no fragment."""
        return re.split(r"[?#]", self.endpoint, maxsplit=1)[0]

    @property
    def server(self) -> str:
        """Scheme, host and port of the endpoint, or gRPC's target."""
        found = re.match(r"(?:[a-zA-Z][a-zA-Z0-9+.-]*://)?[^/]*", self.place)
        return found[0] if found else self.place

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown: header values, whole and without their scheme ("Bearer"), and
        the query of the endpoint."""
        values = {v for _, v in self.headers} | {v.split()[-1] for _, v in self.headers if v}
        values.add(self.endpoint.partition("?")[2])
        return tuple(sorted((v for v in values if len(v) > 3), key=len, reverse=True))

    def __repr__(self) -> str:
        return (
            f"OtlpSettings({self.signal}, {self.protocol}, {self.place!r}, "
            f"insecure={self.insecure}, headers={[k for k, _ in self.headers]}, "
            f"timeout={self.timeout}, compression={self.compression}, "
            f"certificate={self.certificate!r}, client_certificate={self.client_certificate!r})"
        )


@dataclass(frozen=True)
class Exporter:
    """Where a signal goes."""

    settings: OtlpSettings
    """Counts where `name` is "otlp"."""
    name: str = "otlp"
    """Or "none", or the name of an exporter that is installed for the SDK, an entry point of the
    group `opentelemetry_<signal>_exporter`."""
    mistakes: tuple[str, ...] = ()
    """What is wrong with the variables, each with its remedy; with any it is not to be used."""
    warnings: tuple[str, ...] = ()
    """What is allowed, and probably not meant."""

    @property
    def signal(self) -> Signal:
        """What it exports."""
        return self.settings.signal

    @property
    def off(self) -> bool:
        """Whether nothing of the signal is sent."""
        return self.name == "none"

    @property
    def variable(self) -> str:
        """The environment variable that names it."""
        return f"OTEL_{self.signal.upper()}_EXPORTER"


@dataclass(frozen=True)
class OtlpExporters:
    """Where everything goes: traces and logs of executions, and the receiver's own metrics."""

    traces: Exporter
    logs: Exporter
    metrics: tuple[Exporter, ...]
    """What OTEL_METRICS_EXPORTER names; none unless set, and none with `sdk_disabled`."""
    metric_interval: float
    """Milliseconds between two exports of metrics (OTEL_METRIC_EXPORT_INTERVAL)."""
    metric_timeout: float
    """Milliseconds that one of them may take (OTEL_METRIC_EXPORT_TIMEOUT)."""
    scraped_at: tuple[str, int]
    """Host and port at which Prometheus may ask for them, where `metrics` has SCRAPED:
    OTEL_EXPORTER_PROMETHEUS_HOST and _PORT."""
    sdk_disabled: bool
    """OTEL_SDK_DISABLED: no metrics and no traces of the receiver itself."""
    metric_warnings: tuple[str, ...] = ()
    """As `Exporter.warnings`, of the variables of metrics."""

    @property
    def executions(self) -> tuple[Exporter, Exporter]:
        """The two that take executions: traces, then logs."""
        return self.traces, self.logs

    @property
    def mistakes(self) -> list[str]:
        """All mistakes of all signals, each once."""
        return mistakes_of((*self.executions, *self.metrics))

    @property
    def warnings(self) -> list[str]:
        """What is allowed and probably not meant, each once."""
        found = [w for e in (*self.executions, *self.metrics) for w in e.warnings]
        return list(dict.fromkeys((*found, *(self.metric_warnings if self.metrics else ()))))

    @property
    def secrets(self) -> set[str]:
        """What must not be shown of any exporter's settings."""
        return {s for e in (*self.executions, *self.metrics) for s in e.settings.secrets}


def mistakes_of(exporters: Iterable[Exporter]) -> list[str]:
    """The mistakes of `exporters`, each once: a general variable counts for several signals."""
    return list(dict.fromkeys(mistake for one in exporters for mistake in one.mistakes))


def otlp_exporters(
    environment: Mapping[str, str], ways: Network | None = None, find: Find = from_environment
) -> OtlpExporters:
    """What the `OTEL_*` variables in `environment` ask for, mistakes included. `ways`: how
    connections leave this machine; None: as `environment` says. `find`: where a variable's value
    was written, if not in the environment.

    A number for metrics that cannot be understood counts as unset, with a warning, as the
    specification asks.
    """
    warnings: list[str] = []
    interval, timeout = (
        _milliseconds(environment, f"OTEL_METRIC_EXPORT_{name}", default, warnings)
        for name, default in (("INTERVAL", 60_000), ("TIMEOUT", 30_000))
    )
    disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    metrics = [n.strip() for n in environment.get("OTEL_METRICS_EXPORTER", "").split(",")]
    named = [] if disabled else [n for n in dict.fromkeys(metrics) if n not in ("", "none")]
    chosen = (environment.get(f"OTEL_{s}_EXPORTER", "") for s in ("TRACES", "LOGS"))
    traces, logs = (
        _exporter(_Reader(environment, signal, ways, find), name)
        for signal, name in zip(_EXECUTIONS, chosen, strict=True)
    )
    if traces.off and logs.off:
        # Allowed by the specification; but here every execution would be read and lost.
        words = (
            f"{find(traces.variable)} and {find(logs.variable)} are both none, so nothing would be "
            "delivered: set one of them to otlp."
        )
        traces = replace(traces, mistakes=(words,))
    host, port, wrong = _scraped_at(environment, find)
    of_metrics = [_exporter(_Reader(environment, "metrics", ways, find), name) for name in named]
    return OtlpExporters(
        traces=traces,
        logs=logs,
        metrics=tuple(
            replace(one, mistakes=one.mistakes or wrong) if one.name == SCRAPED else one
            for one in of_metrics
        ),
        scraped_at=(host, port),
        metric_interval=interval or 60_000,
        metric_timeout=timeout or _MOST,
        sdk_disabled=disabled,
        metric_warnings=tuple(warnings),
    )


def _exporter(reader: _Reader, name: str) -> Exporter:
    signal = reader.signal
    settings, mistakes = reader.settings()
    name = name.strip() or "otlp"
    exporter = Exporter(settings, name)
    place = str(reader.find(exporter.variable))
    if wrong := kept_quotes(place, name):
        return replace(exporter, mistakes=(wrong,))
    if name == "otlp":
        return replace(exporter, mistakes=tuple(mistakes), warnings=tuple(reader.warnings))
    if name == "none":
        return exporter
    installed = {e.name for e in entry_points(group=f"opentelemetry_{signal}_exporter")}
    installed |= {"none"}
    choice = "otlp (default), none, or the name of one installed exporter"
    if signal == "metrics":
        choice = "none (default), otlp, or the name of an installed exporter"
    if name in installed:
        return exporter
    known, meant = ", ".join(sorted(installed)), did_you_mean(name, sorted({*installed, "otlp"}))
    words = f"{place} is {name!r}: write {choice}; installed are {known}."
    words += f" {meant[0].upper()}{meant[1:]}" if meant else ""
    if signal == "metrics" and name == SCRAPED:
        words = f"{place} is {name!r}: install otel-alloy with the extra `prometheus`."
    return replace(exporter, mistakes=(words,))


def _scraped_at(environment: Mapping[str, str], find: Find) -> tuple[str, int, tuple[str, ...]]:
    """Host and port, their defaults where they are not set, and what is wrong. Source:
    opentelemetry-specification v1.60.0, configuration/sdk-environment-variables.md."""
    host = environment.get("OTEL_EXPORTER_PROMETHEUS_HOST", "").strip() or "localhost"
    variable = "OTEL_EXPORTER_PROMETHEUS_PORT"
    port = environment.get(variable, "").strip() or "9464"
    if re.fullmatch(r"[0-9]{1,5}", port) and int(port) <= 65535:
        return host, int(port), ()
    words = f"{find(variable)} is {port[:60]!r}: write a port, such as 9464."
    return host, 9464, (words,)


def _milliseconds(
    environment: Mapping[str, str], variable: str, default: int, warnings: list[str]
) -> int:
    value = environment.get(variable, "").strip()
    if not value:
        return default
    if re.fullmatch(r"[0-9]{1,10}", value) and int(value) <= _MOST:
        if 0 < int(value) < 1000:
            warnings.append(_short(variable, value))
        return int(value)
    warnings.append(f"{variable} is {value!r} and counts as unset: write whole milliseconds.")
    return default


def _short(variable: str, value: str) -> str:
    return (
        f"{variable} is {value}, which is milliseconds, as OpenTelemetry specifies: for {value} "
        f"seconds write {value}000."
    )


def otlp_settings(environment: Mapping[str, str], signal: Signal) -> tuple[OtlpSettings, list[str]]:
    """The settings of `signal`, and all mistakes in them, each with its remedy.

    Where a value is a mistake its default stands in, so that all mistakes are found at once;
    settings with mistakes are not to be used. No mistake shows a header value or a password.
    """
    return _Reader(environment, signal).settings()


class _Reader:
    def __init__(
        self,
        environment: Mapping[str, str],
        signal: Signal,
        ways: Network | None = None,
        find: Find = from_environment,
    ) -> None:
        self._environment = environment
        self._ways = ways
        self.find = find
        self.signal: Signal = signal
        self._mistakes: list[str] = []
        self.warnings: list[str] = []

    def settings(self) -> tuple[OtlpSettings, list[str]]:
        names = [n for n in self._environment if n.startswith(PREFIX)]
        for name in sorted(names, key=len):
            own = name.removeprefix(PREFIX).partition("_")[0]
            if own in ("TRACES", "LOGS", "METRICS") and own != self.signal.upper():
                continue
            if wrong := kept_quotes(str(self.find(name)), self._environment[name]):
                self._mistakes.append(wrong)
        if self._mistakes:  # whatever else would be said of them is a consequence
            return OtlpSettings(self.signal, places=self._places()), self._mistakes
        protocol = self._protocol()
        endpoint, insecure, headers = self._endpoint(protocol)
        headers |= self._headers(protocol)
        self._doubt(protocol)
        certificate, key, chain = (
            self._file(n) for n in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
        )
        if key and not chain:
            self._mistake("CLIENT_KEY", "stands alone", "set CLIENT_CERTIFICATE as well")
        ways = self._ways or network(self._environment)
        if certificate:
            ways = replace(ways, trust=Trust(self._place("CERTIFICATE"), certificate))
        settings = OtlpSettings(
            self.signal,
            protocol,
            endpoint,
            insecure,
            tuple(headers.items()),
            self._timeout(),
            self._compression(),
            certificate,
            key,
            chain,
            ways,
            self._places(),
        )
        if not self._mistakes:
            try:
                _ = settings.route
            except ConfigurationError as error:
                self._mistakes += error.mistakes
        return settings, self._mistakes

    def _value(self, name: str) -> tuple[str, str]:
        """The variable that counts for `name`, and its value ("" if unset)."""
        names = f"{PREFIX}{self.signal.upper()}_{name}", PREFIX + name
        variable, value = first_set(self._environment, names)
        return variable or PREFIX + name, value

    def _doubt(self, protocol: str) -> None:
        """What is allowed of an endpoint, and mostly a mistake."""
        variable, value = self._value("ENDPOINT")
        url = _split(value if "//" in value else f"http://{value}") if value else None
        if url is None:
            return
        place, chosen = self._place("ENDPOINT"), self._place("PROTOCOL")
        usual = _PORTS[protocol]
        for other, port in _PORTS.items():
            if url.port == port != usual:
                self.warnings.append(
                    f"{place} has port {port}, which is mostly for {other}, and {chosen} is "
                    f"{protocol}: if nothing arrives, set that to {other}, or the port to {usual}."
                )
        path = url.path.rstrip("/")
        if variable == PREFIX + "ENDPOINT" and protocol != "grpc" and _SIGNAL_PATH.search(path):
            self.warnings.append(
                f"{place} ends with {path[path.rindex('/v1/') :]}, and the path of each signal is "
                "added to it: leave that out."
            )

    def _place(self, name: str) -> str:
        return str(self.find(self._value(name)[0]))

    def _places(self) -> dict[str, Place]:
        names = {f"{PREFIX}{n}": self._value(n)[0] for n in map(str.upper, OTLP_KEYS)}
        own = f"OTEL_{self.signal.upper()}_EXPORTER"
        return {name: self.find(counts) for name, counts in (names | {own: own}).items()}

    def _mistake(self, name: str, what: str, remedy: str) -> None:
        self._mistakes.append(f"{self._place(name)} {what}: {remedy}.")

    def _protocol(self) -> Literal["http/protobuf", "grpc"]:
        value = self._value("PROTOCOL")[1]
        if value == "grpc":
            return "grpc"
        if value not in ("", "http/protobuf"):
            meant = did_you_mean(value, PROTOCOLS)
            remedy = "write http/protobuf (default) or grpc"
            self._mistake("PROTOCOL", f"is {value!r}", f"{meant} {remedy}".strip())
        return "http/protobuf"

    def _compression(self) -> Literal["none", "gzip"]:
        value = self._value("COMPRESSION")[1].lower()
        if value not in ("", *COMPRESSIONS):
            meant, remedy = did_you_mean(value, COMPRESSIONS), "write none (default) or gzip"
            self._mistake("COMPRESSION", f"is {value!r}", f"{meant} {remedy}".strip())
        return "gzip" if value == "gzip" else "none"

    def _timeout(self) -> float:
        variable, value = self._value("TIMEOUT")
        if not value:
            return _TIMEOUT / 1000
        if not re.fullmatch(r"[0-9]{1,10}", value) or int(value) > _MOST:
            remedy = f"write whole milliseconds, such as 10000; 0 is no limit, {_MOST} the most"
            self._mistake("TIMEOUT", f"is {value!r}", remedy)
            return _TIMEOUT / 1000
        if 0 < int(value) < 1000:
            self.warnings.append(_short(str(self.find(variable)), value))
        return int(value) / 1000 or math.inf

    def _insecure(self) -> bool:
        value = self._value("INSECURE")[1].lower()
        if value not in ("", "true", "false"):
            self._mistake("INSECURE", f"is {value!r}", "write true or false (default)")
        return value == "true"

    def _file(self, name: str) -> str | None:
        path = self._value(name)[1]
        if not path:
            return None
        try:
            check_file(path, MOST_BYTES)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            self._mistake(
                name, f"is {path!r} ({why})", "name a PEM file that this process may read"
            )
        return path

    def _headers(self, protocol: str) -> dict[str, str]:
        """key=value pairs, comma-separated, URL-encoded. Keys are case-insensitive."""
        headers: dict[str, str] = {}
        _, value = self._value("HEADERS")
        for number, pair in enumerate(value.split(","), start=1):
            if not pair.strip():
                continue
            raw_key, equals, raw_value = pair.partition("=")
            key, text = unquote(raw_key).strip().lower(), unquote(raw_value).strip()
            name_fits = _KEY.fullmatch(key) and (protocol != "grpc" or _GRPC_KEY.fullmatch(key))
            plain = text.isprintable() and (protocol != "grpc" or text.isascii())
            if not equals:
                # What stands there may be the rest of a secret with a comma in it: not shown.
                found = "a colon, and no =," if ":" in pair else "something that is no pair"
                self._mistake(
                    "HEADERS",
                    f"holds {found} at place {number}",
                    "write key=value,key=value and %2C for a comma within a value",
                )
            elif not name_fits:
                self._mistake(
                    "HEADERS",
                    f"holds an impossible header name at place {number}",
                    "write key=value,key=value with letters, digits and - in the key",
                )
            elif not plain:
                self._mistake(
                    "HEADERS",
                    f"holds characters that the header {key!r} cannot carry",
                    "remove control characters and, for grpc, everything outside ASCII",
                )
            else:
                headers[key] = text
        return headers

    def _endpoint(self, protocol: str) -> tuple[str, bool, dict[str, str]]:
        """Endpoint, insecure, and the header that stands for a user and password in the URL."""
        variable, value = self._value("ENDPOINT")
        insecure = self._insecure()
        grpc = protocol == "grpc"
        if not value:
            value = "http://localhost:4317" if grpc else "http://localhost:4318"
        if grpc and not re.match(r"https?://", value, re.IGNORECASE):
            return value, insecure, {}
        url = _split(value)
        if url is None:
            shown = "" if "@" in value or "?" in value else f" {value!r}"
            self._mistake(
                "ENDPOINT",
                f"is not a usable URL{shown}",
                "write http://host:port or https://host:port",
            )
            return value, insecure, {}
        headers = {}
        if url.username is not None:
            pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
            headers["authorization"] = "Basic " + b64encode(pair.encode()).decode()
        host = url.netloc.rpartition("@")[2]
        insecure = url.scheme == "http"
        if grpc:
            port = "" if url.port else (":80" if insecure else ":443")
            return host.rstrip(":") + port, insecure, headers
        path = url.path or "/"
        if variable == PREFIX + "ENDPOINT":
            path = f"{path.rstrip('/')}/v1/{self.signal}"
        return url._replace(netloc=host, path=path, fragment="").geturl(), insecure, headers


def _split(value: str) -> SplitResult | None:
    """`value` as an absolute http(s) URL, or None."""
    try:
        url = urlsplit(value)
        usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return None
    return url if usable and not re.search(r"[\s\x00-\x1f]", value) else None
