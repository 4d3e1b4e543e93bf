"""Tests of `otel_alloy.otlp`; `otlp_servers` holds the servers they talk to."""
