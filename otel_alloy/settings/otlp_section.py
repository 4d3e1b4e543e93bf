"""An `otlp:` section of a file as OpenTelemetry's variables, of which everything else is made; and
the way back, for whoever has to name what stands there. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from otel_alloy.near import advice
from otel_alloy.settings.places import Path, Place

OTLP_KEYS = (
    "endpoint",
    "protocol",
    "headers",
    "timeout",
    "compression",
    "certificate",
    "client_key",
    "client_certificate",
    "insecure",
)
NO_VALUE = "it has no value; write one, or leave it out"
PREFIX = "OTEL_EXPORTER_OTLP_"
_SIGNALS = ("traces", "logs")
_FILES = ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
_OF_FILE = re.compile(rf"OTEL_EXPORTER_OTLP_(?:[A-Z]+_)?(?:{'|'.join(_FILES)})")
_KEY = "|".join(sorted((key.upper() for key in OTLP_KEYS), key=len, reverse=True))
_NAMED = re.compile(
    # Behind a first variable, others are named without their beginning.
    rf"(?:(?:OTEL_EXPORTER_OTLP|(?<!\w))_(?:(?P<signal>TRACES|LOGS|METRICS)_)?(?P<key>{_KEY})"
    r"|(?P<exporter>OTEL_(?:TRACES|LOGS)_EXPORTER))\b(?:=(?P<value>\w(?:[\w/.]*\w)?))?"
)


def flatten_otlp(section: Any) -> tuple[dict[str, str], dict[str, Path], list[tuple[Path, str]]]:
    """The section as variables, where in it each stands, and what is wrong with it: where, and in
    words."""
    if section is None:
        return {}, {}, [((), NO_VALUE)]
    if not isinstance(section, dict):
        return {}, {}, [((), "it has to be `name: value` lines")]
    flat: dict[str, str] = {}
    paths: dict[str, Path] = {}
    mistakes: list[tuple[Path, str]] = []

    def put(name: str, value: str, path: Path) -> None:
        flat[name], paths[name] = value, path

    for key, value in section.items():
        if key in _SIGNALS and value == "none":
            put(f"OTEL_{key.upper()}_EXPORTER", "none", (key,))
            continue
        parts: dict[Path, tuple[str, str, Any]]
        if key in _SIGNALS and isinstance(value, dict):
            parts = {
                (key, str(k)): (f"{key.upper()}_{str(k).upper()}", str(k), v)
                for k, v in value.items()
            }
        else:
            parts = {(key,): (key.upper(), key, value)}
        for path, (suffix, name, setting) in parts.items():
            variable = PREFIX + suffix
            if name in _SIGNALS and path == (name,):
                mistakes.append((path, "write none, or `name: value` lines"))
            elif name not in OTLP_KEYS:
                known = OTLP_KEYS if len(path) > 1 else (*OTLP_KEYS, *_SIGNALS)
                mistakes.append((path, f"there is no such setting; {advice(name, known)}"))
            elif name == "headers" and isinstance(setting, dict):
                pairs = (f"{k}={quote(str(v), safe='')}" for k, v in setting.items())
                put(variable, ",".join(pairs), path)
            elif isinstance(setting, dict | list):
                mistakes.append((path, "it has to be one value"))
            elif isinstance(setting, bool):
                put(variable, str(setting).lower(), path)
            elif setting is None:
                mistakes.append((path, NO_VALUE))
            else:
                put(variable, str(setting), path)
    return flat, paths, mistakes


def files_of(flat: dict[str, str]) -> list[str]:
    """The certificate and key files that the variables name."""
    return [value for name, value in flat.items() if value and _OF_FILE.fullmatch(name)]


def setting_of(variable: str) -> str:
    """What an `otlp` section calls one of the variables that can stand there."""
    if found := re.fullmatch(r"OTEL_(TRACES|LOGS)_EXPORTER", variable):
        return found[1].lower()
    found = re.fullmatch(rf"{PREFIX}(?:(TRACES|LOGS)_)?([A-Z_]+)", variable)
    assert found is not None
    return ".".join(part.lower() for part in found.groups() if part)


def renamed(words: str, place: Callable[[str], Place]) -> str:
    """Words that name variables, with the places that these have instead; a variable that is to be
    set to a value becomes a setting with that value."""

    def other(found: re.Match[str]) -> str:
        variable = found["exporter"]
        if not variable:
            signal = f"{found['signal']}_" if found["signal"] else ""
            variable = f"{PREFIX}{signal}{found['key']}"
        there, value = place(variable), found["value"]
        if there.kind == "environment":
            if there.name == variable:
                return found[0]
            return f"{there.name}={value}" if value else there.name
        return f"{there.name}: {value}{there.where}" if value else str(there)

    return _NAMED.sub(other, words)


def named(words: str, destination: str) -> str:
    """Words about an endpoint of a destination: they name its settings instead of the variables,
    which are those of the main destination."""
    within = f"destinations.{destination}.otlp"
    return renamed(words, lambda variable: Place("file", f"{within}.{setting_of(variable)}"))
