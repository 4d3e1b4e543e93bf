"""What is in force, and where each of it comes from, as it may be shown: no secret is in a `Row`.

Of keys, passwords, tokens and headers it is said that they are there. What a file that is referred
to holds is not shown at all, since such files are there for secrets. Nothing here prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from otel_alloy.alloy.timestamps import to_text
from otel_alloy.checkpoint.postgres_url import is_postgres
from otel_alloy.durations import written_duration
from otel_alloy.environment import first_set
from otel_alloy.errors import ConfigurationError
from otel_alloy.mapping.semconv import SERVICE_NAME
from otel_alloy.network import VARIABLES as NETWORK_VARIABLES
from otel_alloy.settings.destinations import DestinationSettings
from otel_alloy.settings.models import Settings, SourceSettings
from otel_alloy.settings.otlp import Exporter
from otel_alloy.settings.otlp_section import PREFIX, setting_of
from otel_alloy.settings.places import Path, Place, from_environment
from otel_alloy.settings.values import NOT_WRITTEN

HIDDEN = "***"
DEFAULT = Place("default", "default")
_APART = frozenset((NOT_WRITTEN, "sources", "destinations", "rules", "headers", "resource"))
_SECRETIVE = re.compile(r"key|secret|token|passw|auth|credential|cookie", re.IGNORECASE)
_SECRET_PARAMETER = re.compile(
    r"(?i)([?&;][^=&;]*(?:key|secret|token|passw|auth|credential|sig)[^=&;]*=)[^&;]*"
)
_SDK = (
    ("OTEL_SDK_DISABLED", "false"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "60000"),
    ("OTEL_METRIC_EXPORT_TIMEOUT", "30000"),
)
_LIMIT = "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Row:
    """`section`: what it belongs to, empty for the process. `origin`: where it is written.
    `instead_of`: where it is written as well, which does not count."""

    section: str
    name: str
    value: Value
    origin: Place
    instead_of: tuple[Place, ...] = ()


def in_force(settings: Settings, destinations: Mapping[str, DestinationSettings]) -> list[Row]:
    """All that is in force. `destinations`: those of the settings and those of the folder."""
    rows = [*_of_process(settings), *_of_rules(settings)]
    for at, source in enumerate(settings.sources):
        rows += _of_source(settings, at, source)
    for exporter in settings.otlp.executions:
        rows += _of_signal(settings, exporter)
    rows += [*_of_metrics(settings), *_of_network(settings)]
    for name, destination in destinations.items():
        rows += _of_destination(settings, name, destination)
    return [
        replace(row, value=HIDDEN) if row.value and _hides(row.origin.references) else row
        for row in rows
    ]


def _hides(references: Iterable[str]) -> bool:
    return any(one.startswith("${file:") for one in references)


def shown_url(url: str) -> str:
    """A URL without user, password and what else in it may be secret."""
    beginning, separator, rest = url.partition("://")
    if separator:
        authority = re.match(r"[^/?#]*", rest)
        host = authority[0] if authority else ""
        rest = host.rpartition("@")[2] + rest[len(host) :]
    return _SECRET_PARAMETER.sub(rf"\1{HIDDEN}", f"{beginning}{separator}{rest}")


def _of_process(settings: Settings) -> Iterator[Row]:
    for path, value in _flat(settings, ()):
        if path == ("attribute_value_length_limit",) and settings.value_limit != value:
            others = settings.places.written_at(path)
            yield Row("", path[0], settings.value_limit, from_environment(_LIMIT), others)
            continue
        yield _row(settings, "", path, value)
    for one in settings.templates:
        texts = (HIDDEN if text else "" for text in one.texts)
        fields = (*(f"{{{name}}}" for name in one.fields), "")
        value = "".join(part for pair in zip(texts, fields, strict=True) for part in pair)
        yield Row("", f"headers.{one.name}", value, settings.places.of(("headers", one.name)))


def _of_source(settings: Settings, at: int, source: SourceSettings) -> Iterator[Row]:
    section = f"source {source.name}"
    by_file = source.api_key_file is not None
    for name in SourceSettings.model_fields:
        if name in _APART or name == ("api_key" if by_file else "api_key_file"):
            continue
        row = _row(settings, section, ("sources", at, name), _plain(source, name))
        if name in ("api_key", "api_key_file"):
            other = "api_key" if by_file else "api_key_file"
            beside = settings.places.written_at(("sources", at, other))
            row = Row(section, row.name, row.value, row.origin, (*row.instead_of, *beside))
        yield row
    for name, value in settings.resource(source).items():
        yield Row(
            section, f"resource.{name}", _discreet(name, value), *_resource(settings, at, name)
        )


def _resource(settings: Settings, at: int, name: str) -> tuple[Place, tuple[Place, ...]]:
    """Where a resource attribute of a source is written, and where as well."""
    places = []
    pairs = settings.environment.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",")
    if name in {pair.partition("=")[0].strip() for pair in pairs}:
        places.append(from_environment("OTEL_RESOURCE_ATTRIBUTES"))
    if name == SERVICE_NAME and settings.environment.get("OTEL_SERVICE_NAME", "").strip():
        places.append(from_environment("OTEL_SERVICE_NAME"))
    if name in settings.sources[at].resource:
        places.append(settings.places.of(("sources", at, "resource", name)))
    return (places[-1], tuple(places[:-1])) if places else (DEFAULT, ())


def _of_rules(settings: Settings) -> Iterator[Row]:
    for at, rule in enumerate(settings.rules.rules):
        words = f"{rule.words} where {rule.match.words}"
        yield Row("", f"rules.{rule.name}", words, _within(settings, ("rules", at)))


def _within(settings: Settings, path: Path) -> Place:
    """The place of a value with parts, with the references of all of them."""
    inner = (place[-1] for at, place in settings.places.written.items() if at[: len(path)] == path)
    references = tuple(one for place in inner for one in place.references)
    return replace(settings.places.of(path), references=references)


def _of_signal(settings: Settings, exporter: Exporter, section: str = "OTLP") -> Iterator[Row]:
    section = f"{section} {exporter.signal}"
    named = settings.environment.get(exporter.variable, "").strip()
    if section.startswith("OTLP"):
        place = settings.places.variable(exporter.variable) if named else DEFAULT
        others = settings.places.variables.get(exporter.variable, ())[:-1]
        yield Row(section, "exporter", exporter.name, place, others)
    if exporter.name != "otlp":
        return
    one = exporter.settings
    values: dict[str, Value] = {
        "endpoint": one.place,
        "protocol": one.protocol,
        "timeout": "none" if one.timeout == float("inf") else written_duration(one.timeout),
        "compression": one.compression,
        "insecure": one.insecure,
        "certificate": one.certificate,
        "client_key": one.client_key,
        "client_certificate": one.client_certificate,
    }
    for key, value in values.items():
        if value is not None:
            yield Row(section, key, value, *_of_key(settings, exporter, key))
    origin, others = _of_key(settings, exporter, "headers")
    endpoint = _of_key(settings, exporter, "endpoint")[0]
    given = first_set(settings.environment, _names(exporter, "headers"))[1]
    for name, _ in one.headers:
        # A user and password in the endpoint's URL are a header, too.
        written = name in {pair.partition("=")[0].strip().lower() for pair in given.split(",")}
        yield Row(section, f"headers.{name}", HIDDEN, origin if written else endpoint, others)
    try:
        route = one.route
    except ConfigurationError:
        return
    if route.proxy is not None:
        proxy = route.proxy
        yield Row(section, "proxy", proxy.place, from_environment(proxy.variable))


def _names(exporter: Exporter, key: str) -> tuple[str, str]:
    return (
        f"{PREFIX}{exporter.signal.upper()}_{key.upper()}",
        f"{PREFIX}{key.upper()}",
    )


def _of_key(settings: Settings, exporter: Exporter, key: str) -> tuple[Place, tuple[Place, ...]]:
    """Where a key of a signal's endpoint is written, and where as well."""
    counts, _ = first_set(settings.environment, _names(exporter, key))
    if not counts:
        return DEFAULT, ()
    places = settings.places.variables.get(counts) or (from_environment(counts),)
    if counts == _names(exporter, key)[0]:
        general = _names(exporter, key)[1]
        if settings.environment.get(general, "").strip():
            beside = settings.places.variables.get(general) or (from_environment(general),)
            return places[-1], (*beside, *places[:-1])
    return places[-1], tuple(places[:-1])


