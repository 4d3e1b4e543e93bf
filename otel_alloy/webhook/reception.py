"""The listener as `run` opens it: reports are kept in the checkpoint before they are answered.

A report is kept under its execution (`pipeline/kept_report.py`) for KEPT_MS by our clock, so it may
come before its notification or after it, and any number of times: the first one counts. It has a
connection to the store of its own, because what it writes belongs to no source. Only the assembly
lives here; sockets and answers are in `listener.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from otel_alloy.checkpoint.store import open_store
from otel_alloy.errors import AlloyReceiverError, ConfigurationError
from otel_alloy.pipeline.events import Observe, WebhookAnswered, WebhookListens
from otel_alloy.pipeline.kept_report import KeptReport, key_of
from otel_alloy.runtime import Runtime
from otel_alloy.settings.models import Settings

if TYPE_CHECKING:
    from otel_alloy.webhook.listener import ErrorListener, Keep
    from otel_alloy.webhook.report import ErrorReport

KEPT_MS = 24 * 3600 * 1000
"""How long a report waits for its execution; what is older is forgotten when the next one comes."""

_LOG = logging.getLogger("otel_alloy")


class ReasonStore(Protocol):
    """What is asked of a store; see `Store`."""

    def write_reason(self, uuid: str, at: int, report: str, forget: int) -> bool: ...


def keeper(store: ReasonStore, now_ms: Callable[[], int]) -> Keep:
    """Keeps reports in `store`. What it returns raises what the store raises."""

    def keep(report: ErrorReport) -> bool:
        kept = KeptReport(report.message, report.block, report.block_name, report.type)
        now = now_ms()
        key = key_of(report.uuid, report.execution)
        return store.write_reason(key, now, kept.text(), now - KEPT_MS)

    return keep


def open_listener(
    settings: Settings,
    store: ReasonStore,
    runtime: Runtime,
    answered: Callable[[str], None] = lambda outcome: None,
    *,
    address: str | None = None,
) -> ErrorListener:
    """The listener that the settings ask for, which keeps in `store`; it is not started yet.
    `address`: instead of `webhook.listen`. Raises ConfigurationError where the extra is not
    installed, OSError where nothing can listen there."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            [
                f"webhook.listen (OTEL_ALLOY_WEBHOOK_LISTEN) needs {' and '.join(missing)}, which "
                "this installation does not have: install the extra `webhook` of otel-alloy, or "
                "just them with `pip install starlette uvicorn`"
            ]
        )
    from otel_alloy.webhook.listener import ErrorListener

    return ErrorListener(
        address or settings.webhook.listen or "",
        settings.webhook.secret.get_secret_value(),
        keeper(store, runtime.now_ms),
        runtime,
        answered,
        choice=settings.privacy.error_message,
    )


def reason(error: OSError) -> str:
    """Why nothing can listen, without what Python adds to it."""
    return (error.strerror or type(error).__name__).partition(" (while")[0]


@contextmanager
def error_webhook(
    settings: Settings, runtime: Runtime, observe: Observe, *, serve: bool = True
) -> Iterator[None]:
    """Receives reports meanwhile, where `webhook.listen` is set and `serve` is true. Raises
    ConfigurationError where the extra is not installed, AlloyReceiverError where it cannot listen,
    CheckpointError."""
    if settings.webhook.listen is None or not serve:
        yield
        return

    def answered(outcome: str) -> None:
        observe(WebhookAnswered(outcome))

    with closing(open_store(settings.storage, exclusive=False)) as store:
        try:
            listener = open_listener(settings, store, runtime, answered)
        except OSError as error:
            raise AlloyReceiverError(
                f"the error webhook cannot listen on {settings.webhook.listen} ({reason(error)})",
                "end what listens there, which may be another `otel-alloy run`, or set "
                "webhook.listen (OTEL_ALLOY_WEBHOOK_LISTEN) to another address of this machine",
            ) from None
        observe(WebhookListens(listener.address))  # before the first answer is told of
        with listener:
            _LOG.info("error webhook: listening on %s", listener.url)
            yield
        observe(WebhookListens(None))
