"""SOURCE: everything that knows Alloy's Logs API, and nothing that knows OTLP or the checkpoint."""
