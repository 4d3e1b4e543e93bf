"""Where a setting comes from: a command-line flag, else the environment, else the YAML file, else
the default. `Settings` that are made without it take only the OTEL_* variables of the process.

Everything is checked before anything connects, and all mistakes are reported together, each with
its remedy and never with a secret. Nothing here opens a connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from otel_alloy.bounded_file import read_bounded
from otel_alloy.environment import kept_quotes
from otel_alloy.errors import ConfigurationError
from otel_alloy.network import VARIABLES, network
from otel_alloy.propagation.propagator import SAMPLED_VARIABLE
from otel_alloy.settings.destinations import known_settings
from otel_alloy.settings.models import Settings, SourceSettings, environment_of, one_key
from otel_alloy.settings.otlp import otlp_exporters
from otel_alloy.settings.otlp_section import flatten_otlp
from otel_alloy.settings.references import Resolved, resolve
from otel_alloy.settings.values import words_of

_ALIASES = {
    "ALLOY_API_KEY": "api_key",
    "ALLOY_API_KEY_FILE": "api_key_file",
    "ALLOY_ENDPOINT": "endpoint",
}
_INNER = {
    "OTEL_ALLOY_PRIVACY_USER_EMAIL": ("privacy", "user.email"),
    "OTEL_ALLOY_PRIVACY_USER_FULL_NAME": ("privacy", "user.full_name"),
    "OTEL_ALLOY_PRIVACY_ERROR_MESSAGE": ("privacy", "error_message"),
    "OTEL_ALLOY_WEBHOOK_LISTEN": ("webhook", "listen"),
    "OTEL_ALLOY_WEBHOOK_SECRET": ("webhook", "secret"),
}
"""Variables of settings that lie inside another one."""
_OURS = "OTEL_ALLOY_"
_EMPTY_MEANS_OFF = frozenset((_OURS + "HEALTH_ENDPOINT", _OURS + "API_VERSION"))
"""Any other variable that is empty counts as unset."""
_STAND_INS = {"api_key": "unusable", "endpoint": "https://unusable.invalid"}
"""In place of what is a mistake already, so that it is told once."""
_NESTED = (["destinations"], ["destinations_policy"], ["outbox"])
"""Settings within which names mean something else than outside."""
_ELSEWHERE = frozenset((_OURS + "CONFIG", SAMPLED_VARIABLE))  # ours, and no setting
_NOT_FROM_ENVIRONMENT = frozenset(
    (
        "sources",
        "environment",
        "privacy",
        "webhook",
        "rules",
        "destinations",
        "destinations_policy",
        "outbox",
        "headers",
        "resource",
        "api_key",
        "api_key_file",
        "endpoint",
    )
)
_SETTABLE = [
    name
    for name in (*SourceSettings.model_fields, *Settings.model_fields)
    if name not in _NOT_FROM_ENVIRONMENT
]


def load_settings(
    flags: Mapping[str, Any], environment: Mapping[str, str], *, file: str | None = None
) -> Settings:
    """Settings from flags (None = not given), environment and the YAML `file` (else
    OTEL_ALLOY_CONFIG). Raises ConfigurationError with every mistake."""
    mistakes: list[str] = []
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    environment = {
        name: value
        for name, value in environment.items()
        if value.strip() or name in _EMPTY_MEANS_OFF
    }
    told = {f"--{name.replace('_', '-')}": value for name, value in flags.items()}
    told |= {name: value for name, value in environment.items() if _is_read(name)}
    unusable = [n for n, value in told.items() if isinstance(value, str) and not _is_text(value)]
    if unusable:
        raise ConfigurationError(
            [f"{name}: holds bytes that are not UTF-8; write it anew" for name in unusable]
        )
    path = file or environment.get(_OURS + "CONFIG")
    otlp: dict[str, str] = {}
    resolved = Resolved({})
    if path:
        resolved = _read_file(Path(path), environment, mistakes)
        values = resolved.value
        otlp, wrong_otlp = flatten_otlp(values.pop("otlp", {}))
        mistakes += [f"otlp{place} in {path}: {words}" for place, words in wrong_otlp]
        origin = {name: f"{name} in {path}" for name in values}
    chosen_here = {_ALIASES[v]: None for v in environment if v in _ALIASES}
    values = {k: v for k, v in one_key(values, chosen_here).items() if k not in chosen_here}
    for variable, value in environment.items():
        name = _ALIASES.get(variable)
        if (name or variable.startswith(_OURS)) and (wrong := kept_quotes(variable, value)):
            mistakes.append(wrong)
            if name:
                values[name] = _STAND_INS[name]
            continue
        if variable in _INNER:
            outer, inner = _INNER[variable]
            chosen = values.setdefault(outer, {})
            if isinstance(chosen, dict):
                chosen[inner] = value
            continue
        if name is None and variable.startswith(_OURS) and variable not in _ELSEWHERE:
            name = variable[len(_OURS) :].lower()
            if name not in _SETTABLE:
                mistakes.append(
                    f"{variable}: there is no such setting; known are "
                    + ", ".join(sorted({_OURS + n.upper() for n in _SETTABLE} | _INNER.keys()))
                )
                continue
        if name is not None:
            values[name], origin[name] = value, variable
    given = {name: value for name, value in flags.items() if value is not None}
    values = one_key(values, given)
    for name, value in given.items():
        values[name], origin[name] = value, f"--{name.replace('_', '-')}"
    values["environment"] = {
        **otlp,
        **environment_of(environment),
    }
    settings = None
    try:
        settings = Settings.model_validate(values)
        mistakes += settings.mistakes
    except ValidationError as error:
        mistakes += _mistakes_in(error, origin, path)
        mistakes += network(values["environment"]).mistakes
        if values.get("main_destination") != "none":
            mistakes += otlp_exporters(values["environment"]).mistakes
    if mistakes or settings is None:
        raise ConfigurationError(list(dict.fromkeys(map(resolved.hide, mistakes))))
    return settings


def _is_read(variable: str) -> bool:
    return variable.startswith("OTEL_") or variable in _ALIASES or variable in VARIABLES


def _is_text(value: str) -> bool:
    """Whether it can be sent and kept: the bytes of a variable that are not UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _mistakes_in(error: ValidationError, origin: dict[str, str], path: str | None) -> list[str]:
    found = []
    inner = [p for p in error.errors() if len(p["loc"]) > 1 and p["loc"][0] == "sources"]
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        if inner and problem["loc"] == ("sources",):
            continue  # pydantic counts only sources without mistakes
        loc = [str(part) for part in problem["loc"]]
        leaf = loc[-1] if loc else ""
        if loc[:1] == ["sources"] and len(loc) >= 3:
            leaf = loc[2]
        where = origin.get(leaf)
        if loc[:1] in _NESTED:
            loc = [part for part in loc if part != "[key]"]
            where = None
        if where is None:
            where = ".".join(loc) + (f" in {path}" if path else "") if loc else "settings"
        words = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "no_key":
            where = "ALLOY_API_KEY"
            words += ", or ALLOY_API_KEY_FILE to a file that holds it"
        elif problem["type"] == "two_keys":
            where = "ALLOY_API_KEY and ALLOY_API_KEY_FILE (api_key, api_key_file)"
        elif loc[:1] in _NESTED:
            words = words_of(problem, known_settings(problem["loc"]))
        elif problem["type"] == "extra_forbidden":
            words = "there is no such setting; check its spelling in the README's table"
        found.append(f"{where}: {words}")
    return found


def _read_file(path: Path, environment: Mapping[str, str], mistakes: list[str]) -> Resolved:
    from otel_alloy.settings.yaml_text import MOST_BYTES, YamlMistake, read_yaml

    try:
        text = read_bounded(path, MOST_BYTES).decode("utf-8-sig")
        loaded = read_yaml(text)
    except OSError as error:
        mistakes.append(f"{path}: cannot be read ({error.strerror}); correct --config")
        return Resolved({})
    except UnicodeDecodeError:
        mistakes.append(f"{path}: is not UTF-8 text; save it as UTF-8")
        return Resolved({})
    except YamlMistake as error:
        mistakes.append(f"{path}: {error}")
        return Resolved({})
    except ValueError:
        mistakes.append(f"{str(path)!r} can be no file name; correct --config")
        return Resolved({})
    if loaded is None:
        return Resolved({})
    if not isinstance(loaded, dict):
        mistakes.append(f"{path}: has to be `name: value` lines")
        return Resolved({})

    resolved = resolve(loaded, environment)
    mistakes += [f"{path}: {words}" for words in resolved.mistakes]
    return resolved
