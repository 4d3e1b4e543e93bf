package com.example.alloy;

import io.opentelemetry.context.propagation.TextMapPropagator;
import io.opentelemetry.sdk.autoconfigure.spi.ConfigProperties;
import io.opentelemetry.sdk.autoconfigure.spi.ConfigurablePropagatorProvider;

/** Makes {@code OTEL_PROPAGATORS=tracecontext,baggage,alloy} work, in the Java agent too. */
public final class AlloyPropagatorProvider implements ConfigurablePropagatorProvider {
  @Override
  public String getName() {
    return "alloy";
  }

  @Override
  public TextMapPropagator getPropagator(ConfigProperties config) {
    return new AlloyPropagator(config.getBoolean("otel.alloy.propagator.sampled", true));
  }
}
