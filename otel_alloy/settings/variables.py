"""Which environment variables there are for settings, and which one was meant by a name that is
none.

Names alone are looked at here, and values never told. What looks like a setting of ours that is
written wrongly is a mistake: a `privacy` that is not read would send what it should not. What may
be meant for somebody else gets a warning.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from otel_alloy.near import nearest
from otel_alloy.propagation.propagator import SAMPLED_VARIABLE
from otel_alloy.settings.models import Settings, SourceSettings
from otel_alloy.settings.otlp_section import OTLP_KEYS
from otel_alloy.settings.places import Path

OURS = "OTEL_ALLOY_"
CONFIG = OURS + "CONFIG"
ALIASES = {
    "ALLOY_API_KEY": "api_key",
    "ALLOY_API_KEY_FILE": "api_key_file",
    "ALLOY_ENDPOINT": "endpoint",
}
_INNER = {
    "PRIVACY_USER_EMAIL": ("privacy", "user.email"),
    "PRIVACY_USER_FULL_NAME": ("privacy", "user.full_name"),
    "PRIVACY_ERROR_MESSAGE": ("privacy", "error_message"),
    "WEBHOOK_LISTEN": ("webhook", "listen"),
    "WEBHOOK_SECRET": ("webhook", "secret"),
}
"""Of settings that lie inside another one."""
EMPTY_MEANS_OFF = frozenset((OURS + "HEALTH_ENDPOINT", OURS + "API_VERSION"))
"""Any other variable that is empty counts as unset."""
_ELSEWHERE = frozenset((CONFIG, SAMPLED_VARIABLE))  # ours, and no setting
_TESTS = OURS + "TEST_"
_KUBERNETES = re.compile(
    r"OTEL_ALLOY_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)"
)
"""What Kubernetes sets where a Service is called otel-alloy."""
_FILE_ONLY = frozenset(
    (
        *("sources", "environment", "privacy", "webhook", "rules", "destinations"),
        *("destinations_policy", "outbox", "headers", "resource"),
    )
)
_SETTABLE = [
    name
    for name in (*SourceSettings.model_fields, *Settings.model_fields)
    if name not in _FILE_ONLY and name not in ALIASES.values()
]
_PATHS: dict[str, Path] = {
    **{variable: (name,) for variable, name in ALIASES.items()},
    **{OURS + name.upper(): (name,) for name in _SETTABLE},
    **{OURS + name: path for name, path in _INNER.items()},
}
KNOWN = tuple(sorted(_PATHS))
"""Every variable of a setting."""

_MEANT_KEY = ("TOKEN", "API_TOKEN", "KEY", "ACCESS_TOKEN", "ACCESS_KEY", "SECRET", "BEARER")
_MEANT_ENDPOINT = ("URL", "API_URL", "BASE_URL", "HOST", "API_HOST", "SERVER", "ADDRESS")
_ALLOY = {
    **dict.fromkeys(_MEANT_KEY, "ALLOY_API_KEY"),
    **dict.fromkeys((f"{name}_FILE" for name in _MEANT_KEY), "ALLOY_API_KEY_FILE"),
    **dict.fromkeys((*_MEANT_ENDPOINT, "API_ENDPOINT"), "ALLOY_ENDPOINT"),
    **{name.removeprefix("ALLOY_"): name for name in ALIASES},
}
"""What people call the three variables without our beginning, and which one they mean."""

_OTLP = "OTEL_EXPORTER_OTLP_"
_SIGNALS = ("", "TRACES_", "LOGS_", "METRICS_", "PROFILES_")
_OTLP_KEYS = tuple(key.upper() for key in OTLP_KEYS)
_OTLP_ELSEWHERE = frozenset(
    f"{_OTLP}METRICS_{name}" for name in ("TEMPORALITY_PREFERENCE", "DEFAULT_HISTOGRAM_AGGREGATION")
)
"""Of OpenTelemetry, and read by the SDK's exporter of metrics."""
_OTLP_MEANT = {
    **dict.fromkeys((*_MEANT_ENDPOINT, "PORT"), "ENDPOINT"),
    **dict.fromkeys(("TOKEN", "API_KEY", "APIKEY", "KEY", "AUTH", "AUTHORIZATION"), "HEADERS"),
    **dict.fromkeys(("CA", "CA_CERT", "CA_CERTIFICATE", "CA_FILE", "CERT"), "CERTIFICATE"),
    **dict.fromkeys(("TLS", "TLS_INSECURE", "SSL"), "INSECURE"),
    "GZIP": "COMPRESSION",
    "TRANSPORT": "PROTOCOL",
}
_OTEL = (
    *("OTEL_TRACES_EXPORTER", "OTEL_LOGS_EXPORTER", "OTEL_METRICS_EXPORTER"),
    *("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_SDK_DISABLED"),
)
"""Of OpenTelemetry's other variables those that a mistyped name is held against: capitals and
signs between words apart, or one letter too many or too few."""


