"""How much of the waiting overlaps: a slow API and a slow endpoint, beside the API alone.

50 ms per API request and 20 ms per export, unless told otherwise. "The API alone" is the same pages
fetched one after the other by the same reader and client, and nothing done with them. Then the
backfill with several workers, which wait side by side; the last line is of a range 60 times as long
that has all of its executions at its end. Arguments: `--executions`, `--page`, `--request`,
`--export`.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time

from common import END_MS, both_ends

from otel_alloy.alloy.cursor import Window
from otel_alloy.pipeline.backfill import Backfill, Range
from otel_alloy.pipeline.factory import open_source
from otel_alloy.pipeline.receiver import Receiver
from otel_alloy.runtime import system_runtime
from otel_alloy.settings.models import Settings


def seconds(what: object) -> float:
    """How long it takes to call `what`."""
    assert callable(what)
    begun = time.monotonic()
    what()
    return time.monotonic() - begun


def main() -> None:
    """Prints throughputs and their ratios; see the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--executions", type=int, default=20_000)
    parser.add_argument("--page", type=int, default=100)
    parser.add_argument("--request", type=float, default=0.05, help="seconds")
    parser.add_argument("--export", type=float, default=0.02, help="seconds")
    options = parser.parse_args()
    logging.getLogger("otel_alloy").setLevel(logging.ERROR)
    length = options.executions * 5_000
    begin, end = END_MS - length, END_MS - 120_000
    with (
        both_ends(options.executions, request=options.request, export=options.export) as (
            alloy,
            otlp,
        ),
        tempfile.TemporaryDirectory() as folder,
    ):

        def settings(name: str) -> Settings:
            return Settings.model_validate(
                {
                    "api_key": "bench",
                    "endpoint": alloy,
                    "storage": f"sqlite:///{folder}/{name}.db",
                    "requests_per_minute": 0,
                    "enrich": "off",
                    "page_size": options.page,
                    "adaptive": False,
                    "since": 60 * 86400.0,
                    "environment": {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp},
                }
            )

        source = open_source(settings("none").sources[0], system_runtime(), lambda event: None)
        alone = seconds(lambda: sum(1 for _ in source.read(Window(begin, end))))
        source.close()
        rate = options.executions / alone
        print(f"the API alone        {rate:7.0f} executions/s")
        took = seconds(lambda: Receiver(settings("run")).run(once=True))
        print(
            f"run                  {options.executions / took:7.0f} executions/s, "
            f"{alone / took:.2f} of the API alone"
        )
        for workers, start in (
            (1, begin),
            (2, begin),
            (4, begin),
            (8, begin),
            (4, end - 60 * length),
        ):
            chosen = settings(f"backfill-{workers}-{start}")
            work = Backfill(chosen, chosen.sources, Range(start, end, "bench"), workers=workers)
            took = seconds(work.run)
            uneven = "" if start == begin else ", uneven"
            print(
                f"backfill, {workers} workers  {options.executions / took:7.0f} executions/s, "
                f"{alone / took:.2f} of the API alone{uneven}",
                flush=True,
            )


if __name__ == "__main__":
    main()
