"""What a policy for endpoints that somebody else names means for OTLP: which settings it forbids,
and where a gRPC channel may lead. What is public stands in `otel_alloy.outbound`. No sockets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from ipaddress import ip_address

from otel_alloy.errors import ConfigurationError
from otel_alloy.outbound import OutboundPolicy
from otel_alloy.settings.otlp import Exporter, OtlpSettings

_TARGET = re.compile(
    r"(?!(?:unix|unix-abstract|vsock|dns|ipv4|ipv6|xds):)"  # what gRPC takes for a scheme
    r"(\[[0-9a-fA-F:.]+\]|[^\s\[\]:/,%]+)(?::([0-9]{1,5}))?"
)
_PORT = 443
"""Of a gRPC target that names none."""
_SECONDS = 60.0
"""For which the answer of a look-up counts."""


def mistakes_against(policy: OutboundPolicy | None, exporters: Iterable[Exporter]) -> list[str]:
    """What the policy forbids of where signals go, each once and with its remedy."""
    found = [m for e in exporters for m in _of_exporter(policy, e)] if policy else []
    return list(dict.fromkeys(found))


def check_policy(policy: OutboundPolicy | None, settings: OtlpSettings) -> None:
    """Raises ConfigurationError with all that the policy forbids of the settings."""
    if mistakes := mistakes_against(policy, [Exporter(settings)]):
        raise ConfigurationError(mistakes)


class PinnedTarget:
    """The addresses of a gRPC endpoint, judged, as a target that leads to them and no further.

    A channel to such a target looks nothing up, however often it connects. The name is looked up
    again when it was doubted, and after a minute. Raises ConfigurationError for settings that the
    policy forbids.
    """

    def __init__(
        self, policy: OutboundPolicy, settings: OtlpSettings, monotonic: Callable[[], float]
    ) -> None:
        check_policy(policy, settings)
        match = _TARGET.fullmatch(settings.endpoint)
        assert match is not None  # the policy forbids it
        self._policy = policy
        self._monotonic = monotonic
        self._host = match[1].strip("[]")
        self._port = int(match[2] or _PORT)
        self.authority = f"{match[1]}:{self._port}"
        """Whom TLS and the server take it for."""
        self.target = ""
        """What to connect a channel to; empty before the first look."""
        self._until = -math.inf
        self._doubts = 0

    def look(self) -> bool:
        """Whether `target` is another one now. It stays where a later look-up fails. Raises
        Refused, and for the first one OSError, UnicodeError: then nothing may be sent."""
        if self._monotonic() < self._until:
            return False
        self.forget()
        try:
            targets = _targets(self._policy.addresses(self._host, self._port), self._port)
        except (OSError, UnicodeError):
            if not self.target:
                raise
            return False
        before, self.target = self.target, targets[self._doubts % len(targets)]
        self._until = self._monotonic() + _SECONDS
        return self.target != before

    def doubt(self) -> None:
        """Nobody answered: the name is looked up again with the next request, and then it is the
        turn of the other family, if it has addresses of both."""
        self._doubts += 1
        self.forget()

    def forget(self) -> None:
        """The name is looked up again with the next request."""
        self._until = -math.inf


def _targets(addresses: list[str], port: int) -> list[str]:
    """One for each family, as gRPC takes only one at a time, in the order of the addresses."""
    families: dict[str, list[str]] = {}
    for text in dict.fromkeys(addresses):
        if ip_address(text).version == 4:
            families.setdefault("ipv4", []).append(f"{text}:{port}")
        else:
            families.setdefault("ipv6", []).append(f"[{text}]:{port}")
    if not families:
        raise OSError("the name has no address")
    return [f"{family}:{','.join(places)}" for family, places in families.items()]


def _of_exporter(policy: OutboundPolicy, exporter: Exporter) -> Iterable[str]:
    settings = exporter.settings
    who = f"OTLP {exporter.signal} to {settings.place}"
    if exporter.off:
        return
    if exporter.name != "otlp":
        yield (
            f"The exporter {exporter.name!r} for {exporter.signal} connects by itself, so "
            "destinations_policy cannot judge where to: choose otlp."
        )
        return
    if policy.https_only and settings.insecure:
        yield f"{who} is not encrypted, and destinations_policy says https_only: write https://."
    if settings.protocol == "grpc" and not _TARGET.fullmatch(settings.endpoint):
        yield f"{who}: with a destinations_policy only a host and a port can be a gRPC target."
    if policy.public_only and settings.route.proxy is not None:
        yield (
            f"{who} would go{settings.route.via}, which looks names up itself, so that "
            "destinations_policy cannot say whether they lead to public addresses: exclude the "
            "host with NO_PROXY, or turn public_only off."
        )
