"""How large the tests of this folder are: small by default, full size in the nightly run."""

from __future__ import annotations

import os
from typing import TypeVar

NIGHTLY = os.environ.get("OTEL_ALLOY_TEST_SCALE", "").lower() == "nightly"


T = TypeVar("T")


def scaled(default: T, nightly: T) -> T:
    """`default`, or `nightly` where OTEL_ALLOY_TEST_SCALE=nightly."""
    return nightly if NIGHTLY else default
