// Package alloy is the propagator `alloy` for the OpenTelemetry API of Go: a service that Alloy
// calls puts its spans under the execution's span. Recipe and rules: ../README.md.
package alloy

import (
	"context"
	"crypto/sha256"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const header = "X-Alloy-ExecutionUuid"

// ExecutionIDs are the ids of an execution: the first 16 and the next 8 bytes of a SHA-256.
func ExecutionIDs(uuid string) (traceID trace.TraceID, spanID trace.SpanID) {
	digest := sha256.Sum256([]byte("runalloy.execution:" + uuid))
	copy(traceID[:], digest[:16])
	copy(spanID[:], digest[16:24])
	return traceID, spanID
}

// Propagator extracts the execution's span context and injects nothing. The zero value carries
// the sampled flag.
type Propagator struct{ Unsampled bool }

var _ propagation.TextMapPropagator = Propagator{}

// Extract returns ctx with the execution's span context, unless it has a valid one already or the
// header is missing or doubtful.
func (p Propagator) Extract(ctx context.Context, carrier propagation.TextMapCarrier) context.Context {
	if trace.SpanContextFromContext(ctx).IsValid() {
		return ctx
	}
	values := []string{carrier.Get(header)}
	if all, ok := carrier.(propagation.ValuesGetter); ok {
		values = all.Values(header)
	}
	if len(values) != 1 {
		return ctx
	}
	uuid := strings.Trim(values[0], " \t")
	if uuid == "" || utf8.RuneCountInString(uuid) > 256 || strings.Contains(uuid, ",") ||
		strings.ContainsFunc(uuid, unicode.IsControl) {
		return ctx
	}
	config := trace.SpanContextConfig{Remote: true}
	config.TraceID, config.SpanID = ExecutionIDs(uuid)
	if !p.Unsampled {
		config.TraceFlags = trace.FlagsSampled
	}
	return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(config))
}

// Inject does nothing: the header is Alloy's to send.
func (Propagator) Inject(context.Context, propagation.TextMapCarrier) {}

// Fields is what Inject sets: nothing.
func (Propagator) Fields() []string { return nil }
