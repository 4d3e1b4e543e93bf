"""Stand-ins for the two ends, for trying things out: the simulator of Alloy, an OTLP endpoint."""
