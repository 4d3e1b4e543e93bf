"""The log: how a record becomes a line, how repetitions are held back, and what never appears.

Every line passes `Masked`, which takes out the secrets of the settings (keys, headers, an
endpoint's query) and whatever looks like an e-mail address or a password in a URL, whichever
library or server brought it. In a process of our own nothing gets to standard error beside the
log: what Python would print there of a warning or of a defect in a thread becomes a line, and what
others log begins with the name of whoever did. Nothing here decides what is worth a line, and
nothing here prints.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterable
from time import gmtime, strftime
from urllib.parse import quote

from otel_alloy.links import TraceUrl
from otel_alloy.log_throttle import LogThrottle
from otel_alloy.otlp.overheard import NotOverheard
from otel_alloy.settings.models import Settings

_LOUD = ("httpx", "httpcore", "urllib3", "requests", "grpc")  # at INFO and DEBUG they log URLs
_ADDRESS = re.compile(r"[^\s@/<>\"'(),;:=]+(:[^\s@/]*)?@[^\s@/<>\"'(),;:]+")
_MASK = "***"
_OURS = "otel_alloy"


class ThrottleOthers(logging.Filter):
    """Holds back what other libraries repeat, by logger and unformatted words. Our own records are
    held back where they are made."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        super().__init__()
        self._throttle = LogThrottle(monotonic)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record becomes a line."""
        if record.name.split(".")[0] == _OURS:
            return True
        more = self._throttle.admit((record.name, record.msg))
        if more:
            record.msg, record.args = record.getMessage() + more, ()
        return more is not None


class Masked:
    """Takes `secrets`, what `keys` tell at that moment, e-mail addresses and `user:password@` out
    of words."""

    def __init__(self, secrets: Iterable[str] = (), keys: Iterable[Callable[[], str]] = ()) -> None:
        self._keys = tuple(keys)
        self._secrets = sorted({s for s in secrets if len(s) > 3}, key=len, reverse=True)

    def __call__(self, words: str) -> str:
        """The words as they may be shown."""
        for secret in (*self._secrets, *(key() for key in self._keys)):
            if secret:
                words = words.replace(secret, _MASK)
        return _ADDRESS.sub(_MASK, words) if "@" in words else words


def masked(settings: Settings) -> Masked:
    """For all secrets of `settings`, also of keys that are exchanged while it runs."""
    return Masked(secrets_of(settings), [s.key() for s in settings.sources])


def secrets_of(settings: Settings) -> set[str]:
    """What must not be shown of the settings, as it is now."""
    secrets = {source.key()() for source in settings.sources}
    secrets.add(settings.privacy_key.get_secret_value())
    webhook = settings.webhook.secret.get_secret_value()
    secrets |= {webhook, quote(webhook, safe="")}  # as it stands in a URL
    return secrets | settings.otlp.secrets | settings.network.secrets


class Lines(logging.Formatter):
    """`2025-04-29T17:44:10Z WARNING words`, for people. `traces`: where a trace that a record names
    (`trace`, its ids) can be looked at; its address stands in the place of its id."""

    def __init__(self, mask: Callable[[str], str], traces: TraceUrl | None = None) -> None:
        super().__init__()
        self._mask = mask
        self._traces = traces

    def format(self, record: logging.LogRecord) -> str:
        """One line; more only for an exception with its traceback."""
        at = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(record.created))
        words = " ".join(record.getMessage().split())
        whose = record.name.split(".")[0]
        if whose != _OURS:
            words = f"{whose}: {words}"
        if record.exc_info:
            words += "\n" + self.formatException(record.exc_info)
        words = self._mask(words)
        if self._traces is not None and (trace := getattr(record, "trace", None)):
            words = words.replace(trace[0].hex(), self._traces.link(*trace))
        return f"{at} {record.levelname:<7} {words}"


class JsonLines(logging.Formatter):
    """One JSON object per line: `time`, `level`, `logger`, `message`, and `source`, `cycle`,
    `exception`, and `trace_id`, `span_id` and `trace_url`, where there is one."""

    def __init__(self, mask: Callable[[str], str], traces: TraceUrl | None = None) -> None:
        super().__init__()
        self._mask = mask
        self._traces = traces

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = strftime("%Y-%m-%dT%H:%M:%S", gmtime(record.created))
        entry = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": self._mask(record.getMessage()),
        }
        for name in ("source", "cycle"):
            if value := getattr(record, name, None):
                entry[name] = value
        if trace := getattr(record, "trace", None):
            entry["trace_id"], entry["span_id"] = (one.hex() for one in trace)
            if self._traces is not None:
                entry["trace_url"] = self._traces.link(*trace)
        if record.exc_info:
            entry["exception"] = self._mask(self.formatException(record.exc_info))
        return json.dumps(entry)


def set_up(
    handler: logging.Handler, formatter: logging.Formatter, monotonic: Callable[[], float]
) -> None:
    """For a process of our own: all log records go to `handler`, ours from INFO on, those of other
    libraries from WARNING on. Repetitions are counted by `monotonic`."""
    handler.setFormatter(formatter)
    handler.addFilter(NotOverheard())
    handler.addFilter(ThrottleOthers(monotonic))
    logging.captureWarnings(True)
    threading.excepthook = _defect_in_thread
    sys.unraisablehook = _defect
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("otel_alloy").setLevel(logging.INFO)
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.WARNING)


def _defect_in_thread(caught: threading.ExceptHookArgs) -> None:
    name = caught.thread.name if caught.thread is not None else "?"
    if caught.exc_type is not SystemExit and caught.exc_value is not None:
        logging.getLogger(_OURS).error("a defect in the thread %s", name, exc_info=caught.exc_value)


def _defect(caught: sys.UnraisableHookArgs) -> None:
    if caught.exc_value is not None:
        words = caught.err_msg or "while something was given back"
        logging.getLogger(_OURS).error("a defect: %s", words, exc_info=caught.exc_value)
