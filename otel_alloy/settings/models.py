"""Every setting: its default, unit and bounds.

Where a value comes from is the loader's business (`loader.py`). Nothing here opens a connection.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from otel_alloy.alloy.key import SETTINGS, ApiKey, KeyFile, key_problem
from otel_alloy.alloy.timestamps import to_ms
from otel_alloy.checkpoint.postgres_url import is_postgres, parse_postgres
from otel_alloy.durations import parse_duration
from otel_alloy.environment import kept_quotes, without_empty
from otel_alloy.errors import CheckpointError, ConfigurationError, WrongParts
from otel_alloy.links import TraceUrl
from otel_alloy.mapping.execution_url import ExecutionUrl
from otel_alloy.mapping.semconv import (
    DEFAULT_SERVICE_NAME,
    DISTRO_NAME,
    SERVICE_NAME,
    TELEMETRY_DISTRO_NAME,
)
from otel_alloy.near import advice
from otel_alloy.network import VARIABLES as NETWORK_VARIABLES
from otel_alloy.network import Network, network
from otel_alloy.routing.customers import ATTRIBUTES
from otel_alloy.routing.headers import Template
from otel_alloy.routing.rules import Rules
from otel_alloy.settings.destinations import (
    DestinationSettings,
    DestinationsPolicy,
    Name,
    OutboxSettings,
)
from otel_alloy.settings.otlp import Exporter, OtlpExporters, mistakes_of, otlp_exporters
from otel_alloy.settings.places import Path, Place, Places
from otel_alloy.settings.values import Model, Privacy, Seconds

_URL = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[^\s/@:?#\[\]]+)(:(?P<port>\d{1,5}))?(/[^\s?#]*)?")


def parse_moment(value: object) -> int | float:
    """A point in time: Unix ms (int) of a timestamp, or how many seconds ago (float) of a
    duration such as `60d`. Raises ValueError."""
    if isinstance(value, date):  # what YAML makes of a timestamp without quotes
        value = value.isoformat()
    if isinstance(value, str) and ("-" in value or ":" in value):
        ms = to_ms(value.strip())
        if ms is not None:
            return ms
    try:
        return parse_duration(value)
    except ValueError:
        raise ValueError(
            "write how long ago (60d, 12h) or a timestamp (2025-04-29T17:44:10Z)"
        ) from None


def one_key(lower: dict[str, Any], higher: Mapping[str, Any]) -> dict[str, Any]:
    """`lower` overridden by `higher`. Key and key file stand for the same: either hides both."""
    keys = {"api_key", "api_key_file"}
    kept = {k: v for k, v in lower.items() if k not in keys or keys.isdisjoint(higher)}
    return {**kept, **higher}


def _ages(value: object) -> object:
    """A list of durations, or text with commas; `off` is none at all."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip() not in ("", "off")]
    return value


Ages = Annotated[tuple[Annotated[Seconds, Field(ge=1, le=60 * 86400)], ...], BeforeValidator(_ages)]


