"""A faithful stand-in of Alloy's Logs API, for demo, dry runs and tests: ``GET /logs``, what is
inside an execution (``GET /workflows/{workflowId}``, ``.../logs``, ``.../errors``), and the error
webhook.

The API's owner publishes a description of the wire and leaves much of the behaviour open. This
package serves the documented shape exactly and makes each open question a knob, so that a client
can be held against every way in which the real service may turn out to behave.

============== ===================================================================================
``faults``     answers, and answers spoiled on purpose; pure
``records``    what a record and a step in its life are; the forms of time
``incidents``  apps that are down and connections that have expired; pure
``inside``     what runs inside an execution, from its record alone; pure
``config``     the knobs, their defaults, units and bounds
``data``       seeded, realistic traffic: what executions leave in the log, and when
``query``      request parameters to a checked question
``store``      the records and the answers; pure, needs no socket
``operations`` the answers about one workflow, from the store's records; pure
``server``     sockets, keys, the request log
============== ===================================================================================

Imports go upwards in that list only. It uses the standard library, and of this project the bare
``http_server`` alone: a stand-in that shares code with the client would share its mistakes.
"""

from otel_alloy.testing.simulator.config import ODD_PAGES, Config
from otel_alloy.testing.simulator.data import ODDITIES, Traffic, eventful, generate, live, timeline
from otel_alloy.testing.simulator.faults import Answer, Fault
from otel_alloy.testing.simulator.inside import (
    PAYLOAD_CANARY,
    REASON_CANARY,
    Failure,
    blocks_of,
    failure_of,
    uuid_of,
)
from otel_alloy.testing.simulator.records import Execution, Record, Step, iso, millis
from otel_alloy.testing.simulator.server import Report, Request, Simulator
from otel_alloy.testing.simulator.store import LogStore

__all__ = [
    "ODDITIES",
    "ODD_PAGES",
    "PAYLOAD_CANARY",
    "REASON_CANARY",
    "Answer",
    "Config",
    "Execution",
    "Failure",
    "Fault",
    "LogStore",
    "Record",
    "Report",
    "Request",
    "Simulator",
    "Step",
    "Traffic",
    "blocks_of",
    "eventful",
    "failure_of",
    "generate",
    "iso",
    "live",
    "millis",
    "timeline",
    "uuid_of",
]
