"""The mapping's hook: finds the callable that the setting `hook` names, and contains its failures.

The callable is somebody else's code. Whatever it does, short of ending the process, the execution
is delivered. An exception, or an answer that is no `Correlation`, is counted and costs a warning,
one in 30 s at most. A warning never repeats the words of an exception, which may hold personal
data; it tells the exception's type and the line.

What a correlation becomes is decided here; the bytes are made in `mapping.encode`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from threading import current_thread, main_thread
from traceback import extract_tb
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import Link, SpanContext

from otel_alloy.alloy.models import Notification
from otel_alloy.errors import ConfigurationError
from otel_alloy.log_throttle import LogThrottle
from otel_alloy.mapping import encode
from otel_alloy.mapping.convert import Attached

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

GROUP = "otel_alloy_hook"
MOST_LINKS = 128
MOST_VALUES = 1000
"""Attributes of a link, and elements of one of them."""
MOST_BYTES = 65_536
"""What the hook may add to a span: enough for anything sensible, far below a request's limit."""

_NOT_ATTACHED = Attached()


@dataclass(frozen=True, slots=True)
class Correlation:
    """How an execution belongs to traces that exist already.

    `parent`: a span of somebody else's. The execution's span becomes its child and goes into its
    trace, the log record follows; the span id stays the computed one. Services that joined the
    execution by the propagator are in the computed trace and do not follow, so use links where
    there are such services. `links`: at most 128, the execution stays in its own trace.
    """

    parent: SpanContext | None = None
    links: Sequence[Link | SpanContext | tuple[SpanContext, Mapping[str, AttributeValue]]] = ()


Hook = Callable[["Notification"], "Correlation | None"]
"""Named by the setting `hook`. Is called for each notification that is converted, also for those
that are sent again, by one thread for each source, and delays delivery for as long as it takes; it
must not change the notification. `None`: nothing to add.

Its answer must depend on the notification alone. Only then is what is sent again after a crash the
same byte for byte, so that a backend can see that it is the same. A hook that raises, or whose
answer cannot be used, costs a warning and counts as a failure; the execution is then delivered as
if there were no hook.
"""


def open_hook(
    name: str | None, monotonic: Callable[[], float], setting: str = "hook"
) -> GuardedHook | None:
    """The hook `name` (`module:callable`, or an entry point of the group `otel_alloy_hook`), ready
    for the converter; None for None. `monotonic` throttles its warnings. `setting`: where it is
    named. Raises ConfigurationError
    where it cannot be loaded."""
    if name is None:
        return None
    try:
        found = _find(name)
    except KeyboardInterrupt:
        raise  # a person's, as this happens in the main thread
    except BaseException as error:  # somebody else's module may even ask for the process to end
        missing = isinstance(error, ImportError | AttributeError)
        why = f": {error}" if missing else f" ({_where(error)})"
        remedy = "name an installed module:callable"
        if isinstance(error, ModuleNotFoundError):
            remedy += ", or set PYTHONPATH to the folder that the module is in"
        raise ConfigurationError([f"{setting}: {name} cannot be loaded{why}; {remedy}"]) from None
    if not callable(found) or inspect.isclass(found) or inspect.iscoroutinefunction(found):
        raise ConfigurationError(
            [f"{setting}: {name} is no plain function; name one that takes a notification"]
        )
    return GuardedHook(found, name, monotonic)


def _find(name: str) -> Any:
    module, colon, attribute = name.partition(":")
    if colon:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in known:
        listed = ", ".join(sorted(known)) or "none"
        raise ImportError(f"no entry point {GROUP} has this name; installed are: {listed}")
    return known[name].load()


