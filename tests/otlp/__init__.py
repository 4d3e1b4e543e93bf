"""Tests of `otel_alloy.otlp`; `far_end` holds the servers they talk to."""
