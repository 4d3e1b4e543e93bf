"""Tests of the registry in `semconv/`: against the code, and against what is sent. `live` looks at
the latter, as Weaver's live-check does."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
