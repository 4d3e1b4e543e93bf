"""otel-alloy on a benchmark's data, as `run --once` does it; prints executions and CPU seconds."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Arguments: Alloy endpoint, OTLP endpoint, page size, `gzip` or `none`, and whose blocks and
    reason are asked for, where that is to be any; further settings as JSON."""
    begun = time.process_time()
    wall = time.monotonic()
    import httpcore  # noqa: F401  as in the script

    from otel_alloy.pipeline.events import Settled
    from otel_alloy.pipeline.receiver import Receiver, tune_garbage_collector
    from otel_alloy.settings.models import Settings

    tune_garbage_collector()
    imported = time.process_time() - begun
    alloy, otlp, page_size, compression = sys.argv[1:5]
    enrich = sys.argv[5] if len(sys.argv) > 5 else "off"
    more = json.loads(sys.argv[6]) if len(sys.argv) > 6 else {}
    count = requests = 0
    marks: list[tuple[int, float]] = []

    def observe(event: object) -> None:
        nonlocal count, requests
        if isinstance(event, Settled):
            count += event.counts.spans
            requests += event.counts.requests
            marks.append((count, time.process_time()))

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_validate(
            {
                "api_key": "bench",
                "endpoint": alloy,
                "storage": f"sqlite:///{folder}/checkpoint.db",
                "requests_per_minute": 0,
                "enrich": enrich,
                "page_size": page_size,
                "adaptive": False,  # as where Alloy gives no larger pages
                "since": "2020-01-01T00:00:00Z",
                "environment": {
                    "OTEL_EXPORTER_OTLP_ENDPOINT": otlp,
                    "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
                },
                **more,
            }
        )
        Receiver(settings, observe=observe).run(once=True)
        checkpoint = sum(f.stat().st_size for f in Path(folder).iterdir())
    result = {
        "executions": count,
        "cpu": time.process_time() - begun,
        "imports": imported,
        "wall": time.monotonic() - wall,
        "requests": requests,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "checkpoint_mb": checkpoint / 1e6,
        "marks": marks,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
