"""Keeps exports out of the user's own traces, where grpcio or a library for HTTP is instrumented.

Only that one context manager lives here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import context

# Both keys that opentelemetry.instrumentation.utils.is_instrumentation_enabled looks at: the plain
# text, and the SDK's own key, which is made unique per process and has no public name.
_KEYS = {"suppress_instrumentation", getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", "")} - {""}


@contextmanager
def suppressed_instrumentation() -> Iterator[None]:
    """Within this block instrumented clients of this thread make no spans."""
    current = context.get_current()
    for key in _KEYS:
        current = context.set_value(key, True, current)
    token = context.attach(current)
    try:
        yield
    finally:
        context.detach(token)
