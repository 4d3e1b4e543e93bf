"""Tests of the registry in `semconv/`: against the code, and against what is sent. `live` looks at
the latter, as Weaver's live-check does."""
