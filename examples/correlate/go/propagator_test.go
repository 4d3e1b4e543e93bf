package alloy

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

type execution struct {
	UUID    string `json:"uuid"`
	TraceID string `json:"trace_id"`
	SpanID  string `json:"span_id"`
}

type vectors struct {
	Header         string      `json:"header"`
	Executions     []execution `json:"executions"`
	NotFromHeaders []execution `json:"not_from_headers"`
	Ignored        []struct {
		Values []string `json:"values"`
		Why    string   `json:"why"`
	} `json:"ignored"`
	Trimmed []struct {
		Value string `json:"value"`
		UUID  string `json:"uuid"`
	} `json:"trimmed"`
}

func load(t *testing.T) (v vectors) {
	t.Helper()
	text, err := os.ReadFile("../vectors.json")
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil || len(v.Executions) < 10 || len(v.Ignored) == 0 {
		t.Fatalf("no vectors: %v", err)
	}
	return v
}

func extract(p propagation.TextMapPropagator, name string, values ...string) trace.SpanContext {
	carrier := propagation.HeaderCarrier(http.Header{http.CanonicalHeaderKey(name): values})
	return trace.SpanContextFromContext(p.Extract(context.Background(), carrier))
}

func TestIDs(t *testing.T) {
	v := load(t)
	for _, one := range append(v.Executions, v.NotFromHeaders...) {
		traceID, spanID := ExecutionIDs(one.UUID)
		if traceID.String() != one.TraceID || spanID.String() != one.SpanID {
			t.Errorf("%q: %s %s", one.UUID, traceID, spanID)
		}
	}
}

func TestExecutionsAreTaken(t *testing.T) {
	v := load(t)
	for _, one := range v.Executions {
		got := extract(Propagator{}, v.Header, one.UUID)
		if got.TraceID().String() != one.TraceID || got.SpanID().String() != one.SpanID ||
			!got.IsSampled() || !got.IsRemote() {
			t.Errorf("%q: %+v", one.UUID, got)
		}
		single := propagation.MapCarrier{v.Header: one.UUID}
		if !trace.SpanContextFromContext(Propagator{}.Extract(context.Background(), single)).Equal(got) {
			t.Errorf("%q: another result from a carrier with single values", one.UUID)
		}
	}
	for _, one := range v.Trimmed {
		if want, _ := ExecutionIDs(one.UUID); extract(Propagator{}, v.Header, one.Value).TraceID() != want {
			t.Errorf("%q is not trimmed", one.Value)
		}
	}
	if got := extract(Propagator{Unsampled: true}, v.Header, "a"); !got.IsValid() || got.IsSampled() {
		t.Errorf("not unsampled: %+v", got)
	}
}

func TestTheDoubtfulIsIgnored(t *testing.T) {
	v := load(t)
	for _, one := range v.Ignored {
		if got := extract(Propagator{}, v.Header, one.Values...); got.IsValid() {
			t.Errorf("%s: %+v", one.Why, got)
		}
	}
}

func TestAValidTraceparentStays(t *testing.T) {
	v := load(t)
	const traceID = "0af7651916cd43dd8448eb211c80319c"
	own, _ := ExecutionIDs("a")
	w3c := propagation.TraceContext{}
	for _, both := range []propagation.TextMapPropagator{
		propagation.NewCompositeTextMapPropagator(w3c, Propagator{}),
		propagation.NewCompositeTextMapPropagator(Propagator{}, w3c),
	} {
		for traceparent, want := range map[string]string{
			"00-" + traceID + "-b7ad6b7169203331-00":                  traceID,
			"00-00000000000000000000000000000000-b7ad6b7169203331-01": own.String(),
		} {
			header := http.Header{}
			header.Set(v.Header, "a")
			header.Set("traceparent", traceparent)
			ctx := both.Extract(context.Background(), propagation.HeaderCarrier(header))
			if got := trace.SpanContextFromContext(ctx).TraceID().String(); got != want {
				t.Errorf("%s: %s", traceparent, got)
			}
		}
	}
}

func TestNothingIsInjected(t *testing.T) {
	carrier := propagation.MapCarrier{}
	Propagator{}.Inject(context.Background(), carrier)
	if len(carrier) != 0 || len(Propagator{}.Fields()) != 0 {
		t.Errorf("%v", carrier)
	}
}
