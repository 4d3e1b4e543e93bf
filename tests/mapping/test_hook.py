"""The mapping's hook: what it can add, and that nothing it does keeps a record from arriving."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, SpanContext, TraceFlags, TraceState

from otel_alloy import Correlation, execution_context
from otel_alloy.alloy.models import Notification, read_notification
from otel_alloy.errors import ConfigurationError
from otel_alloy.mapping.convert import Converter, Execution, Role
from otel_alloy.mapping.encode import Envelope
from otel_alloy.mapping.hook import MOST_LINKS, GuardedHook, Hook, open_hook
from otel_alloy.mapping.ids import execution_ids
from otel_alloy.observability.metrics import HOOK_FAILURES, Telemetry
from otel_alloy.observability.status import Status
from otel_alloy.otlp.sdk import spans as sdk_spans
from otel_alloy.pipeline.events import Settled
from otel_alloy.pipeline.receiver import Receiver
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.loader import load_settings
from otel_alloy.testing.otlp_endpoint import attributes

if TYPE_CHECKING:
    from conftest import Place

UUID = "35SnGU0DUSNP5L26fsmnq"
RECORD = {
    "_id": "68110feaa81a0e507fbdd36a",
    "message": "executionFinished",
    "data": {"executionId": "68110fea7d181f356acd1bf1", "executionUuid": UUID},
    "startedAt": "2025-04-29T17:44:10.336Z",
    "completedAt": "2025-04-29T17:44:10.432Z",
    "createdAt": "2025-04-29T17:44:10.432Z",
    "forgeWorkflow": {"name": "order_id example"},
}
CLOCK = system_runtime().monotonic
STATE = TraceState([("vendor", "value")])
OTHER = SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, True, TraceFlags(1))
STATED = SpanContext(OTHER.trace_id, OTHER.span_id, False, TraceFlags(0), STATE)


def notification(message: str = "executionFinished") -> Notification:
    return read_notification(json.dumps(RECORD | {"message": message}))


def converter(hook: Hook | None) -> Converter:
    attach = None if hook is None else GuardedHook(hook, "a hook", CLOCK)
    return Converter(started_logs=True, attach=attach)


def converted(
    hook: Hook | None, role: Role = Role.ENDED, message: str = "executionFinished"
) -> tuple[Span, LogRecord]:
    """The span (an empty one where there is none) and the log record, as protobuf reads them."""
    span, log = converter(hook).convert(Execution(notification(message), role))
    assert log is not None
    spans = ScopeSpans.FromString(span or b"").spans
    return (spans[0] if spans else Span()), ScopeLogs.FromString(log).log_records[0]


def recording(answer: Correlation, asked: list[Notification]) -> Hook:
    """A hook with this answer, which notes what it is asked about."""

    def hook(notification: Notification) -> Correlation:
        asked.append(notification)
        return answer

    return hook


def answering(answer: Any) -> Hook:
    """A hook with this answer, of whatever type."""
    return lambda notification: answer


# What a hook can add -----------------------------------------------------------------------------


def test_without_an_answer_nothing_changes() -> None:
    """No hook, None and an empty correlation give the same bytes."""
    plain = Execution(notification(), Role.ENDED)
    wanted = converter(None).convert(plain)
    assert converter(answering(None)).convert(plain) == wanted
    assert converter(answering(Correlation())).convert(plain) == wanted


@pytest.mark.parametrize("parent", [OTHER, STATED], ids=["plain", "local, with a trace state"])
def test_parent(parent: SpanContext) -> None:
    """The span becomes a child in the parent's trace, with the parent's trace state and flags that
    say that the parent is remote; its own id, and all else, stays."""
    before, _ = converted(None)
    span, log = converted(answering(Correlation(parent)))
    assert span.trace_id == parent.trace_id.to_bytes(16)
    assert span.parent_span_id == parent.span_id.to_bytes(8)
    assert span.trace_state == parent.trace_state.to_header()
    assert span.flags == 0x300 and before.flags == 0x100
    assert span.span_id == log.span_id == execution_ids(UUID)[1]
    assert log.trace_id == span.trace_id, "the log record follows"
    for field in ("trace_id", "parent_span_id", "trace_state", "flags"):
        before.ClearField(field)
        span.ClearField(field)
    assert span == before


@pytest.mark.parametrize(
    ("role", "message"),
    [
        (Role.STARTED, "executionStarted"),
        (Role.ENDED_AGAIN, "executionError"),
        (Role.INCOMPLETE, "executionStarted"),
        (Role.OTHER, "executionPaused"),
    ],
    ids=lambda value: getattr(value, "value", None),
)
def test_every_log_record_follows(role: Role, message: str) -> None:
    """Whatever a notification is in the life of its execution, its log record points into the
    parent's trace, where the span is."""
    span, log = converted(answering(Correlation(OTHER)), role, message)
    assert log.trace_id == OTHER.trace_id.to_bytes(16)
    assert span.trace_id in (b"", log.trace_id)


