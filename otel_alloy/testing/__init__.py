"""Stand-ins for trying things out and for tests: Alloy, an OTLP endpoint, an order service."""
