"""Whose certificates are trusted and which one is shown, with one meaning for all that connects:
httpcore, grpcio, and requests inside the SDK's exporters, which bring stores of their own.

The first that is set of `VARIABLES` counts, else the certificates of certifi. A file for one
endpoint (OTEL_EXPORTER_OTLP_CERTIFICATE) is a `Trust` of its own. All who agree share one TLS
context, however many sources and senders they are. Nothing here connects.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from os import pathsep, stat
from pathlib import Path
from threading import Lock

from otel_alloy.bounded_file import check_file, read_bounded
from otel_alloy.environment import first_set, kept_quotes
from otel_alloy.errors import ConfigurationError

MOST_BYTES = 16 * 2**20
"""Of one file of certificates or keys; those of all authorities have a quarter of a megabyte."""

VARIABLES = (
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
)
"""In this order; each is honoured by one of the libraries, and here by all of them."""

_CERTIFICATE = re.compile(
    rb"-----BEGIN (X509 )?CERTIFICATE-----\s.+?-----END (X509 )?CERTIFICATE-----", re.DOTALL
)
NO_TLS = frozenset(("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"))
"""What OpenSSL calls an answer that is no TLS."""
_STRICT = re.compile(
    r"missing (authority|subject) key identifier|key usage|basic constraints|empty (subject|issuer)"
    r"|path length given without",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose certificates are trusted: those in `path`, a PEM file or a folder of such files, which
    `variable` names; the ones that certifi brings where it is empty."""

    variable: str = ""
    path: str = ""

    def __str__(self) -> str:
        return f"{self.path} ({self.variable})" if self.path else "certifi's authorities"

    def roots(self) -> bytes:
        """The certificates, as PEM. Raises OSError."""
        if not self.path:
            import certifi

            return Path(certifi.where()).read_bytes()
        found: dict[bytes, None] = {}  # a folder may have each twice, under its hash as well
        for path in self._files():
            for certificate in _CERTIFICATE.finditer(read_bounded(path, MOST_BYTES)):
                found[certificate[0]] = None
        return b"\n".join(found) + b"\n" if found else b""

    def mistake(self) -> str | None:
        """Why it cannot be used, with the remedy; None where nothing can be seen at a glance."""
        try:
            roots = self.roots()
        except OSError as error:
            return self._mistake(error.strerror or type(error).__name__)
        except ValueError:  # a NUL in the name
            return self._mistake("no file name")
        return None if roots else self._mistake("no PEM certificate is in it")

    def context(self) -> ssl.SSLContext:
        """A TLS context of its own. Raises ConfigurationError."""
        if mistake := self.mistake():
            raise ConfigurationError([mistake])
        try:
            return ssl.create_default_context(cadata=self.roots().decode("ascii"))
        except (OSError, ValueError) as error:
            raise ConfigurationError([self._mistake(str(error))]) from None

    def stamp(self) -> tuple[object, ...]:
        """What changes when the files change."""
        return _stamps(self._files)

    def glance(self) -> tuple[object, ...]:
        """The same in microseconds, where a folder with hundreds of files takes milliseconds: what
        is added, removed and exchanged, not what is written into a file that was there."""
        return _stamps(self._named)

    def _named(self) -> list[Path]:
        if self.variable == "SSL_CERT_DIR":
            return [Path(part) for part in self.path.split(pathsep) if part]
        return [Path(self.path)] if self.path else []

    def _files(self) -> list[Path]:
        files = []
        for path in self._named():
            files += sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
        return files

    def _mistake(self, why: str) -> str:
        folder = "a folder of PEM files" if self.variable == "SSL_CERT_DIR" else "a PEM file"
        return (
            f"{self.variable} is {self.path!r} ({why}): name {folder} with the certificates of the "
            "authorities to trust, which this process may read, or unset it."
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """The certificate that is shown to those who ask for one: PEM files, the key in a file of its
    own or in that of the certificate."""

    certificate: str
    key: str | None = None

    def show(self, context: ssl.SSLContext) -> None:
        """Adds it to a context. Raises OSError, ValueError."""
        for path in self._paths():
            check_file(path, MOST_BYTES)
        # An encrypted key must fail, not ask on the terminal.
        context.load_cert_chain(self.certificate, self.key, password=lambda: b"")

    def stamp(self) -> tuple[object, ...]:
        """What changes when the files change."""
        return _stamps(self._paths)

    def _paths(self) -> list[str]:
        return [self.certificate, self.key] if self.key else [self.certificate]


def _stamps(paths: Callable[[], Sequence[str | Path]]) -> tuple[object, ...]:
    try:
        found = map(stat, paths())
        return tuple((s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in found)
    except (OSError, ValueError):
        return ("unreadable",)


def trust_of(environment: Mapping[str, str]) -> tuple[Trust, str | None]:
    """Whom `environment` asks to trust, and what is wrong with that. Only looks at files."""
    trust = Trust(*first_set(environment, VARIABLES))
    if not trust.path:
        return trust, None
    return trust, kept_quotes(trust.variable, trust.path) or trust.mistake()


_CONTEXTS: dict[tuple[Trust, Identity | None], tuple[object, ssl.SSLContext]] = {}
"""One for each setting, with the stamp of its files; that of earlier files is forgotten."""
_LOCK = Lock()  # sources start together, and each would make one


def shared_context(trust: Trust, identity: Identity | None = None) -> ssl.SSLContext:
    """The TLS context of all connections with this trust, which show this identity: one costs 20 ms
    and a megabyte. It is not to be changed. A new one where the files have changed. Raises
    ConfigurationError for the trust; OSError, ValueError for the identity."""
    stamp = (trust.stamp(), identity.stamp() if identity else ())
    with _LOCK:
        kept = _CONTEXTS.get((trust, identity))
        if kept is not None and kept[0] == stamp:
            return kept[1]
        context = trust.context()
        if identity:
            identity.show(context)
        _CONTEXTS[trust, identity] = (stamp, context)
        return context


@cache
def unused_context() -> ssl.SSLContext:
    """For connections without TLS, as making a context that trusts somebody takes its time."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def certificate_remedy(words: str, usual: str) -> str:
    """What to do about a certificate that is refused with `words`; `usual` where they name nothing
    special. Python 3.13 and newer check strictly (VERIFY_X509_STRICT, RFC 5280)."""
    found = _STRICT.search(words)
    if found is None:
        return usual
    return (
        f"Python 3.13 and newer refuse such a certificate ({found[0]}; RFC 5280): have it, and the "
        "authority's, issued anew with the extensions authorityKeyIdentifier, "
        "subjectKeyIdentifier, keyUsage and a critical basicConstraints, or use Python 3.12"
    )
