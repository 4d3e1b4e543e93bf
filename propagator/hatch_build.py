"""Puts the modules of otel-alloy that the propagator consists of into what is built.

In the repository they lie beside this folder. An sdist brings them along, byte for byte, under the
same name, so a wheel can be built of either.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "opentelemetry_propagator_runalloy"
MODULES = (
    "mapping/__init__.py",
    "mapping/ids.py",
    "mapping/semconv.py",
    "propagation/__init__.py",
    "propagation/context.py",
    "propagation/propagator.py",
    "propagation/span_processor.py",
)


class Modules(BuildHookInterface[Any]):
    """Called by hatchling for each wheel and each sdist."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Names the modules, and where they go."""
        root = Path(self.root)
        unpacked = root / "otel_alloy"
        source = unpacked if unpacked.is_dir() else root.parent / "otel_alloy"
        into = "otel_alloy" if self.target_name == "sdist" else PACKAGE
        for module in MODULES:
            build_data["force_include"][str(source / module)] = f"{into}/{module}"
