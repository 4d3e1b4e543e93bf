"""What `check` finds out about the OTLP endpoint: an empty request for each signal, and with
`--send-test` one marked span and log record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from otel_alloy.alloy.models import read_notification
from otel_alloy.alloy.timestamps import to_text
from otel_alloy.check.finding import Finding
from otel_alloy.mapping import semconv
from otel_alloy.mapping.convert import Execution, Role
from otel_alloy.mapping.forms import envelope
from otel_alloy.mapping.ids import execution_ids
from otel_alloy.otlp.outcome import Headers, Kind, Outcome, Sender
from otel_alloy.otlp.senders import open_senders
from otel_alloy.pipeline.factory import open_converter
from otel_alloy.runtime import Runtime
from otel_alloy.settings.models import Settings
from otel_alloy.settings.otlp import Exporter, Signal
from otel_alloy.version import USER_AGENT

TEST_NAME = "otel-alloy test"
"""The name of the span that `--send-test` sends."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What is tried: where the two signals go, and by which senders, which are closed in the end.
    `resource`: of what is sent; `headers`: of requests, besides those of the settings."""

    exporters: tuple[Exporter, Exporter]
    senders: tuple[Sender | None, Sender | None]
    resource: Mapping[str, str | bool | int | float]
    headers: Headers = ()


def endpoint_findings(settings: Settings, runtime: Runtime, send_test: bool) -> Iterator[Finding]:
    """About the main endpoint."""
    endpoint = Endpoint(
        settings.otlp.executions,
        open_senders(settings.otlp, USER_AGENT, runtime),
        settings.resource(settings.sources[0]),
        _nobody(settings),
    )
    yield from findings_about(endpoint, settings, runtime, send_test)


def findings_about(
    endpoint: Endpoint, settings: Settings, runtime: Runtime, send_test: bool
) -> Iterator[Finding]:
    """A finding for each signal; with `send_test` one more for each that was reached."""
    around = envelope(endpoint.resource)
    senders = list(zip(endpoint.exporters, endpoint.senders, strict=True))
    reached: dict[Signal, Sender] = {}
    try:
        outcomes = {
            exporter.signal: sender.send(around.request([]), endpoint.headers)
            for exporter, sender in senders
            if sender is not None and exporter.name == "otlp"
        }
        takes_one = any(one.kind is Kind.DELIVERED for one in outcomes.values())
        for exporter, sender in senders:
            if sender is None:
                yield _off_finding(exporter)
                continue
            outcome = outcomes.get(exporter.signal)
            if outcome is None:
                finding = _installed_finding(exporter)
            else:
                finding = _empty_finding(exporter, outcome, takes_one)
            if finding.ok is not False:
                reached[exporter.signal] = sender
            yield finding
        if send_test:
            yield from _send_test(endpoint, settings, runtime, reached)
    finally:
        for sender in endpoint.senders:
            if sender is not None:
                sender.close()


def _off_finding(exporter: Exporter) -> Finding:
    signal = exporter.signal
    words = f"off: {signal} are not sent, and count as settled"
    tried = f"looked at {exporter.variable}"
    return Finding(f"OTLP {signal}", tried, True, words, facts={"exporter": "none"})


def _installed_finding(exporter: Exporter) -> Finding:
    return Finding(
        f"OTLP {exporter.signal}",
        f"{exporter.variable} names the exporter {exporter.name!r}",
        None,
        "it is installed; whether it reaches anything, only a record can tell",
        "use --send-test",
        facts={"exporter": exporter.name},
    )


def _empty_finding(exporter: Exporter, outcome: Outcome, takes_one: bool) -> Finding:
    """`takes_one`: whether the endpoint took the other signal, or this one."""
    part, chosen = f"OTLP {exporter.signal}", exporter.settings
    tried = f"sent an empty request to {chosen.place} ({chosen.protocol})"
    facts = {"endpoint": chosen.place, "protocol": chosen.protocol}
    if outcome.kind is Kind.DELIVERED:
        return Finding(part, tried, True, "acknowledged", facts=facts)
    remedy = _remedy(outcome)
    if outcome.no_signal and takes_one:
        off = f"if this backend takes no {exporter.signal}, set {exporter.variable}=none"
        remedy = f"{off}; otherwise {remedy}"
    return Finding(part, tried, False, outcome.reason, chosen.named(remedy), facts=facts)


def _remedy(outcome: Outcome) -> str:
    if outcome.kind is Kind.MISCONFIGURED:
        return (
            "correct OTEL_EXPORTER_OTLP_ENDPOINT, _PROTOCOL or _HEADERS, or what the collector "
            "expects"
        )
    if outcome.kind in (Kind.RETRY, Kind.UNEXPECTED):
        return (
            "check OTEL_EXPORTER_OTLP_ENDPOINT and that a collector listens there; `run` waits "
            "for it and loses nothing"
        )
    return "look into the collector's log: it refuses what is valid OTLP"


def _nobody(settings: Settings) -> Headers:
    """The headers of an execution that tells no customer: a backend with tenants refuses what names
    none."""
    return tuple((one.name, one.fill(dict.fromkeys(one.fields))) for one in settings.templates)


def _send_test(
    endpoint: Endpoint, settings: Settings, runtime: Runtime, senders: dict[Signal, Sender]
) -> Iterator[Finding]:
    uuid = f"{TEST_NAME.replace(' ', '-')}-{runtime.short_id()}{runtime.short_id()}"
    now = to_text(runtime.now_ms())
    record = {
        "_id": uuid,
        "message": "executionFinished",
        "data": {"executionId": uuid, "executionUuid": uuid},
        **dict.fromkeys(("startedAt", "completedAt", "createdAt"), now),
        "forgeWorkflow": {"name": TEST_NAME},
    }
    execution = Execution(read_notification(json.dumps(record)), Role.ENDED)
    converted = open_converter(settings, runtime).convert(execution)
    items = dict(zip(("traces", "logs"), converted, strict=True))
    ids = execution_ids(uuid)
    trace_id = ids[0].hex()
    link = None if settings.traces is None else settings.traces.link(*ids)
    service = endpoint.resource[semconv.SERVICE_NAME]
    around = envelope(endpoint.resource)
    exporters = {exporter.signal: exporter for exporter in endpoint.exporters}
    for signal, sender in senders.items():
        item = items[signal]
        assert item is not None
        outcome = sender.send(around.request([item]), endpoint.headers)
        what = "span" if signal == "traces" else "log record"
        part, tried = f"test {what}", f"sent one {what} named {TEST_NAME!r}"
        facts = {"trace_id": trace_id, "trace_url": link, "service": service}
        if outcome.kind is Kind.DELIVERED and not outcome.rejected:
            yield Finding(
                part,
                tried,
                True,
                f"acknowledged; trace id {trace_id}",
                f"look at it: {link}"
                if link
                else f"look for it in your backend, service {service}",
                facts=facts,
            )
        else:
            remedy = exporters[signal].settings.named(_remedy(outcome))
            yield Finding(part, tried, False, outcome.reason, remedy, facts=facts)
