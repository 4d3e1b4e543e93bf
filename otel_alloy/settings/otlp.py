"""OTEL_EXPORTER_OTLP_* of the OpenTelemetry specification -> `OtlpSettings`. Pure.

Every variable exists in a general form and in one per signal (`OTEL_EXPORTER_OTLP_TRACES_*`,
`OTEL_EXPORTER_OTLP_LOGS_*`), which wins; an empty value counts as unset. Source:
opentelemetry-specification v1.60.0, specification/protocol/exporter.md.

TIMEOUT: the specification counts milliseconds, opentelemetry-python (1.45, issue 4044) seconds.
Both keep their meaning here: from 1,000 on a value is milliseconds (nobody waits a quarter of an
hour for one request), below that seconds, fractions allowed. 0 (no limit) is refused: a far end
that never answers would stop the receiver for good.

Nothing here opens a connection or reads the environment; the only I/O is to look whether the
certificate files can be read.
"""

from __future__ import annotations

import math
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from otel_alloy.otlp.answers import Signal

_PREFIX = "OTEL_EXPORTER_OTLP_"
_TIMEOUT = 10.0
_KEY = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_GRPC_KEY = re.compile(r"[0-9a-z_.\-]+")


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
    timeout: float = _TIMEOUT
    """Seconds that one request may take."""
    compression: Literal["none", "gzip"] = "none"
    certificate: str | None = None
    """PEM file of the authorities to trust instead of the usual ones."""
    client_key: str | None = None
    client_certificate: str | None = None

    @property
    def place(self) -> str:
        """The endpoint as it may be shown: no query, no fragment."""
        return re.split(r"[?#]", self.endpoint, maxsplit=1)[0]

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown: header values, whole and without their scheme ("Bearer")."""
        values = {v for _, v in self.headers} | {v.split()[-1] for _, v in self.headers if v}
        return tuple(sorted((v for v in values if len(v) > 3), key=len, reverse=True))

    def __repr__(self) -> str:
        return (
            f"OtlpSettings({self.signal}, {self.protocol}, {self.place!r}, "
            f"insecure={self.insecure}, headers={[k for k, _ in self.headers]}, "
            f"timeout={self.timeout}, compression={self.compression}, "
            f"certificate={self.certificate!r}, client_certificate={self.client_certificate!r})"
        )


def otlp_settings(environment: Mapping[str, str], signal: Signal) -> tuple[OtlpSettings, list[str]]:
    """The settings of `signal`, and all mistakes in them, each with its remedy.

    Where a value is a mistake its default stands in, so that all mistakes are found at once;
    settings with mistakes are not to be used. No mistake shows a header value or a password.
    """
    return _Reader(environment, signal).settings()


class _Reader:
    def __init__(self, environment: Mapping[str, str], signal: Signal) -> None:
        self._environment = environment
        self._signal: Signal = signal
        self._mistakes: list[str] = []

    def settings(self) -> tuple[OtlpSettings, list[str]]:
        protocol = self._protocol()
        endpoint, insecure, headers = self._endpoint(protocol)
        headers |= self._headers(protocol)
        certificate, key, chain = (
            self._file(n) for n in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
        )
        if key and not chain:
            self._mistake("CLIENT_KEY", "stands alone", "set CLIENT_CERTIFICATE as well")
        settings = OtlpSettings(
            self._signal,
            protocol,
            endpoint,
            insecure,
            tuple(headers.items()),
            self._timeout(),
            self._compression(),
            certificate,
            key,
            chain,
        )
        return settings, self._mistakes

    def _value(self, name: str) -> tuple[str, str]:
        """The variable that counts for `name`, and its value ("" if unset)."""
        for variable in (f"{_PREFIX}{self._signal.upper()}_{name}", _PREFIX + name):
            if value := self._environment.get(variable, "").strip():
                return variable, value
        return _PREFIX + name, ""

    def _mistake(self, name: str, what: str, remedy: str) -> None:
        self._mistakes.append(f"{self._value(name)[0]} {what}: {remedy}.")

    def _protocol(self) -> Literal["http/protobuf", "grpc"]:
        value = self._value("PROTOCOL")[1]
        if value == "grpc":
            return "grpc"
        if value not in ("", "http/protobuf"):
            self._mistake("PROTOCOL", f"is {value!r}", "write http/protobuf (default) or grpc")
        return "http/protobuf"

    def _compression(self) -> Literal["none", "gzip"]:
        value = self._value("COMPRESSION")[1].lower()
        if value not in ("", "none", "gzip"):
            self._mistake("COMPRESSION", f"is {value!r}", "write none (default) or gzip")
        return "gzip" if value == "gzip" else "none"

    def _timeout(self) -> float:
        value = self._value("TIMEOUT")[1]
        if not value:
            return _TIMEOUT
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if 0 < seconds < 1000:
            return seconds
        if 1000 <= seconds <= 600_000:
            return seconds / 1000
        remedy = "write seconds, or milliseconds from 1000 on; at most ten minutes, not 0"
        self._mistake("TIMEOUT", f"is {value!r}", remedy)
        return _TIMEOUT

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
            with open(path, "rb") as file:
                file.read(1)
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
                self._mistake(
                    "HEADERS",
                    f"holds something that is no pair at place {number}",
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
        if variable == _PREFIX + "ENDPOINT":
            path = f"{path.rstrip('/')}/v1/{self._signal}"
        return url._replace(netloc=host, path=path, fragment="").geturl(), insecure, headers


def _split(value: str) -> SplitResult | None:
    """`value` as an absolute http(s) URL, or None."""
    try:
        url = urlsplit(value)
        usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return None
    return url if usable and not re.search(r"[\s\x00-\x1f]", value) else None
