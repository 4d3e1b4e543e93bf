"""`python -m otel_alloy`."""

from otel_alloy.cli import main

main()
