"""How large the tests of this folder are: small by default, full size in the nightly run."""

from __future__ import annotations

import os

NIGHTLY = os.environ.get("OTEL_ALLOY_TEST_SCALE", "").lower() == "nightly"


def scaled(default: int, nightly: int) -> int:
    """`default`, or `nightly` where OTEL_ALLOY_TEST_SCALE=nightly."""
    return nightly if NIGHTLY else default
