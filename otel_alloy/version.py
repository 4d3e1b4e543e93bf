"""The version, in its one place, and how requests name it."""

__version__ = "0.1.0"

USER_AGENT = f"otel-alloy/{__version__}"
