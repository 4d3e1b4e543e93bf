"""What the SDK's exporters log while they export, kept from the log and understood.

An exporter of the SDK says that it failed, and no more; why, it logs, in lines of its own, some of
them for each try. Whoever exports through one hears these lines instead (`overhear`) and says in
our words what came of it. Of what was heard only what names a cause is passed on (`cause`): a line
may hold what the exporter's own settings hold, such as a key in a URL.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_here = threading.local()
_CAUSES = (
    (re.compile(r"\[Errno -?\d+\] ([A-Z][A-Za-z -]+)"), "connection failed: {}"),
    (re.compile(r"(certificate verify failed|CERTIFICATE_VERIFY_FAILED)"), "TLS: {}"),
    (re.compile(r"\[SSL: ([A-Z_]+)\]"), "TLS: {}"),
    (
        re.compile(r"(Connection refused|Connection reset|Name or service not known)"),
        "connection failed: {}",
    ),
    (re.compile(r"\bcode: (\d{3})\b"), "HTTP {}"),
    (re.compile(r"\b(?:code|error) ?:? ?StatusCode\.([A-Z_]+)"), "gRPC {}"),
    (re.compile(r"(?i)(timed out|deadline exceeded|read timeout)"), "no answer in time"),
)
_OURS = "otel_alloy"


class NotOverheard(logging.Filter):
    """Of a handler: what is overheard in the thread that logs it becomes no line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it becomes one."""
        heard: list[logging.LogRecord] | None = getattr(_here, "records", None)
        if heard is None or record.name.split(".")[0] == _OURS:
            return True
        heard.append(record)
        return False


@contextmanager
def overhear() -> Iterator[list[logging.LogRecord]]:
    """What other libraries log in this thread meanwhile, where a handler has `NotOverheard`."""
    _let_through_repetitions()
    before = getattr(_here, "records", None)
    heard: list[logging.LogRecord] = []
    _here.records = heard
    try:
        yield heard
    finally:
        _here.records = before


def _let_through_repetitions() -> None:
    """The SDK's filter drops a line whose words, without their values, were the last ones of that
    logger, even if they told of another signal's exporter: of two that fail, one would not say why.
    What is overheard becomes no line, so it need not be kept from repeating."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.startswith("opentelemetry.") and isinstance(logger, logging.Logger):
            for each in list(logger.filters):
                if type(each).__name__ == "DuplicateFilter":
                    logger.removeFilter(each)


def cause(heard: Sequence[logging.LogRecord]) -> str:
    """Why an export failed, by what was heard of it; empty where that names no cause."""
    texts = [record.getMessage() for record in heard]
    texts += [str(record.exc_info[1]) for record in heard if record.exc_info]
    for pattern, words in _CAUSES:
        for text in texts:
            if found := pattern.search(text):
                return words.format(found[1])
    return ""
