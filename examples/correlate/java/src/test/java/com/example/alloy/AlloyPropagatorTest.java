package com.example.alloy;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanContext;
import io.opentelemetry.api.trace.TraceFlags;
import io.opentelemetry.api.trace.propagation.W3CTraceContextPropagator;
import io.opentelemetry.context.Context;
import io.opentelemetry.context.propagation.TextMapGetter;
import io.opentelemetry.context.propagation.TextMapPropagator;
import io.opentelemetry.sdk.autoconfigure.spi.ConfigurablePropagatorProvider;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.ServiceLoader;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;

/** Checks the propagator against ../vectors.json, and beside the W3C propagator. */
class AlloyPropagatorTest {
  private static final TextMapGetter<Map<String, List<String>>> GETTER =
      new TextMapGetter<>() {
        @Override
        public Iterable<String> keys(Map<String, List<String>> carrier) {
          return carrier.keySet();
        }

        @Override
        public String get(Map<String, List<String>> carrier, String key) {
          List<String> values = carrier.getOrDefault(key, List.of());
          return values.isEmpty() ? null : values.get(0);
        }

        @Override
        public Iterator<String> getAll(Map<String, List<String>> carrier, String key) {
          return carrier.getOrDefault(key, List.of()).iterator();
        }
      };

  private final JsonObject vectors;
  private final TextMapPropagator alloy = new AlloyPropagator(true);

  AlloyPropagatorTest() throws IOException {
    vectors =
        JsonParser.parseString(Files.readString(Path.of("..", "vectors.json"))).getAsJsonObject();
  }

  private SpanContext extract(TextMapPropagator propagator, List<String> values, String parent) {
    Map<String, List<String>> headers = new TreeMap<>(String.CASE_INSENSITIVE_ORDER);
    headers.put(vectors.get("header").getAsString(), values);
    if (parent != null) {
      headers.put("traceparent", List.of(parent));
    }
    return Span.fromContext(propagator.extract(Context.root(), headers, GETTER)).getSpanContext();
  }

  private static List<String> texts(JsonArray array) {
    List<String> texts = new ArrayList<>();
    array.forEach(one -> texts.add(one.getAsString()));
    return texts;
  }

  private static void assertIds(JsonObject wanted, SpanContext found) {
    assertEquals(wanted.get("trace_id").getAsString(), found.getTraceId(), wanted.toString());
    assertEquals(wanted.get("span_id").getAsString(), found.getSpanId(), wanted.toString());
  }

  @Test
  void executionsAreTaken() {
    assertTrue(vectors.getAsJsonArray("executions").size() >= 10);
    for (JsonElement one : vectors.getAsJsonArray("executions")) {
      JsonObject wanted = one.getAsJsonObject();
      SpanContext found = extract(alloy, List.of(wanted.get("uuid").getAsString()), null);
      assertIds(wanted, found);
      assertTrue(found.isRemote() && found.isSampled());
    }
    for (JsonElement one : vectors.getAsJsonArray("not_from_headers")) {
      JsonObject wanted = one.getAsJsonObject();
      String uuid = wanted.get("uuid").getAsString();
      assertIds(wanted, AlloyPropagator.executionContext(uuid, TraceFlags.getDefault()));
    }
    for (JsonElement one : vectors.getAsJsonArray("trimmed")) {
      JsonObject both = one.getAsJsonObject();
      assertEquals(
          extract(alloy, List.of(both.get("uuid").getAsString()), null),
          extract(alloy, List.of(both.get("value").getAsString()), null));
    }
    SpanContext unsampled = extract(new AlloyPropagator(false), List.of("a"), null);
    assertTrue(unsampled.isValid());
    assertFalse(unsampled.isSampled());
  }

  @Test
  void theDoubtfulIsIgnored() {
    for (JsonElement one : vectors.getAsJsonArray("ignored")) {
      JsonObject ignored = one.getAsJsonObject();
      SpanContext found = extract(alloy, texts(ignored.getAsJsonArray("values")), null);
      assertFalse(found.isValid(), ignored.toString());
    }
  }

  @Test
  void aValidTraceparentStays() {
    String traceId = "0af7651916cd43dd8448eb211c80319c";
    String own = AlloyPropagator.executionContext("a", TraceFlags.getSampled()).getTraceId();
    TextMapPropagator w3c = W3CTraceContextPropagator.getInstance();
    for (TextMapPropagator both :
        List.of(TextMapPropagator.composite(w3c, alloy), TextMapPropagator.composite(alloy, w3c))) {
      String valid = "00-" + traceId + "-b7ad6b7169203331-00";
      assertEquals(traceId, extract(both, List.of("a"), valid).getTraceId());
      String invalid = "00-" + "0".repeat(32) + "-b7ad6b7169203331-01";
      assertEquals(own, extract(both, List.of("a"), invalid).getTraceId());
    }
  }

  @Test
  void nothingIsInjected() {
    Map<String, String> carrier = new HashMap<>();
    alloy.inject(Context.root(), carrier, Map::put);
    assertTrue(carrier.isEmpty() && alloy.fields().isEmpty());
  }

  @Test
  void theNameIsKnown() {
    assertTrue(
        ServiceLoader.load(ConfigurablePropagatorProvider.class).stream()
            .anyMatch(one -> one.get().getName().equals("alloy")));
  }
}
