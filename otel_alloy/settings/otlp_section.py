"""An `otlp:` section of a file as OpenTelemetry's variables, of which everything else is made; and
for words that name such a variable, the way back. Pure.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

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
_SIGNALS = ("traces", "logs")
_FILES = ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
_OF_FILE = re.compile(rf"OTEL_EXPORTER_OTLP_(?:[A-Z]+_)?(?:{'|'.join(_FILES)})")
_KEY = "|".join(sorted((key.upper() for key in OTLP_KEYS), key=len, reverse=True))
_NAMED = re.compile(
    # Behind a first variable, others are named without their beginning.
    rf"(?:OTEL_EXPORTER_OTLP|(?<!\w))_(?:(?P<signal>TRACES|LOGS)_)?(?P<key>{_KEY})\b"
    r"|OTEL_(?P<exporter>TRACES|LOGS)_EXPORTER\b"
)
_SET = re.compile(rf"({_NAMED.pattern})=(?=\w)")


def flatten_otlp(section: Any) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The section as variables, and what is wrong with it: where, below `otlp`, and in words."""
    if not isinstance(section, dict):
        return {}, [("", "has to be `name: value` lines")]
    flat: dict[str, str] = {}
    mistakes = []
    for key, value in section.items():
        if key in _SIGNALS and value == "none":
            flat[f"OTEL_{key.upper()}_EXPORTER"] = "none"
            continue
        if key in _SIGNALS and isinstance(value, dict):
            parts = {f"{key}.{k}": (f"{key.upper()}_{k.upper()}", k, v) for k, v in value.items()}
        else:
            parts = {key: (key.upper(), key, value)}
        for shown, (suffix, name, setting) in parts.items():
            if name in _SIGNALS and shown == name:
                words = "write none, or `name: value` lines"
                mistakes.append((f".{shown}", words))
            elif name not in OTLP_KEYS:
                known = ", ".join(OTLP_KEYS)
                mistakes.append((f".{shown}", f"there is no such setting; known are {known}"))
            elif name == "headers" and isinstance(setting, dict):
                flat[f"OTEL_EXPORTER_OTLP_{suffix}"] = ",".join(
                    f"{k}={quote(str(v), safe='')}" for k, v in setting.items()
                )
            elif isinstance(setting, bool):
                flat[f"OTEL_EXPORTER_OTLP_{suffix}"] = str(setting).lower()
            else:
                flat[f"OTEL_EXPORTER_OTLP_{suffix}"] = str(setting)
    return flat, mistakes


def files_of(flat: dict[str, str]) -> list[str]:
    """The certificate and key files that the variables name."""
    return [value for name, value in flat.items() if value and _OF_FILE.fullmatch(name)]


def named(words: str, destination: str) -> str:
    """Words about an endpoint of a destination: they name its settings instead of the variables,
    which are those of the main destination."""
    within = f"destinations.{destination}.otlp"

    def setting(found: re.Match[str]) -> str:
        if found["exporter"]:
            return f"{within}.{found['exporter'].lower()}"
        signal = f".{found['signal'].lower()}" if found["signal"] else ""
        return f"{within}{signal}.{found['key'].lower()}"

    return _NAMED.sub(setting, _SET.sub(r"\1: ", words))
