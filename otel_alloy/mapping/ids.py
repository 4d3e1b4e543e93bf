"""The id recipe, version 1: from `executionUuid` to a trace id and a span id, and from a block of
the execution to the span id of the block.

    digest   = SHA-256 of the UTF-8 text "runalloy.execution:" + uuid
    trace_id = bytes 0 to 15,  span_id = bytes 16 to 23

    digest   = SHA-256 of the UTF-8 text "runalloy.block:" + uuid + ":" + block id + ":" + index
    span_id  = bytes 0 to 7

The index is the block's place in the execution, from 0, in decimal digits: a block that runs twice
has two spans. A block without an id has an empty one.

This is a public interface: other programs compute the same ids from the header
`X-Alloy-ExecutionUuid`. It changes only under a new prefix. Hashing makes the low 56 bits of the
trace id uniform, which samplers presume (W3C Trace Context level 2); the random flag is not
claimed. An all-zero id, which OpenTelemetry forbids, would need a 64-bit preimage of SHA-256.
"""

from __future__ import annotations

from hashlib import sha256
from struct import Struct

PREFIX = "runalloy.execution:"
BLOCK_PREFIX = "runalloy.block:"
_BEGUN = sha256(PREFIX.encode())
_cut = Struct("16s8s8x").unpack


def execution_ids(uuid: str) -> tuple[bytes, bytes]:
    """The 16-byte trace id and the 8-byte span id of the execution `uuid` (an opaque text)."""
    hashed = _BEGUN.copy()  # a new one costs half as much again
    hashed.update(uuid.encode("utf-8", "replace"))
    trace_id, span_id = _cut(hashed.digest())
    return trace_id, span_id


def block_span_id(uuid: str, block_id: str, index: int) -> bytes:
    """The 8-byte span id of the block `block_id` ("" where it has none) that ran at place `index`
    of the execution `uuid`; both ids are opaque texts."""
    text = f"{BLOCK_PREFIX}{uuid}:{block_id}:{index}"
    return sha256(text.encode("utf-8", "replace")).digest()[:8]
