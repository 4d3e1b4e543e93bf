package com.example.alloy;

import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanContext;
import io.opentelemetry.api.trace.TraceFlags;
import io.opentelemetry.api.trace.TraceState;
import io.opentelemetry.context.Context;
import io.opentelemetry.context.propagation.TextMapGetter;
import io.opentelemetry.context.propagation.TextMapPropagator;
import io.opentelemetry.context.propagation.TextMapSetter;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Collection;
import java.util.Iterator;
import java.util.List;

/**
 * The propagator {@code alloy}: a service that Alloy calls puts its spans under the execution's
 * span. Recipe and rules: ../README.md.
 */
public final class AlloyPropagator implements TextMapPropagator {
  private static final String HEADER = "X-Alloy-ExecutionUuid";
  private final TraceFlags flags;

  /** {@code sampled}: the sampled flag of the execution's span context. */
  public AlloyPropagator(boolean sampled) {
    flags = sampled ? TraceFlags.getSampled() : TraceFlags.getDefault();
  }

  /** The span context of an execution: the first 16 and the next 8 bytes of a SHA-256. */
  public static SpanContext executionContext(String uuid, TraceFlags flags) {
    byte[] digest;
    try {
      digest =
          MessageDigest.getInstance("SHA-256")
              .digest(("runalloy.execution:" + uuid).getBytes(StandardCharsets.UTF_8));
    } catch (NoSuchAlgorithmException impossible) { // every Java platform has it
      throw new IllegalStateException(impossible);
    }
    StringBuilder hex = new StringBuilder();
    for (int i = 0; i < 24; i++) {
      hex.append(String.format("%02x", digest[i]));
    }
    return SpanContext.createFromRemoteParent(
        hex.substring(0, 32), hex.substring(32), flags, TraceState.getDefault());
  }

  @Override
  public <C> Context extract(Context context, C carrier, TextMapGetter<C> getter) {
    if (carrier == null || Span.fromContext(context).getSpanContext().isValid()) {
      return context;
    }
    Iterator<String> values = getter.getAll(carrier, HEADER);
    if (!values.hasNext()) {
      return context;
    }
    String uuid = values.next().replaceAll("^[ \t]+|[ \t]+$", "");
    if (values.hasNext()
        || uuid.isEmpty()
        || uuid.codePointCount(0, uuid.length()) > 256
        || uuid.contains(",")
        || uuid.chars().anyMatch(Character::isISOControl)) {
      return context;
    }
    return context.with(Span.wrap(executionContext(uuid, flags)));
  }

  @Override
  public <C> void inject(Context context, C carrier, TextMapSetter<C> setter) {}

  @Override
  public Collection<String> fields() {
    return List.of();
  }
}
