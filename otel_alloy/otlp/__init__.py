"""DELIVER: hands framed OTLP records to a far end and says exactly what became of each.

    outcome.py    what one sending came to (`Kind`, `Outcome`), the `Sender` protocol, `Stopped`
    settings.py   OTEL_EXPORTER_OTLP_* -> `OtlpSettings`, with every mistake; pure
    answers.py    the far end's protobuf answers -> words, waits, counts; no sockets
    http.py       OTLP/HTTP;  grpc.py  OTLP/gRPC; each request once, never a retry
    delivery.py   the policy: retry, halve, set aside, hold; no sockets, no clock of its own
    quiet.py      no spans about the exports themselves
    senders.py    settings -> the two senders

Nothing here knows Alloy, the checkpoint or the mapping, and nothing reads the environment.
Importing the package imports neither httpx nor grpcio.
"""
