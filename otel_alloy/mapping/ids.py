"""The id recipe, version 1: from `executionUuid` to a trace id and a span id.

    digest   = SHA-256 of the UTF-8 text "runalloy.execution:" + uuid
    trace_id = bytes 0 to 15,  span_id = bytes 16 to 23

This is a public interface: other programs compute the same ids from the header
`X-Alloy-ExecutionUuid`. It changes only under a new prefix. Hashing makes the low 56 bits of the
trace id uniform, which samplers presume (W3C Trace Context level 2); the random flag is not
claimed. An all-zero id, which OpenTelemetry forbids, would need a 64-bit preimage of SHA-256.
"""

from __future__ import annotations

from hashlib import sha256
from struct import Struct

PREFIX = "runalloy.execution:"
_BEGUN = sha256(PREFIX.encode())
_cut = Struct("16s8s8x").unpack


def execution_ids(uuid: str) -> tuple[bytes, bytes]:
    """The 16-byte trace id and the 8-byte span id of the execution `uuid` (an opaque text)."""
    hashed = _BEGUN.copy()  # a new one costs half as much again
    hashed.update(uuid.encode("utf-8", "replace"))
    trace_id, span_id = _cut(hashed.digest())
    return trace_id, span_id