def path_of(variable: str) -> Path | None:
    """Of which setting the variable is; None for any other one."""
    return _PATHS.get(variable)


def misspelt(environment: Collection[str], referenced: Collection[str]) -> Iterator[str]:
    """The mistakes: variables that begin as ours do and come near one. `referenced`: those that the
    settings file refers to, which may be called anything."""
    for variable in _unknown(environment, referenced):
        if meant := _meant(variable):
            yield f"{variable}: there is no such setting; {meant}"


def not_read(
    environment: Mapping[str, str], referenced: Collection[str], written: Collection[Path]
) -> Iterator[str]:
    """The warnings: variables that look as if they were meant for us, and are read by nobody here.
    `written`: which settings have a value."""
    for variable in _unknown(environment, referenced):
        if not _meant(variable):
            yield (
                f"{variable} is set, and there is no such setting: correct it, or unset it; "
                "`otel-alloy run --help` lists all there are"
            )
    for variable in sorted(environment.keys() - set(referenced)):
        meant = _alloy_meant(variable, written) or _otel_meant(variable)
        if meant:
            yield f"{variable} is set, and is not read: did you mean {meant}?"
        elif variable.startswith(_OTLP) and not _is_otlp(variable):
            keys = ", ".join(_OTLP_KEYS)
            yield f"{variable} is set, and is not read: behind {_OTLP} may stand {keys}"


def _unknown(environment: Collection[str], referenced: Collection[str]) -> list[str]:
    known = {*_PATHS, *_ELSEWHERE, *referenced}
    return [
        one
        for one in sorted(environment)
        if one.startswith(OURS)
        and one not in known
        and not one.startswith(_TESTS)
        and not _KUBERNETES.fullmatch(one)
    ]


def _meant(variable: str) -> str:
    """What was meant by a variable that begins as ours do, in words; empty where nothing comes near
    it."""
    name = variable.removeprefix(OURS)
    if name in _ALLOY:
        words = f"did you mean {_ALLOY[name]}?"
        if _ALLOY[name] == "ALLOY_ENDPOINT":
            words += f" {_OTLP}ENDPOINT is where executions are delivered to"
        return words
    if name.lower() in _FILE_ONLY - {"environment"}:
        return f"`{name.lower()}` is set in the settings file only"
    ours = (one for one in (*KNOWN, *_ELSEWHERE) if one.startswith(OURS))
    known = {one.removeprefix(OURS): one for one in ours}
    found = nearest(name, known)
    return f"did you mean {known[found]}?" if found else ""


def _alloy_meant(variable: str, written: Collection[Path]) -> str | None:
    """Which of ALLOY_API_KEY and its like was meant, where that setting has no value."""
    begun = re.fullmatch(r"(?:RUN)?ALLOY_(\w+)", variable.upper())
    if begun is None or variable in ALIASES:
        return None
    name = nearest(begun[1], _ALLOY)
    meant = _ALLOY[name] if name else None
    if meant is None:
        return None
    same = {"endpoint"} if meant == "ALLOY_ENDPOINT" else {"api_key", "api_key_file"}
    # Below `otlp` or `destinations`, `endpoint` is another one.
    has = any(path[-1] in same for path in written if path[0] == "sources" or len(path) == 1)
    return None if has else meant


def _otel_meant(variable: str) -> str | None:
    if variable.startswith(_OTLP):
        if _is_otlp(variable):
            return None
        rest = variable.removeprefix(_OTLP)
        signal = next((one for one in _SIGNALS[1:] if rest.startswith(one)), "")
        if not signal and (one := nearest(rest.partition("_")[0], ("TRACES", "LOGS", "METRICS"))):
            signal, rest = f"{one}_", rest.partition("_")[2]
        else:
            rest = rest.removeprefix(signal)
        key = _OTLP_MEANT.get(rest) or nearest(rest, _OTLP_KEYS)
        return f"{_OTLP}{signal}{key}" if key else None
    if not variable.startswith(("OTEL_", "OTLP_")) or variable in _OTEL:
        return None
    if re.fullmatch(r"OTLP_\w+|OTEL_(OTLP_|EXPORTER_)?(ENDPOINT|HEADERS|PROTOCOL)", variable):
        key = nearest(variable.rpartition("_")[2], _OTLP_KEYS)
        return f"{_OTLP}{key}" if key else None
    one_off = [name for name in _OTEL if _bare(name) in _one_less(variable) | {_bare(variable)}]
    one_off += [name for name in _OTEL if _bare(variable) in _one_less(name)]
    return one_off[0] if one_off else None


def _is_otlp(variable: str) -> bool:
    names = {f"{_OTLP}{signal}{key}" for signal in _SIGNALS for key in _OTLP_KEYS}
    return variable in names | _OTLP_ELSEWHERE


def _bare(name: str) -> str:
    return name.replace("_", "").upper()


def _one_less(name: str) -> set[str]:
    """The name with any one of its letters left out."""
    bare = _bare(name)
    return {bare[:at] + bare[at + 1 :] for at in range(len(bare))}
