"""DELIVER: hands framed OTLP records to an endpoint and says exactly what became of each.

    outcome.py    what one sending came to (`Kind`, `Outcome`), the `Sender` protocol
    answers.py    the table: what each status code and its words come to; no sockets
    messages.py   the endpoint's protobuf and JSON answers -> words, waits, counts; no sockets
    any_value.py  attribute values of OTLP -> Python values
    http.py       OTLP/HTTP;  grpc.py  OTLP/gRPC;  sdk.py  an exporter that is installed for the
                  SDK; each sends a request once and never retries
    pinned.py     what a policy for endpoints of others forbids, and where gRPC may lead; no sockets
    delivery.py   a batch to both signals, and what became of it
    settling.py   the policy for one signal: retry, halve, set aside, hold; no sockets, no clock of
                  its own
    quiet.py      no spans about the exports themselves
    senders.py    settings -> senders and exporters

Nothing here knows Alloy, the checkpoint or the mapping, and nothing reads the environment: the
settings are values of `otel_alloy.settings.otlp`. Importing the package imports neither httpcore
nor grpcio.
"""
