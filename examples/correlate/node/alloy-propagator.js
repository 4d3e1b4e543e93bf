// The propagator `alloy` for the OpenTelemetry API of Node.js: a service that Alloy calls puts its
// spans under the execution's span. Recipe and rules: ../README.md.
'use strict';
const { createHash } = require('node:crypto');
const { TraceFlags, isSpanContextValid, trace } = require('@opentelemetry/api');

const HEADER = 'x-alloy-executionuuid';

/** Trace id and span id, in hex, of an execution: the first 16 and the next 8 bytes of a SHA-256. */
function executionIds(uuid) {
  const digest = createHash('sha256').update(`runalloy.execution:${uuid}`, 'utf8').digest('hex');
  return { traceId: digest.slice(0, 32), spanId: digest.slice(32, 48) };
}

/** The one good value of the header, or undefined. */
function executionUuid(found) {
  const values = found === undefined ? [] : [].concat(found);
  if (values.length !== 1 || typeof values[0] !== 'string') return undefined;
  const value = values[0].replace(/^[ \t]+|[ \t]+$/g, '');
  const doubtful = value === '' || value.includes(',') || /\p{Cc}/u.test(value);
  return doubtful || [...value].length > 256 ? undefined : value;
}

class AlloyPropagator {
  /** `sampled`: the sampled flag of the execution's span context. */
  constructor({ sampled = true } = {}) {
    this._traceFlags = sampled ? TraceFlags.SAMPLED : TraceFlags.NONE;
  }

  extract(context, carrier, getter) {
    const present = trace.getSpanContext(context);
    if (present !== undefined && isSpanContextValid(present)) return context;
    const uuid = executionUuid(getter.get(carrier, HEADER));
    if (uuid === undefined) return context;
    const execution = { ...executionIds(uuid), traceFlags: this._traceFlags, isRemote: true };
    return trace.setSpanContext(context, execution);
  }

  inject() {}

  fields() {
    return [];
  }
}

module.exports = { AlloyPropagator, executionIds };
