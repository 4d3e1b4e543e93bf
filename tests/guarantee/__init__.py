"""Tests that try to break "nothing lost, nothing doubled". `OTEL_ALLOY_TEST_SCALE=nightly` runs
them at their full size."""