def _of_metrics(settings: Settings) -> Iterator[Row]:
    environment = settings.environment
    named = environment.get("OTEL_METRICS_EXPORTER", "").strip()
    origin = from_environment("OTEL_METRICS_EXPORTER") if named else DEFAULT
    names = ", ".join(one.name for one in settings.otlp.metrics) or "none"
    yield Row("own metrics and spans", "exporter", names, origin)
    for variable, default in _SDK:
        value = environment.get(variable, "").strip()
        place = from_environment(variable) if value else DEFAULT
        yield Row("own metrics and spans", variable, value or default, place)
    for variable in sorted(environment):
        if variable.startswith("OTEL_BSP_") and settings.own_traces:
            value = environment[variable].strip()
            yield Row("own metrics and spans", variable, value, from_environment(variable))
    for one in settings.otlp.metrics:
        yield from _of_signal(settings, one, "own")


def _of_network(settings: Settings) -> Iterator[Row]:
    network = settings.network
    for scheme, proxy in network.proxies:
        yield Row("network", f"proxy for {scheme}", proxy.place, from_environment(proxy.variable))
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy", "NO_GRPC_PROXY"):
        if value := settings.environment.get(name, "").strip():
            yield Row("network", "reached directly", value, from_environment(name))
    trust = network.trust
    set_ones = [n for n in sorted(NETWORK_VARIABLES) if settings.environment.get(n, "").strip()]
    others = tuple(
        from_environment(name)
        for name in set_ones
        if name != trust.variable and "proxy" not in name.lower()
    )
    origin = from_environment(trust.variable) if trust.path else DEFAULT
    yield Row("network", "trusted certificates", trust.path or "certifi's", origin, others)


