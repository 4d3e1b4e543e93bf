"""A destination besides the main one: what belongs there, where that is, and what is left out.

A destination's endpoint is made of its own section and of the network's settings, and of nothing
that is said of the main destination: what that is sent (a header with a key of ours) must never
reach a customer. Nothing here connects; which files may be named is decided by who reads one
(`destinations_dir.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, InstanceOf

from otel_alloy.errors import WrongParts
from otel_alloy.network import Network
from otel_alloy.routing.match import Match
from otel_alloy.routing.rules import Rules
from otel_alloy.settings.otlp import OtlpExporters, otlp_exporters
from otel_alloy.settings.otlp_section import files_of, flatten_otlp, setting_of
from otel_alloy.settings.places import Path, Place
from otel_alloy.settings.values import Model, Privacy, Seconds

MAIN = "main"
"""The destination of OTEL_EXPORTER_OTLP_*."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def check_name(name: str) -> str:
    """The name of a destination. Raises ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            "name a destination with 1 to 100 letters, digits, `.`, `_` and `-`, beginning with "
            "none of `.` and `-`"
        )
    if name == MAIN:
        raise ValueError(f"{MAIN} is the destination of OTEL_EXPORTER_OTLP_*; choose another name")
    return name


def _match(given: object) -> Match:
    return given if isinstance(given, Match) else Match.parse(given)


def _otlp(given: object) -> dict[str, str]:
    flat, _, found = flatten_otlp(given)
    signals = [s for s in ("TRACES", "LOGS") if f"OTEL_{s}_EXPORTER" not in flat]
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_{}_ENDPOINT")
    if not found and any(
        not any(flat.get(name.format(signal), "").strip() for name in names) for signal in signals
    ):
        words = "it is missing; write the URL, such as https://otel.acme.example"
        found.append((("endpoint",), words))
    if not signals:
        words = "traces and logs are both none, so nothing would be delivered; leave one out"
        found.append(((), words))
    if found:
        raise WrongParts(found)
    return flat


Name = Annotated[str, AfterValidator(check_name)]


class DestinationSettings(Model):
    """One destination, whose name is not its own business."""

    match: Annotated[InstanceOf[Match], BeforeValidator(_match)] = Field(
        description="whose executions belong there, as in `rules`"
    )
    otlp: Annotated[dict[str, str], BeforeValidator(_otlp)] = Field(
        repr=False, description="where that is: the keys of the file's `otlp`"
    )
    """As OpenTelemetry's variables."""
    privacy: Privacy = Field(
        default_factory=lambda: Privacy.model_validate({}),
        description="what is said here counts instead of the general `privacy`",
    )
    rules: Annotated[InstanceOf[Rules], BeforeValidator(Rules.parse)] = Field(
        default_factory=Rules, description="what of that is kept, dropped or sampled"
    )
    resource: dict[str, str | bool | int | float] = Field(
        default_factory=dict, repr=False, description="resource attributes, over the source's"
    )
    requests_per_minute: int = Field(0, ge=0, description="limit of requests; 0 = none")

    def exporters(self, network: Network) -> OtlpExporters:
        """Where its traces and logs go, mistakes included. They name variables of OpenTelemetry:
        `named` makes settings of a destination of them."""
        return otlp_exporters(self.otlp, network)

    @property
    def files(self) -> list[str]:
        """The certificate and key files that it names."""
        return files_of(self.otlp)

    def mistakes(
        self,
        network: Network,
        general: Privacy,
        place: Callable[[Path], Place],
        *,
        key: bool,
    ) -> list[str]:
        """What only shows beside the other settings: `general` privacy, and whether there is a
        `key` to hash with. `place`: where a setting of it is written; each mistake names that."""

        def find(variable: str) -> Place:
            return place(("otlp", *setting_of(variable).split(".")))

        found = list(otlp_exporters(self.otlp, network, find).mistakes)
        if self.privacy.over(general).hashes and not key:
            found.append(
                f"{place(('privacy',))} asks for `hash`: set OTEL_ALLOY_PRIVACY_KEY to a secret key"
            )
        return found


class DestinationsPolicy(Model):
    """What endpoints of destinations, and files about them, may not."""

    https_only: bool = Field(False, description="endpoints need TLS")
    public_only: bool = Field(
        False, description="endpoints need public addresses: none that is private or link-local"
    )
    secrets_dir: str | None = Field(
        None,
        description="folder of the secrets that files of `destinations_dir` may refer to, each "
        "to `NAME` and what lies below",
    )


class OutboxSettings(Model):
    """How much may wait for destinations. What is above is read again from Alloy later."""

    max_bytes: int = Field(100_000_000, ge=100_000, description="for one destination, on the disk")
    total_bytes: int = Field(1_000_000_000, ge=100_000, description="for all of them")
    max_age: Seconds = Field(3 * 86400.0, ge=60, le=60 * 86400, description="how long at most")


@dataclass(frozen=True, slots=True)
class Destinations:
    """All that there are at a time: those that can be used, and why the others cannot, in words
    that hold no secret."""

    usable: Mapping[str, DestinationSettings] = field(default_factory=dict)
    disabled: Mapping[str, str] = field(default_factory=dict)