def _names(value: object) -> object:
    """A list of names, or text with commas."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]


_NO_KEY = SecretStr("(none)")  # no key holds parentheses


_VARIABLES = {**SETTINGS, "api_key_file": "ALLOY_API_KEY_FILE"}


@dataclass(frozen=True, slots=True)
class _At:
    """Which of the sources it is, and where all of them are written; no part of what it is."""

    places: Places = field(default_factory=Places, compare=False)
    at: int = field(default=0, compare=False)


class SourceSettings(Model):
    """One Alloy account or query. Durations in seconds."""

    name: str = Field("default", min_length=1, description="names the source's checkpoint")
    api_key_file: str | None = Field(
        None,
        description="file that holds the key instead; looked at again before each request",
    )
    api_key: SecretStr = Field(
        _NO_KEY, validate_default=True, description="Alloy API key, with or without `bearer `"
    )
    endpoint: str = Field("https://production.runalloy.com", description="base URL of the API")
    api_version: str = Field("2025-09", description="header `x-api-version`; empty leaves it out")
    timeout: Seconds = Field(30.0, gt=0, le=600, description="for one request to Alloy")
    collection_interval: Seconds = Field(
        30.0, ge=1, le=86400, description="at most between two cycles"
    )
    adaptive: bool = Field(
        True, description="shorter intervals and larger pages, as far as they pay"
    )
    initial_lookback: Seconds = Field(
        3600.0, ge=0, description="how far back the first run begins; at most 60d is kept by Alloy"
    )
    overlap: Seconds = Field(
        120.0,
        ge=0,
        le=86400,
        description="counted or read again each cycle, for records that appear late",
    )
    overlap_max: Seconds = Field(
        86400.0, ge=0, le=7 * 86400, description="how far the overlap may grow by what was seen"
    )
    audit: Ages = Field(
        (600.0, 3600.0, 86400.0),
        max_length=10,
        description="ages at which what is settled is held against Alloy's own count; `off`",
    )
    audit_bucket: Seconds = Field(600.0, ge=1, le=86400, description="what is audited together")
    audit_by_reading: bool = Field(
        False, description="the audit's last look reads again, also where Alloy does not count"
    )
    page_size: int = Field(100, ge=1, le=10000, description="records asked for per request")
    max_response_bytes: int = Field(
        64 * 2**20, ge=100_000, le=2**30, description="size limit of one answer, decompressed"
    )
    requests_per_minute: int = Field(60, ge=0, description="request budget; 0 = no limit")
    incomplete_after: Seconds = Field(
        86400.0, ge=60, description="an execution without an end is reported as incomplete"
    )
    enrich: Literal["off", "failed", "all"] = Field(
        "failed", description="whose blocks and reason are asked for: `off`, `failed` or `all`"
    )
    enrich_timeout: Seconds = Field(
        30.0, ge=1, le=3600, description="for how long at most an ended execution waits for them"
    )
    workflow_id: str | None = Field(None, description="only this workflow (the parent's id)")
    user_id: str | None = Field(None, description="only this user's executions")
    resource: dict[str, str | bool | int | float] = Field(
        default_factory=dict, description="more resource attributes for this source"
    )

    _at: _At = PrivateAttr(default_factory=lambda: _At())

    def called(self, name: str) -> str:
        """How its key (`api_key`) or its `endpoint` is called where it is written."""
        if name == "api_key" and self.api_key_file:
            name = "api_key_file"
        places = self._at.places.written_at(("sources", self._at.at, name))
        return str(places[-1]) if places else _VARIABLES[name]

    @field_validator("api_key")
    @classmethod
    def _key_is_whole(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        if value.get_secret_value() == _NO_KEY.get_secret_value():
            if info.data.get("api_key_file", "") is None:
                raise PydanticCustomError("no_key", "not set; set it to your Alloy API key")
            return SecretStr("")
        if info.data.get("api_key_file"):
            raise PydanticCustomError("two_keys", "both are set; leave one of them out")
        if {'"', "'"} & set(value.get_secret_value()):
            raise ValueError(
                "it holds quotes, which `docker --env-file` keeps; write the key without them"
            )
        key = re.sub(r"(?i)^\s*bearer(\s+|$)", "", value.get_secret_value()).strip()
        if not key:
            raise ValueError("it is empty; set ALLOY_API_KEY to your Alloy API key")
        if problem := key_problem(key):
            raise ValueError(problem)
        return SecretStr(key)

    @field_validator("api_key_file")
    @classmethod
    def _key_file_holds_a_key(cls, value: str | None) -> str | None:
        if not value:
            return None
        KeyFile(value)()
        return value

    def key(self) -> ApiKey:
        """What tells the key to use now; it looks at `api_key_file` again each time."""
        if self.api_key_file:
            return KeyFile(self.api_key_file)
        return self.api_key.get_secret_value

    @field_validator("endpoint")
    @classmethod
    def _endpoint_is_a_url(cls, value: str) -> str:
        match = _URL.fullmatch(value)
        if match is None or (match["port"] and not 0 < int(match["port"]) < 65536):
            raise ValueError(
                "write a URL such as https://production.runalloy.com (no user, query or fragment)"
            )
        return value.rstrip("/").removesuffix("/logs")

    @property
    def fingerprint(self) -> str:
        """What defines the query, so that a checkpoint is never used for another one. The key is
        no part of it: keys are rotated."""
        text = "\n".join((self.endpoint, self.workflow_id or "", self.user_id or ""))
        return sha256(text.encode()).hexdigest()[:32]


class Webhook(Model):
    """Where Alloy's error webhook is received (Alloy: Settings, Logging)."""

    listen: str | None = Field(
        None, description="host:port where Alloy's error webhook is received; empty = off"
    )
    secret: SecretStr = Field(
        SecretStr(""), description="what the webhook's address has to hold, 16 characters at least"
    )

    @field_validator("listen")
    @classmethod
    def _listen_is_an_address(cls, value: str | None) -> str | None:
        return host_and_port(value)

    @model_validator(mode="after")
    def _secret_is_there(self) -> Webhook:
        if self.listen and len(self.secret.get_secret_value()) < 16:
            words = (
                "webhook.secret (OTEL_ALLOY_WEBHOOK_SECRET) needs 16 characters at least, as it is "
                "all that keeps others from sending errors; make one with `openssl rand -hex 24`"
            )
            # An empty one counts as none, so the address is where it is asked for.
            raise WrongParts([(("secret" if self.secret.get_secret_value() else "listen",), words)])
        return self


