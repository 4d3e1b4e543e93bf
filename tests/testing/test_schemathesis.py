"""The stand-in against the vendor's own OpenAPI description of ``GET /logs``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
)

from otel_alloy.testing.simulator import Config, Simulator, Traffic, timeline

DESCRIPTION = Path(__file__).parents[1] / "testdata" / "alloy-logs.openapi.yaml"
NOW = 1_745_948_798.237

schema = schemathesis.openapi.from_path(str(DESCRIPTION))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with Simulator(Config(api_key="secret"), clock=lambda: NOW) as simulator:
        traffic = Traffic(second_terminal=0.5, never_ends=0.1)
        simulator.store.feed(timeline(50, start=NOW - 3600, end=NOW, traffic=traffic))
        yield simulator.endpoint
        # Guards the test itself: it must have met both good answers and refusals.
        statuses = [entry.status for entry in simulator.requests]
        assert statuses.count(200) >= 20
        assert set(statuses) >= {200, 400, 401, 405, 422}


@schema.parametrize()
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_answer_is_as_described(case: schemathesis.Case[Any], endpoint: str) -> None:
    """No request makes it fail; a 200 has the documented shape and every refusal is a 4xx.

    The description lists no answer but 200 and no bounds of the parameters, so a refusal is held
    only against the statuses that the vendor is known to use.
    """
    response = case.call(base_url=endpoint, headers={"Authorization": "bearer secret"})
    assert response.status_code in (200, 400, 401, 405, 422)
    checks: list[Any] = [not_a_server_error]
    if response.status_code == 200:
        checks += [content_type_conformance, response_schema_conformance]
    if response.status_code == 405:
        checks += [unsupported_method]
    case.validate_response(response, checks=checks)
