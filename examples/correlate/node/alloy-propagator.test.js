// Checks the propagator against ../vectors.json, and beside the W3C propagator. Run: npm test
'use strict';
const assert = require('node:assert');
const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const test = require('node:test');
const { ROOT_CONTEXT, defaultTextMapGetter, trace } = require('@opentelemetry/api');
const { CompositePropagator, W3CTraceContextPropagator } = require('@opentelemetry/core');
const { AlloyPropagator, executionIds } = require('./alloy-propagator.js');

const vectors = JSON.parse(readFileSync(join(__dirname, '..', 'vectors.json'), 'utf8'));
const header = vectors.header.toLowerCase(); // as Node has all headers
const extract = (values, propagator = new AlloyPropagator()) =>
  trace.getSpanContext(
    propagator.extract(ROOT_CONTEXT, { [header]: values }, defaultTextMapGetter),
  );

test('ids', () => {
  for (const { uuid, trace_id, span_id } of [...vectors.executions, ...vectors.not_from_headers]) {
    assert.deepStrictEqual(executionIds(uuid), { traceId: trace_id, spanId: span_id }, uuid);
  }
});

test('executions are taken', () => {
  for (const { uuid, trace_id, span_id } of vectors.executions) {
    const wanted = { traceId: trace_id, spanId: span_id, traceFlags: 1, isRemote: true };
    assert.deepStrictEqual({ ...extract(uuid) }, wanted, uuid);
  }
  for (const { value, uuid } of vectors.trimmed) {
    assert.strictEqual(extract(value).traceId, executionIds(uuid).traceId);
  }
  assert.strictEqual(extract('a', new AlloyPropagator({ sampled: false })).traceFlags, 0);
});

test('the doubtful is ignored', () => {
  for (const { values, why } of vectors.ignored) {
    assert.strictEqual(extract(values), undefined, why);
    if (values.length === 1) assert.strictEqual(extract(values[0]), undefined, why);
  }
});

test('a valid traceparent stays, an invalid one does not count', () => {
  const traceId = '0af7651916cd43dd8448eb211c80319c';
  const w3c = new W3CTraceContextPropagator();
  for (const propagators of [[w3c, new AlloyPropagator()], [new AlloyPropagator(), w3c]]) {
    const both = new CompositePropagator({ propagators });
    const found = (traceparent) =>
      trace.getSpanContext(
        both.extract(ROOT_CONTEXT, { traceparent, [header]: 'a' }, defaultTextMapGetter),
      ).traceId;
    assert.strictEqual(found(`00-${traceId}-b7ad6b7169203331-00`), traceId);
    assert.strictEqual(found(`00-${'0'.repeat(32)}-b7ad6b7169203331-01`), executionIds('a').traceId);
  }
});

test('nothing is injected', () => {
  const carrier = {};
  new AlloyPropagator().inject(ROOT_CONTEXT, carrier);
  assert.deepStrictEqual(carrier, {});
  assert.deepStrictEqual(new AlloyPropagator().fields(), []);
});