def host_and_port(value: str | None) -> str | None:
    """host:port, None where it is empty. Raises ValueError."""
    if not value:
        return None
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s/@:\[\]]+):(\d{1,5})", value)
    if match is None or int(match[2]) > 65535:
        raise ValueError("write host:port, such as 127.0.0.1:8089; empty = off")
    return value


def environment_of(variables: Mapping[str, str]) -> dict[str, str]:
    """The `environment` of settings: of these variables those of OpenTelemetry and of the network
    that are not empty."""
    return {
        name: value
        for name, value in without_empty(variables).items()
        if name.startswith("OTEL_") or name in NETWORK_VARIABLES
    }


class Settings(Model):
    """All settings. With one source, its settings may stand at this level:
    `Settings(api_key=…, endpoint=…)`. Raises pydantic's ValidationError; `load_settings` turns
    that into ConfigurationError with the names that people wrote.

    `environment`: the `OTEL_*` variables and those of proxies and trusted certificates, by default
    those of the process. OpenTelemetry's own ones work as it specifies; nobody but `otlp`,
    `network`, `value_limit` and `resource` reads them.
    """

    sources: tuple[SourceSettings, ...] = Field(min_length=1)
    storage: str = Field(
        "sqlite:///otel-alloy.db", repr=False, description="where the checkpoint is kept"
    )
    lease: Seconds = Field(
        15.0,
        ge=3,
        le=600,
        description="with postgresql: how long a replica that is not heard keeps its work",
    )
    batch_size: int = Field(1000, ge=1, le=100_000, description="executions per delivery")
    max_request_bytes: int = Field(
        3_670_016, ge=10_000, le=64 * 2**20, description="size limit of one OTLP request"
    )
    shutdown_timeout: Seconds = Field(10.0, ge=0, le=600, description="to settle what is in flight")
    attribute_value_length_limit: int = Field(
        2048, ge=16, le=65536, description="characters kept of a text value"
    )
    started_logs: bool = Field(False, description="also a log record when an execution starts")
    event_name_attribute: bool = Field(
        False,
        description="log records name their event in the attribute `event.name` too, for backends "
        "that drop OTLP's field for it, as Loki 3.7",
    )
    health_endpoint: str | None = Field(
        "127.0.0.1:8089",
        description="host:port of the page, /livez, /readyz and /status, while `run` goes on; "
        "empty = off",
    )
    ready_max_lag: Seconds = Field(
        900.0, ge=1, description="/readyz says no when further behind than this"
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="console for people, json for machines (one object per line)"
    )
    own_traces: bool = Field(
        False,
        description="also spans of its own work (cycles and their requests), by `run`",
    )
    privacy: Privacy = Field(
        default_factory=lambda: Privacy.model_validate({}), description="personal data"
    )
    privacy_key: SecretStr = Field(SecretStr(""), description="key of the HMAC for `hash`")
    destinations: dict[Name, DestinationSettings] = Field(
        default_factory=dict, description="endpoints of customers, besides the main one"
    )
    destinations_dir: str | None = Field(
        None, description="folder of such destinations, NAME.yaml each; looked at again and again"
    )
    destinations_policy: DestinationsPolicy = Field(
        default_factory=lambda: DestinationsPolicy.model_validate({}),
        description="what endpoints of destinations may not",
    )
    main_destination: Literal["all", "unmatched", "none"] = Field(
        "all",
        description="what goes to OTEL_EXPORTER_OTLP_* besides: `all`, what no destination "
        "matches, or `none`",
    )
    outbox: OutboxSettings = Field(
        default_factory=lambda: OutboxSettings.model_validate({}),
        description="how much may wait for destinations",
    )
    resource_per: Names = Field(
        (),
        description="fields of an execution that are attributes of its resource too, such as "
        "`user.id`",
    )
    headers: dict[str, str] = Field(
        default_factory=dict,
        description="OTLP headers with `{field}`s of `resource_per`: a request for each value",
    )
    webhook: Webhook = Field(
        default_factory=lambda: Webhook.model_validate({}), description="the error webhook"
    )
    rules: Annotated[Rules, PlainValidator(Rules.parse), PlainSerializer(repr)] = Field(
        Rules(), description="which executions are kept, dropped or sampled"
    )
    since: int | float | None = Field(
        None, description="where the first run begins; instead of initial_lookback"
    )
    hook: str | None = Field(
        None,
        description="attaches executions to other traces: module:callable, or the name of an "
        "entry point otel_alloy_hook",
    )
    trace_url: str | None = Field(
        None,
        description="where a trace can be looked at, such as "
        "`http://localhost:16686/trace/{trace_id}`; makes ids links",
    )
    execution_url: str | None = Field(
        None,
        description="where Alloy's own page of an execution is, with `{execution.id}` or "
        "`{execution.uuid}`; becomes `url.full`",
    )
    environment: dict[str, str] = Field(
        default_factory=lambda: environment_of(os.environ), repr=False
    )
    _places: Places = PrivateAttr(default_factory=Places)

    @model_validator(mode="before")
    @classmethod
    def _single_source(cls, values: Any) -> Any:
        """Source settings at the top level are defaults for every source, or the only source."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        shared = {k: values.pop(k) for k in list(values) if k in SourceSettings.model_fields}
        sources = values.get("sources")
        if sources is None:
            values["sources"] = [shared]
        elif isinstance(sources, list | tuple):
            values["sources"] = [one_key(shared, s) if isinstance(s, dict) else s for s in sources]
        return values

    @field_validator("since", mode="before")
    @classmethod
    def _since(cls, value: object) -> int | float | None:
        return None if value is None else parse_moment(value)

    @field_validator("destinations_dir")
    @classmethod
    def _empty_is_none(cls, value: str | None) -> str | None:
        return value or None

    @field_validator("health_endpoint")
    @classmethod
    def _health_endpoint_is_an_address(cls, value: str | None) -> str | None:
        return host_and_port(value)

    @field_validator("hook")
    @classmethod
    def _hook_is_a_name(cls, value: str | None) -> str | None:
        if not value:
            return None
        if not re.fullmatch(r"[^\s:]+|[\w.]+:[\w.]+", value):
            raise ValueError(
                "write module:callable, such as my_hooks:correlate, or the name of an entry point "
                "of the group otel_alloy_hook; empty = none"
            )
        return value

    @field_validator("trace_url")
    @classmethod
    def _trace_url_is_a_pattern(cls, value: str | None) -> str | None:
        if not value:
            return None
        TraceUrl.parse(value)
        return value

    @field_validator("execution_url")
    @classmethod
    def _execution_url_is_a_pattern(cls, value: str | None) -> str | None:
        if not value:
            return None
        ExecutionUrl.parse(value)
        return value

    @field_validator("resource_per")
    @classmethod
    def _resource_per_is_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in ATTRIBUTES:
                words = advice(name, tuple(ATTRIBUTES), "there are")
                raise ValueError(f"{name[:60]!r} is none of the fields for it; {words}")
        return tuple(dict.fromkeys(value))

    @model_validator(mode="after")
    def _headers_are_templates(self) -> Settings:
        names = [one.name for one in self.templates]
        for name in sorted({n for n in names if names.count(n) > 1}):
            raise WrongParts([(("headers",), f"{name} is there twice; leave one of them out")])
        return self

    @field_validator("storage")
    @classmethod
    def _storage_is_known(cls, value: str) -> str:
        if is_postgres(value):
            try:
                parse_postgres(value)
            except CheckpointError as error:
                raise ValueError(error.remedy) from None
        elif not re.fullmatch(r"sqlite:///.+", value):
            raise ValueError(
                "write sqlite:///relative/path.db, sqlite:////absolute/path.db or "
                "postgresql://user@host/database"
            )
        return value

    @model_validator(mode="after")
    def _whole(self) -> Settings:
        found: list[tuple[tuple[str | int, ...], str]] = []
        names = [s.name for s in self.sources]
        for at, name in enumerate(names):
            if name in names[:at]:
                words = f"two sources are named {name!r}; give each its own `name`"
                found.append((("sources", at, "name"), words))
        if self.privacy.hashes and not self.privacy_key.get_secret_value():
            words = "privacy asks for `hash`; set OTEL_ALLOY_PRIVACY_KEY to a secret key"
            which = "user.email" if self.privacy.user_email == "hash" else "user.full_name"
            found.append((("privacy", which), words))
        if self.main_destination != "all" and not (self.destinations or self.destinations_dir):
            words = (
                f"main_destination is {self.main_destination}, and there are no destinations, so "
                "nothing would be delivered; name some in `destinations` or `destinations_dir`"
            )
            found.append((("main_destination",), words))
        if found:
            raise WrongParts(found)
        return self

    @property
    def places(self) -> Places:
        """Where all of it was written, as far as that is known."""
        return self._places

    def written_at(self, places: Places) -> Settings:
        """The same, which knows where it was written."""
        self._places = places
        for at, source in enumerate(self.sources):
            source._at = _At(places, at)
        return self

    @property
    def warnings(self) -> list[str]:
        """What is allowed and probably not meant, each once."""
        return list(dict.fromkeys((*self.places.warnings, *self.otlp.warnings)))

    @cached_property
    def network(self) -> Network:
        """How connections leave this machine, mistakes included."""
        return network(self.environment)

    @property
    def mistakes(self) -> list[str]:
        """What is wrong with `environment`, and with the way to the sources; each once."""
        found = list(self.network.mistakes)
        for variable in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
            if wrong := kept_quotes(variable, self.environment.get(variable, "")):
                found.append(wrong)
        for source in self.sources:
            try:
                self.network.route(source.endpoint)
            except ConfigurationError as error:
                found += error.mistakes
        for name, one in self.destinations.items():

            def place(path: Path, name: str = name) -> Place:
                return self.places.of(("destinations", name, *path))

            key = bool(self.privacy_key.get_secret_value())
            found += one.mistakes(self.network, self.privacy, place, key=key)
        for setting, folder in (
            (("destinations_dir",), self.destinations_dir),
            (("destinations_policy", "secrets_dir"), self.destinations_policy.secrets_dir),
        ):
            if folder and not os.path.isdir(folder):
                where = self.places.of(setting)
                found.append(f"{where}: {folder!r} is no folder that can be read; make it one")
        found += [m for e in self.otlp.executions for m in self._header_mistakes(e)]
        if self.main_destination == "none":
            return list(dict.fromkeys((*found, *mistakes_of(self.otlp.metrics))))
        return list(dict.fromkeys((*found, *self.otlp.mistakes)))

    def _header_mistakes(self, exporter: Exporter) -> Iterator[str]:
        if not self.headers or exporter.off:
            return
        variable = self.places.variable(exporter.variable)
        if exporter.name != "otlp":
            yield (
                f"{variable} is {exporter.name!r}, which cannot send headers with each "
                "request: leave out `headers`, or choose otlp."
            )
            return
        given = {name for name, _ in exporter.settings.headers}
        for name in sorted({one.name for one in self.templates} & given):
            yield exporter.settings.named(
                f"The header {name} stands in `headers` and in OTEL_EXPORTER_OTLP_HEADERS: leave "
                "one of them out."
            )

    @property
    def shared(self) -> bool:
        """Whether other replicas may work with the same storage at the same time."""
        return is_postgres(self.storage)

    @property
    def routes(self) -> bool:
        """Whether anything decides who gets what: rules or destinations."""
        return bool(not self.rules.empty or self.destinations or self.destinations_dir)

    @cached_property
    def templates(self) -> tuple[Template, ...]:
        """`headers`, understood."""
        return tuple(Template.of(n, v, self.resource_per) for n, v in self.headers.items())

    @cached_property
    def traces(self) -> TraceUrl | None:
        """`trace_url`, understood; None where it is not set."""
        return TraceUrl.parse(self.trace_url) if self.trace_url else None

    @cached_property
    def execution_page(self) -> ExecutionUrl | None:
        """`execution_url`, understood; None where it is not set."""
        return ExecutionUrl.parse(self.execution_url) if self.execution_url else None

    @cached_property
    def otlp(self) -> OtlpExporters:
        """Where everything goes, mistakes included."""
        return otlp_exporters(self.environment, find=self.places.variable)

    @property
    def value_limit(self) -> int:
        """Characters kept of a text value: OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT where it is a number
        of at least 16, else `attribute_value_length_limit`."""
        limit = self.environment.get("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "").strip()
        if re.fullmatch(r"[0-9]{2,18}", limit) and int(limit) >= 16:
            return int(limit)
        return self.attribute_value_length_limit

    def resource(self, source: SourceSettings) -> dict[str, str | bool | int | float]:
        """The resource attributes of a source: OTEL_RESOURCE_ATTRIBUTES, over it
        OTEL_SERVICE_NAME, over both the source's own, as in OpenTelemetry's resource SDK.

        Nothing in it differs from one version of otel-alloy to the next (the scope tells that):
        backends compare a repeat with its resource (Jaeger's deduplication hashes it), so that one
        of before an upgrade would be shown twice. And nothing of `telemetry.sdk`, as no SDK made
        it, nor `service.version`, which is Alloy's own."""
        attributes: dict[str, str | bool | int | float] = {
            SERVICE_NAME: DEFAULT_SERVICE_NAME,
            TELEMETRY_DISTRO_NAME: DISTRO_NAME,
        }
        for pair in self.environment.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
            key, equals, value = pair.partition("=")
            if equals and key.strip():
                attributes[unquote(key.strip())] = unquote(value.strip())
        name = self.environment.get("OTEL_SERVICE_NAME", "").strip()
        if name:
            attributes[SERVICE_NAME] = name
        return {**attributes, **source.resource}