def test_facts_follow_and_ask_once() -> None:
    """The facts of an execution name the trace that its span is in. The hook is asked once for
    both, whether it moves the execution or not; where only facts are wanted, it is asked for them.
    """
    for answer, trace_id in (
        (Correlation(OTHER), OTHER.trace_id.to_bytes(16)),
        (Correlation(links=[OTHER]), execution_ids(UUID)[0]),
    ):
        for converted_before in (True, False):
            asked: list[Notification] = []
            converting = converter(recording(answer, asked))
            execution = Execution(notification(), Role.ENDED)
            if converted_before:
                converting.convert(execution)
            facts = converting.facts(execution)
            assert facts is not None and facts.trace_id == trace_id
            assert facts.span_id == execution_ids(UUID)[1]
            assert asked == [execution.notification]


def test_links() -> None:
    """Links come as OpenTelemetry's own, as pairs and as bare contexts, with attributes, trace
    state and flags; the execution stays in its own trace. Texts are cleaned as everywhere."""
    given: dict[str, Any] = {
        "text": "a\x00b\ud83d",
        "long": "x" * 5000,
        "number": 7,
        "huge": 2**70,
        "share": 0.5,
        "yes": True,
        "many": ["a", "b"],
    }
    span, log = converted(
        answering(Correlation(links=(Link(OTHER, given), (STATED, {"a": 1}), OTHER)))
    )
    assert span.trace_id == log.trace_id == execution_ids(UUID)[0]
    assert not span.parent_span_id and span.flags == 0x100
    first, second, third = span.links
    for link in span.links:
        assert link.trace_id == OTHER.trace_id.to_bytes(16)
        assert link.span_id == OTHER.span_id.to_bytes(8)
    assert (first.flags, second.flags) == (0x301, 0x100)
    assert (first.trace_state, second.trace_state) == ("", "vendor=value")
    assert attributes(first.attributes) == {
        "huge": str(2**70),
        "long": "x" * (2048 - len("…[cut]")) + "…[cut]",
        "many": ["a", "b"],
        "number": 7,
        "share": 0.5,
        "text": "a�b�",
        "yes": True,
    }
    assert attributes(second.attributes) == {"a": 1} and not third.attributes


def test_bytes_are_those_of_protobuf() -> None:
    """A span with parent and links is, byte for byte, what protobuf makes of the same message, so
    its fields are in order; and the SDK's encoder agrees about all that it encodes (no W3C flags,
    no trace state of a link)."""
    hook = answering(Correlation(STATED, [Link(OTHER, {"b": 1, "a": "x"})]))
    execution = Execution(notification(), Role.ENDED)
    made, _ = converter(hook).convert(execution)
    assert made is not None
    message = ScopeSpans.FromString(made)
    assert message.SerializeToString(deterministic=True) == made
    (span,) = message.spans
    readable = ReadableSpan(
        name=span.name,
        context=SpanContext(int.from_bytes(span.trace_id), int.from_bytes(span.span_id), False),
        parent=SpanContext(STATED.trace_id, STATED.span_id, True, trace_state=STATE),
        links=[Link(OTHER, {"a": "x", "b": 1})],
    )
    sdk = encode_spans([readable]).resource_spans[0].scope_spans[0].spans[0]
    assert (sdk.parent_span_id, sdk.flags) == (span.parent_span_id, span.flags)
    (mine,), (theirs,) = span.links, sdk.links
    mine.flags &= ~0xFF
    assert mine == theirs