def _of_destination(settings: Settings, called: str, one: DestinationSettings) -> Iterator[Row]:
    section, path = f"destination {called}", ("destinations", called)
    of_folder = called not in settings.destinations

    def place(*inner: str | int) -> Place:
        if of_folder:
            return Place(
                "file", ".".join(map(str, inner)), f"{settings.destinations_dir}/{called}.yaml"
            )
        return _within(settings, (*path, *inner))

    def written(exporter: Exporter, key: str) -> Place:
        counts, _ = first_set(one.otlp, _names(exporter, key))
        return place("otlp", *setting_of(counts).split(".")) if counts else DEFAULT

    yield Row(section, "match", one.match.words, place("match"))
    for exporter in one.exporters(settings.network).executions:
        signal, chosen = exporter.signal, exporter.settings
        if exporter.off:
            yield Row(section, signal, "none", place("otlp", signal))
            continue
        values: dict[str, Value] = {
            "endpoint": chosen.place,
            "protocol": chosen.protocol,
            "compression": chosen.compression,
            "certificate": chosen.certificate,
            "client_certificate": chosen.client_certificate,
        }
        for key, value in values.items():
            if value is not None:
                yield Row(section, f"{signal}.{key}", value, written(exporter, key))
        for header, _ in chosen.headers:
            origin = written(exporter, "headers")
            if origin == DEFAULT:  # user and password of the endpoint
                origin = written(exporter, "endpoint")
            yield Row(section, f"{signal}.headers.{header}", HIDDEN, origin)
    given = one.privacy.model_dump(by_alias=True, exclude_unset=True)
    for name, choice in one.privacy.over(settings.privacy).model_dump(by_alias=True).items():
        general = settings.places.written_at(("privacy", name))
        origin = place("privacy", name) if name in given else general[-1] if general else DEFAULT
        yield Row(section, f"privacy.{name}", choice, origin)
    for rule in one.rules.rules:
        words = f"{rule.words} where {rule.match.words}"
        yield Row(section, f"rules.{rule.name}", words, place("rules"))
    for attribute, value in one.resource.items():
        shown = _discreet(attribute, value)
        yield Row(section, f"resource.{attribute}", shown, place("resource", attribute))
    yield Row(
        section,
        "requests_per_minute",
        one.requests_per_minute,
        place("requests_per_minute") if "requests_per_minute" in one.model_fields_set else DEFAULT,
    )


def _flat(model: BaseModel, path: Path) -> Iterator[tuple[tuple[str, ...], Value]]:
    """The plain settings of `model`, those within others by their path."""
    for name, field in type(model).model_fields.items():
        if not path and name in _APART:
            continue
        value = getattr(model, name)
        inner = (*map(str, path), field.alias or name)
        if isinstance(value, BaseModel):
            yield from _flat(value, inner)
        else:
            yield inner, _plain(model, name)


def _plain(model: BaseModel, name: str) -> Value:
    """A value as it is written and may be shown."""
    value, kind = getattr(model, name), type(model).model_fields[name].annotation
    if isinstance(value, SecretStr):
        return HIDDEN if value.get_secret_value() else None
    if name == "storage":
        return shown_url(value) if is_postgres(value) else value
    if isinstance(value, tuple):
        return ",".join(written_duration(v) if isinstance(v, float) else str(v) for v in value)
    if isinstance(value, float) and (kind is float or name == "since"):
        return written_duration(value)
    if isinstance(value, int) and name == "since":
        return to_text(value)
    if isinstance(value, str) and "://" in value:
        return shown_url(value)
    return value if isinstance(value, bool | int | float | str) else None


def _row(settings: Settings, section: str, path: Path, value: Value) -> Row:
    places = settings.places.written_at(path)
    if path[:1] == ("sources",) and path in settings.places.written:
        places = (*settings.places.written_at(path[2:]), *places)
    origin = places[-1] if places else DEFAULT
    name = ".".join(map(str, path[2:] if path[:1] == ("sources",) else path))
    return Row(section, name, value, origin, tuple(places[:-1]))


def _discreet(name: str, value: Value) -> Value:
    """The value of a resource attribute; not that of one whose name promises a secret."""
    if _SECRETIVE.search(name):
        return HIDDEN
    return shown_url(value) if isinstance(value, str) and urlsplit(value).scheme else value
