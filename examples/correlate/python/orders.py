"""An order service that Alloy's Custom API blocks call. It knows OpenTelemetry, and not Alloy."""

from fastapi import FastAPI
from opentelemetry import trace
from pydantic import BaseModel

app = FastAPI()
tracer = trace.get_tracer("orders")


class Order(BaseModel):
    orderId: int


@app.post("/orders")
def accept(order: Order) -> dict[str, str]:
    with tracer.start_as_current_span("reserve stock") as span:
        span.set_attribute("order.id", order.orderId)
        shelf = order.orderId % 7
    with tracer.start_as_current_span("print label"):
        label = f"order {order.orderId}, shelf {shelf}"
    return {"label": label}