def test_again_is_the_same() -> None:
    """A hook that always gives the same answer keeps a repeat byte-identical, in another process's
    converter too, whatever order its attributes come in."""
    one = answering(Correlation(links=[(OTHER, {"a": 1, "b": 2})]))
    two = answering(Correlation(links=[(OTHER, {"b": 2, "a": 1})]))
    execution = Execution(notification(), Role.ENDED)
    assert converter(one).convert(execution) == converter(two).convert(execution)


# What a hook can do wrong ------------------------------------------------------------------------


def raises(notification: Notification) -> Correlation | None:
    raise LookupError(f"nothing known of {RECORD['data']} ada@example.com")


async def waits(notification: Notification) -> None:
    """No plain function."""


ZERO = SpanContext(0, 5, True)
NONSENSE: dict[str, Any] = {
    "a text": "parent",
    "a span context": OTHER,
    "a tuple": (OTHER, []),
    "parent is text": Correlation(parent="00-0af7651916cd43dd8448eb211c80319c"),  # type: ignore[arg-type]
    "parent is invalid": Correlation(INVALID_SPAN_CONTEXT),
    "parent is the execution": Correlation(execution_context(UUID)),
    "parent has no trace id": Correlation(ZERO),
    "links is None": Correlation(links=None),  # type: ignore[arg-type]
    "links is a generator": Correlation(links=(one for one in [OTHER])),  # type: ignore[arg-type]
    "links are texts": Correlation(links="ab"),  # type: ignore[arg-type]
    "a link is None": Correlation(links=[None]),  # type: ignore[list-item]
    "a link has zero ids": Correlation(links=[Link(ZERO)]),
    "too many links": Correlation(links=[OTHER] * (MOST_LINKS + 1)),
    "far too many bytes": Correlation(links=[(OTHER, {str(n): "x" * 2048 for n in range(100)})]),
    "attributes are a list": Correlation(links=[(OTHER, ["a"])]),  # type: ignore[list-item]
    "an attribute is None": Correlation(links=[(OTHER, {"a": None})]),
    "an attribute is nested": Correlation(links=[(OTHER, {"a": {}})]),
    "an attribute has no name": Correlation(links=[(OTHER, {"": 1})]),
    "trace flags are no flags": Correlation(
        links=[SpanContext(1, 2, True, "sampled")]  # type: ignore[arg-type]
    ),
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_costs_a_warning_and_a_count(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer that is no use is as none, in whole: the execution is converted as without a hook,
    there is one warning, and it counts."""
    execution = Execution(notification(), Role.ENDED)
    used = converter(answering(answer))
    assert used.convert(execution) == converter(None).convert(execution)
    assert used.hook_failures == 1
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING and "a hook" in warning.getMessage()


def test_failures_are_throttled_and_say_where(caplog: pytest.LogCaptureFixture) -> None:
    """A hook that raises a thousand times gives one line, with the exception's type and place and
    without its words, which may hold personal data; each of them counts."""
    used = converter(raises)
    execution = Execution(notification(), Role.ENDED)
    wanted = converter(None).convert(execution)
    for _ in range(1000):
        assert used.convert(execution) == wanted
    assert used.hook_failures == 1000
    (warning,) = caplog.records
    words = warning.getMessage()
    assert "LookupError at test_hook.py:" in words
    assert "ada@example.com" not in words and UUID not in words


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, BaseException, asyncio.CancelledError])
def test_what_is_no_exception_does_not_end_the_process(kind: type[BaseException]) -> None:
    """A hook that calls `sys.exit`, or raises anything else that is no Exception, costs a warning
    like any other failure."""

    def leaves(notification: Notification) -> Correlation | None:
        raise kind

    used, execution = converter(leaves), Execution(notification(), Role.ENDED)
    assert used.convert(execution) == converter(None).convert(execution)
    assert used.hook_failures == 1


def test_a_persons_interrupt_is_passed_on() -> None:
    """Ctrl-C while a hook runs in the main thread, as in `tail`, ends the command; in another
    thread it can only be the hook's own, and is a failure."""

    def interrupted(notification: Notification) -> Correlation | None:
        raise KeyboardInterrupt

    used, execution = converter(interrupted), Execution(notification(), Role.ENDED)
    with pytest.raises(KeyboardInterrupt):
        used.convert(execution)
    thread = threading.Thread(target=used.convert, args=(execution,))
    thread.start()
    thread.join()
    assert used.hook_failures == 1


def test_a_coroutine_is_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    """A coroutine counts as nonsense, and is closed, so that Python does not complain as well."""
    used = converter(lambda notification: waits(notification))  # type: ignore[arg-type,return-value]
    used.convert(Execution(notification(), Role.ENDED))
    assert used.hook_failures == 1 and "coroutine" in caplog.text


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
contexts: st.SearchStrategy[Any] = anything | st.builds(
    SpanContext, st.integers(-1, 2**130), st.integers(-1, 2**66), anything, anything, anything
)
link_like = contexts | st.tuples(contexts, anything) | st.builds(Link, contexts)


@given(st.builds(Correlation, contexts, st.lists(link_like, max_size=3) | anything) | anything)
@settings(max_examples=300, deadline=None)
def test_no_answer_breaks_a_record(answer: Any) -> None:
    """Whatever a hook answers, span and log record come out, can be read, and are in one trace."""
    span, log = converted(answering(answer))
    assert span.name == "order_id example" and len(span.trace_id) == 16
    assert span.trace_id == log.trace_id and span.span_id == log.span_id


# How it is found ---------------------------------------------------------------------------------


def test_none_is_none() -> None:
    """Without the setting there is no hook, and an empty one is none."""
    assert open_hook(None, CLOCK) is None
    assert load_settings({}, {"ALLOY_API_KEY": "k", "OTEL_ALLOY_HOOK": ""}).hook is None


@pytest.mark.parametrize("name", ["json:", ":loads", "json loads", "json:loads:x", "json:loads()"])
def test_a_name_that_is_none(name: str) -> None:
    """A setting that can be no name is refused with the other mistakes, and with the remedy."""
    with pytest.raises(ConfigurationError, match=r"OTEL_ALLOY_HOOK: write module:callable"):
        load_settings({}, {"ALLOY_API_KEY": "k", "OTEL_ALLOY_HOOK": name})


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("not_there_at_all:hook", "No module named 'not_there_at_all'"),
        ("json:not_there", "no attribute 'not_there'"),
        ("not-installed", "no entry point otel_alloy_hook has this name; installed are: own"),
        ("json:__name__", "no plain function"),
        ("json:JSONDecoder", "no plain function"),
        ("broken_hooks:hook", r"\(ZeroDivisionError at broken_hooks.py:1\)"),
        ("async_hooks:hook", "no plain function"),
        ("leaving_hooks:hook", r"\(SystemExit at leaving_hooks.py:2\)"),
    ],
)
def test_a_hook_that_cannot_be_loaded(
    name: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be loaded is a mistake in the configuration that says what is wrong."""
    installed(tmp_path, monkeypatch)
    (tmp_path / "broken_hooks.py").write_text("1 / 0\n")
    (tmp_path / "leaving_hooks.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "async_hooks.py").write_text("async def hook(notification): ...\n")
    with pytest.raises(ConfigurationError, match=why):
        open_hook(name, CLOCK)


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with an entry point `own`, as pip would leave it."""
    (folder / "own_hooks.py").write_text(
        "class Hooks:\n"
        "    @staticmethod\n"
        "    def correlate(notification):\n"
        "        from otel_alloy import Correlation, execution_context\n"
        "        return Correlation(links=[execution_context('another')])\n"
    )
    info = folder / "own_hooks-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-hooks\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[otel_alloy_hook]\nown = own_hooks:Hooks.correlate\n")
    monkeypatch.syspath_prepend(str(folder))


