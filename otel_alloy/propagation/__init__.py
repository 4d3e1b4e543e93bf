"""What runs inside customers' services: propagator, span processor, an execution's context."""
