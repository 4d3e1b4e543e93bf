"""What `check` finds out about the error webhook: a listener of its own at the configured address
is sent one report twice, over its socket, and keeps it in a checkpoint that is deleted afterwards.

Where something listens there already, that is most likely `run`. It is asked whether it knows the
secret, with a report that names no execution: so nothing that it keeps comes from here, and the two
reports go to a listener on a free port of the loopback.
"""

from __future__ import annotations

import errno
import http.client
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

from otel_alloy.check.finding import Finding
from otel_alloy.checkpoint.store import open_store
from otel_alloy.errors import ConfigurationError
from otel_alloy.pipeline.kept_report import KeptReport
from otel_alloy.runtime import Runtime
from otel_alloy.settings.models import Settings
from otel_alloy.webhook.reception import open_listener, reason

PART = "error webhook"
_SECONDS = 10.0
_SHORT = 24
"""Characters of a secret that is worth a note; `openssl rand -hex 24` makes 48."""
_FEW = 8
"""So few different characters are no secret."""
_PATH = "/alloy/errors"


def webhook_findings(settings: Settings, runtime: Runtime) -> Iterator[Finding]:
    """Nothing where the webhook is off."""
    listen = settings.webhook.listen
    if listen is None:
        return
    try:
        yield from _tried(settings, runtime, listen)
    except ConfigurationError as error:
        yield Finding(PART, "looked for the extra `webhook`", False, str(error), exit_code=2)
    yield from _worth_knowing(settings, listen)


def _tried(settings: Settings, runtime: Runtime, listen: str) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder).absolute()}/checkpoint.db"
        with closing(open_store(url, exclusive=False)) as store:
            address = listen
            try:
                listener = open_listener(settings, store, runtime)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    yield Finding(
                        PART,
                        f"listened on {listen}",
                        False,
                        f"cannot: {reason(error)}",
                        "set webhook.listen (OTEL_ALLOY_WEBHOOK_LISTEN) to an address of this "
                        "machine, such as 127.0.0.1:8090",
                    )
                    return
                yield _running(settings, listen)
                address = "127.0.0.1:0"
                listener = open_listener(settings, store, runtime, address=address)
            with listener:
                uuid = f"otel-alloy-check-{runtime.short_id()}{runtime.short_id()}"
                answers = [_post(settings, listener.address, _report(uuid)) for _ in range(2)]
            kept = KeptReport.read(store.reasons([uuid]).get(uuid, ""))
            counts = listener.counts()
    folded = counts.get("kept") == 1 and counts.get("known") == 1
    well = answers == [204, 204] and folded and kept is not None
    told = " and ".join(str(answer or "nothing") for answer in answers)
    yield Finding(
        PART,
        f"sent one report twice to a listener of its own at {address}",
        well,
        f"answered {told}; kept {'once' if well else 'otherwise than it should be'}",
        ""
        if well
        else "set webhook.secret (OTEL_ALLOY_WEBHOOK_SECRET) to one without special characters: "
        "`openssl rand -hex 24` makes one",
        facts={"answers": answers, "folded": folded, "address": address},
    )


def _running(settings: Settings, listen: str) -> Finding:
    """About what listens there already."""
    status = _post(settings, listen, ({}, b"{}"))
    tried = f"sent a report that names no execution, which nobody keeps, to {listen}"
    facts = {"address": listen, "answer": status}
    if status == 400:
        words = "`otel-alloy run` listens there and knows this secret"
        return Finding(f"{PART} of run", tried, True, words, facts=facts)
    if status == 401:
        return Finding(
            f"{PART} of run",
            tried,
            False,
            "what listens there does not know this secret",
            "start `otel-alloy run` again with these settings, or give it another address",
            facts=facts,
        )
    return Finding(
        f"{PART} of run",
        tried,
        False,
        f"what listens there is no listener of otel-alloy (answer: {status or 'none'})",
        "set webhook.listen (OTEL_ALLOY_WEBHOOK_LISTEN) to another port",
        facts=facts,
    )


def _report(uuid: str) -> tuple[Mapping[str, str], bytes]:
    """A report as Alloy posts it."""
    body = {"_id": uuid, "blockType": "alloy.check", "error": "a test of otel-alloy check"}
    return {"X-Alloy-ExecutionUuid": uuid}, json.dumps(body).encode()


def _post(settings: Settings, address: str, report: tuple[Mapping[str, str], bytes]) -> int | None:
    """The status of the answer to a report, over a connection of its own; None where there is
    none. The secret goes in the header."""
    headers, body = report
    host, _, port = address.rpartition(":")
    secret = settings.webhook.secret.get_secret_value().encode().decode("latin-1")
    connection = http.client.HTTPConnection(_near(host), int(port), timeout=_SECONDS)
    with closing(connection):
        try:
            connection.request("POST", _PATH, body, {**headers, "X-Webhook-Secret": secret})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException, ValueError):
            return None


def _near(host: str) -> str:
    """How a host is reached on which something listens: all interfaces by the loopback."""
    plain = host.strip("[]")
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(plain, plain)


def _worth_knowing(settings: Settings, listen: str) -> Iterator[Finding]:
    host = listen.rpartition(":")[0].strip("[]")
    if not _is_loopback(host):
        where = "all interfaces" if _is_any(host) else host
        yield Finding(
            f"{PART} address",
            f"looked at {listen}",
            None,
            f"it is received on {where} as plain HTTP: whoever reads along sees the secret",
            "put a reverse proxy with TLS before it, and listen where only that one reaches it, "
            "such as 127.0.0.1:8090 (examples/webhook-proxy)",
        )
    secret = settings.webhook.secret.get_secret_value()
    if len(secret) < _SHORT or len(set(secret)) < _FEW:
        yield Finding(
            f"{PART} secret",
            "looked at its length and its characters",
            None,
            "it is short, or the same over and over: it can be guessed",
            "make one with `openssl rand -hex 24`",
        )


def _is_any(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