@pytest.mark.parametrize("name", ["own", "own_hooks:Hooks.correlate"])
def test_both_ways_to_name_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point and `module:callable`, dotted too, both find the function."""
    installed(tmp_path, monkeypatch)
    chosen = load_settings({}, {"ALLOY_API_KEY": "k", "OTEL_ALLOY_HOOK": name})
    hook = open_hook(chosen.hook, CLOCK)
    assert hook is not None
    span, _ = Converter(attach=hook).convert(Execution(notification(), Role.ENDED))
    assert span is not None
    (link,) = ScopeSpans.FromString(span).spans[0].links
    assert (link.trace_id, link.span_id) == execution_ids("another")


# In the receiver ---------------------------------------------------------------------------------


def hooks(folder: Path, body: str) -> None:
    (folder / "my_hooks.py").write_text(
        f"from otel_alloy import *\ndef hook(notification):\n    {body}\n"
    )


def test_every_execution_arrives_whatever_the_hook_does(place: Place) -> None:
    """`otel-alloy run` with a hook that links some executions, fails on others and answers nonsense
    on the rest: each arrives once, the links are on those that got them, and one line says how
    it went."""
    records = place.fill(300)
    hooks(
        place.folder,
        "uuid = notification.data.executionUuid\n"
        "    context = execution_context(uuid + '-')\n"
        "    if uuid[0] in '0123456789': return Correlation(links=[context])\n"
        "    return 1 / 0 if uuid[0].isupper() else 'nonsense'",
    )
    done = place.once(OTEL_ALLOY_HOOK="my_hooks:hook", PYTHONPATH=str(place.folder))
    place.assert_exactly_once(place.ended(records))
    linked = 0
    for span in place.otlp.spans():
        uuid = attributes(span.attributes)["runalloy.execution.uuid"]
        links = [(link.trace_id, link.span_id) for link in span.links]
        assert links == ([execution_ids(f"{uuid}-")] if uuid[0].isdecimal() else [])
        linked += len(links)
    assert 0 < linked < 300
    assert done.err.count("the hook my_hooks:hook failed") == 1, done.err


def test_a_wrong_hook_is_a_wrong_configuration(place: Place) -> None:
    """A hook that is not there ends the command with exit code 2 before anything is sent."""
    place.fill(3)
    done = place.command("run", "--once", "--hook", "not_there:hook")
    assert done.code == 2 and "not_there" in done.err and "Traceback" not in done.err
    assert place.otlp.request_count == 0


def test_failures_are_counted(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The receiver's events tell how often the hook failed, each failure once, and the metric
    counts them."""
    place.fill(40, lifecycle="terminal")
    (tmp_path / "failing_hooks.py").write_text("def hook(notification): 1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    settled: list[Settled] = []

    def observe(event: object) -> None:
        if isinstance(event, Settled):
            settled.append(event)

    chosen = place.settings(hook="failing_hooks:hook", batch_size=10, page_size=10)
    Receiver(chosen, observe=observe).run(once=True)
    assert sum(event.counts.hook_failures for event in settled) == 40
    assert len([event for event in settled if event.counts.hook_failures]) > 1
    assert len(place.otlp.spans()) == 40
    reader = InMemoryMetricReader()
    telemetry = Telemetry([reader], {}, Status(["default"], max_lag=1.0, runtime=system_runtime()))
    for event in settled:
        telemetry(event)
    data = reader.get_metrics_data()
    assert data is not None
    (counted,) = [
        getattr(point, "value", None)
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        if metric.name == HOOK_FAILURES.name
        for point in metric.data.data_points
    ]
    assert counted == 40
    telemetry.close()


def test_parent_and_links_reach_other_exporters() -> None:
    """An exporter that is installed for the SDK is told of parent and links, too."""
    hook = GuardedHook(answering(Correlation(OTHER, [Link(STATED, {"a": 1})])), "a hook", CLOCK)
    span, _ = Converter(attach=hook).convert(Execution(notification(), Role.ENDED))
    assert span is not None
    (read,) = sdk_spans(Envelope({}, "test", "1").request([span]))
    assert read.parent is not None and read.parent.span_id == OTHER.span_id
    assert read.links[0].context.span_id == STATED.span_id
    assert dict(read.links[0].attributes or {}) == {"a": 1}