class GuardedHook:
    """Asks the hook, and turns every answer into something that can be sent.

    `failures`: how often it raised or gave an answer that cannot be used. For one thread.
    """

    def __init__(self, hook: Hook, name: str, monotonic: Callable[[], float]) -> None:
        self.failures = 0
        self._hook = hook
        self._name = name
        self._throttle = LogThrottle(monotonic)

    def __call__(
        self, notification: Notification, span_id: bytes, clean: Callable[[str], str]
    ) -> Attached:
        """What to add to the span `span_id` of the notification. `clean` makes text fit to send.
        Never raises, but for a person's Ctrl-C."""
        try:
            answer = self._hook(notification)
            return _NOT_ATTACHED if answer is None else _attached(answer, span_id, clean)
        except _Unusable as error:
            self._complain(str(error))
        except BaseException as error:  # SystemExit too: it is not the hook's to end the process
            if isinstance(error, KeyboardInterrupt) and current_thread() is main_thread():
                raise  # a person's
            self._complain(_where(error))
        return _NOT_ATTACHED

    def _complain(self, reason: str) -> None:
        self.failures += 1
        more = self._throttle.admit("hook")
        if more is not None:
            logging.getLogger("otel_alloy").warning(
                "the hook %s failed (%s); executions are delivered without it%s",
                self._name,
                reason,
                more,
            )


class _Unusable(ValueError):
    """The hook's answer cannot be used; the message may be shown."""


def _attached(answer: object, span_id: bytes, clean: Callable[[str], str]) -> Attached:
    if not isinstance(answer, Correlation):
        kind = type(answer).__name__
        if inspect.iscoroutine(answer):
            answer.close()  # nobody is going to wait for it
        raise _Unusable(f"its answer is {kind}, not a Correlation or None")
    links: Any = answer.links  # whatever the hook put there
    if not isinstance(links, Sequence) or len(links) > MOST_LINKS:
        raise _Unusable(f"`links` is not a sequence of at most {MOST_LINKS} links")
    trace_id, parent = None, b""
    if answer.parent is not None:
        _check(answer.parent, "`parent`")
        trace_id, parent_id = _ids(answer.parent)
        if parent_id == span_id:
            raise _Unusable("`parent` is the execution itself")
        parent = encode.span_parent(parent_id, answer.parent.trace_state.to_header())
    encoded = b"".join([_link(link, clean) for link in links])
    if len(encoded) > MOST_BYTES:
        raise _Unusable(f"its links take more than {MOST_BYTES} bytes")
    return Attached(trace_id, parent, encoded)


def _link(link: Any, clean: Callable[[str], str]) -> bytes:
    attributes: Any = None
    if isinstance(link, SpanContext):  # which is a tuple, too
        context: Any = link
    elif isinstance(link, tuple) and len(link) == 2:
        context, attributes = link
    else:
        context, attributes = getattr(link, "context", None), getattr(link, "attributes", None)
    _check(context, "a link")
    if not isinstance(attributes, Mapping | None):
        raise _Unusable("a link's attributes are no mapping")
    if len(attributes or ()) > MOST_VALUES:
        raise _Unusable(f"a link has more than {MOST_VALUES} attributes")
    pairs = {}
    for key, value in (attributes or {}).items():
        if not isinstance(key, str) or not key:
            raise _Unusable("a link has an attribute without a name")
        pairs[clean(key)] = _value(value, clean)
    flags = context.trace_flags & 0xFF | encode.HAS_IS_REMOTE
    if context.is_remote:
        flags |= encode.IS_REMOTE
    return encode.span_link(*_ids(context), context.trace_state.to_header(), flags, pairs)


def _value(value: Any, clean: Callable[[str], str]) -> encode.Value | list[encode.Value]:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple) and len(value) > MOST_VALUES:
        raise _Unusable(f"a link has an attribute with more than {MOST_VALUES} elements")
    if isinstance(value, list | tuple) and all(
        isinstance(one, str | bool | int | float) for one in value
    ):
        return [clean(one) if isinstance(one, str) else one for one in value]
    raise _Unusable(f"a link has an attribute that is a {type(value).__name__}")


def _check(context: object, what: str) -> None:
    if not isinstance(context, SpanContext):
        raise _Unusable(f"{what} is {type(context).__name__}, not a SpanContext")
    if not context.is_valid:
        raise _Unusable(f"{what} has an invalid trace id or span id")


def _ids(context: SpanContext) -> tuple[bytes, bytes]:
    return context.trace_id.to_bytes(16), context.span_id.to_bytes(8)


def _where(error: BaseException) -> str:
    """The type of an exception and the line that raised it, without its words."""
    frames = extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + place
