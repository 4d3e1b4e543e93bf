"""What no test runs, because Grafana, Tempo and Loki are not built here (their licence): each query
in TraceQL and LogQL that is shipped, and each setting of their files, with what it says and where
that is written.

Every line of these tables has been read against the source that stands above it, in November 2026.
The tests hold the files against them, so that nothing changes unread. Who changes a file reads the
source again, of the release that `examples/grafana/compose.yaml` runs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Said:
    """A query as the files have it, and what it says."""

    query: str
    says: str


# TraceQL: grafana.com/docs/tempo/latest/traceql/construct-traceql-queries and
# .../metrics-from-traces/metrics-queries/functions, Tempo 3.0. `resource.` and `span.` name
# attributes as they are sent; a regular expression has to fit the whole value; a span without the
# attribute fits none. Grafana's grammar of the language took them all
# (@grafana/lezer-traceql 1.0.0).
_EXECUTIONS = (
    '{resource.service.name="$service" && span.runalloy.workflow.name=~`${workflow:regex}`'
)
TRACEQL = (
    Said(
        _EXECUTIONS + "} | count_over_time() by ($customer) | topk(10)",
        "Spans of the chosen workflows, counted by customer at each step, the ten largest series. "
        "Block spans have no workflow's name and are not counted.",
    ),
    Said(
        _EXECUTIONS + " && status=error} | count_over_time() by ($customer) | topk(10)",
        "The same, of those that failed.",
    ),
    Said(
        _EXECUTIONS + "} | quantile_over_time(duration, 0.5) by ($customer) | topk(10)",
        "Their median duration by customer, the ten largest.",
    ),
    Said(
        _EXECUTIONS + "} | quantile_over_time(duration, 0.95) by ($customer) | topk(10)",
        "Their 95th percentile by customer, the ten largest.",
    ),
    Said(
        _EXECUTIONS + " && kind=server && duration>$slower} | select(span.runalloy.workflow.name, "
        "span.runalloy.integration.name, span.user.id, span.error.type, "
        "span.runalloy.execution.id)",
        "Spans of executions that took longer, with these attributes as columns.",
    ),
    Said(
        _EXECUTIONS + " && kind=server && status=error} | select(span.runalloy.workflow.name, "
        "span.runalloy.integration.name, span.user.id, span.runalloy.block.name, statusMessage, "
        "span.runalloy.execution.id) with (most_recent=true)",
        "Spans of executions that failed, the newest and not the first that are found, with these "
        "attributes and the reason as columns.",
    ),
    Said('{ resource.service.name = "runalloy" && status = error }', "Executions that failed."),
    Said('{ span.user.id = "…" }', "Executions of one customer."),
    Said(
        '{ resource.service.name = "runalloy" && status = error && name = "…" }',
        "Failed executions of one workflow, whose name the span has.",
    ),
)
TRACEQL_INTRINSICS = {"status", "kind", "duration", "name", "statusMessage"}

# LogQL: grafana.com/docs/loki/latest/query, and .../send-data/otel for what becomes of OTLP, Loki
# 3.7: service.name is one of the labels that a stream gets by default; trace id and attributes are
# structured metadata, with `_` for a dot. 3.7 drops the event's name, so nothing asks for it. Read
# in November 2026, and taken by Grafana's grammar of the language (@grafana/lezer-logql 0.4.2).
_FAILED = (
    '{service_name="$service"} | runalloy_execution_outcome="error"'
    " | runalloy_workflow_name=~`${workflow:regex}`"
)
LOGQL = (
    Said(_FAILED, "Log records of failures of the chosen workflows."),
    Said(
        "topk(50, sum by (runalloy_workflow_name, runalloy_block_name, exception_message) "
        f"(count_over_time({_FAILED} [$__range])))",
        "How many of them there are in the dashboard's time by workflow, block and reason; the 50 "
        "largest.",
    ),
    Said(
        '{service_name="runalloy"} | runalloy_execution_outcome="error"',
        "Log records of all failures.",
    ),
    Said(
        '{${__tags}} | trace_id="${__trace.traceId}"',
        "Log records of a trace; `__tags` is the service's name as `tags` maps it.",
    ),
)
LOGQL_LABELS = {"service_name"}
LOGQL_FIELDS = {"trace_id"}
"""Fields of a log record in OTLP that are no attributes."""


@dataclass(frozen=True)
class Settings:
    """The settings of a file, by their path, with their values; `*` is each entry of a list.
    `source`: where they are described; `release`: of which release."""

    source: str
    release: str
    values: dict[str, object]


SETTINGS = {
    # The manifest lists all settings with their defaults; what it has no value for (receivers,
    # overrides, remote_write) is on the page of the configuration.
    "tempo.yaml": Settings(
        "grafana.com/docs/tempo/latest/configuration/manifest and .../configuration",
        "grafana/tempo:3.0.3",
        {
            "server.http_listen_address": "${TEMPO_LISTEN_HOST:-127.0.0.1}",
            "server.http_listen_port": "${TEMPO_HTTP_PORT:-3200}",
            "server.grpc_listen_address": "127.0.0.1",
            "server.grpc_listen_port": "${TEMPO_GRPC_PORT:-9095}",
            "distributor.receivers.otlp.protocols.grpc.endpoint": (
                "${TEMPO_OTLP_ENDPOINT:-127.0.0.1:14317}"
            ),
            "live_store.shutdown_marker_dir": (
                "${TEMPO_STORAGE:-/var/tempo}/live-store/shutdown-marker"
            ),
            "live_store.wal.path": "${TEMPO_STORAGE:-/var/tempo}/live-store/traces",
            "live_store.wal.ingestion_time_range_slack": "${BACKFILL_DEPTH:-2160h}",
            "storage.trace.backend": "local",
            "storage.trace.blocklist_poll": "${TEMPO_BLOCKLIST_POLL:-1m}",
            "storage.trace.wal.path": "${TEMPO_STORAGE:-/var/tempo}/wal",
            "storage.trace.local.path": "${TEMPO_STORAGE:-/var/tempo}/blocks",
            "query_frontend.search.max_duration": "${BACKFILL_DEPTH:-2160h}",
            "query_frontend.metrics.max_duration": "${TRACEQL_METRICS_MAX_DURATION:-744h}",
            "overrides.defaults.compaction.block_retention": "${TRACE_RETENTION:-2400h}",
            "overrides.defaults.metrics_generator.processors": [],
            "overrides.defaults.metrics_generator.ingestion_time_range_slack": "12h",
            "metrics_generator.storage.path": "${TEMPO_STORAGE:-/var/tempo}/generator/wal",
            "metrics_generator.storage.remote_write.*.url": (
                "${PROMETHEUS_ENDPOINT:-http://127.0.0.1:9090}/api/v1/write"
            ),
            "metrics_generator.storage.remote_write.*.send_exemplars": True,
            "usage_report.reporting_enabled": False,
        },
    ),
    # Each part of a path is a section of the page: common, period_config, limits_config, ….
    "loki.yaml": Settings(
        "grafana.com/docs/loki/latest/configure",
        "grafana/loki:3.7.6",
        {
            "auth_enabled": False,
            "server.http_listen_address": "${LOKI_LISTEN_HOST:-127.0.0.1}",
            "server.http_listen_port": "${LOKI_HTTP_PORT:-3100}",
            "server.grpc_listen_address": "127.0.0.1",
            "server.grpc_listen_port": "${LOKI_GRPC_PORT:-9096}",
            "common.instance_addr": "127.0.0.1",
            "common.path_prefix": "${LOKI_STORAGE:-/loki}",
            "common.replication_factor": 1,
            "common.ring.kvstore.store": "inmemory",
            "common.storage.filesystem.chunks_directory": "${LOKI_STORAGE:-/loki}/chunks",
            "common.storage.filesystem.rules_directory": "${LOKI_STORAGE:-/loki}/rules",
            "schema_config.configs.*.from": "2024-01-01",
            "schema_config.configs.*.store": "tsdb",
            "schema_config.configs.*.object_store": "filesystem",
            "schema_config.configs.*.schema": "v13",
            "schema_config.configs.*.index.prefix": "index_",
            "schema_config.configs.*.index.period": "24h",
            "limits_config.allow_structured_metadata": True,
            "limits_config.reject_old_samples_max_age": "${BACKFILL_DEPTH:-2160h}",
            "limits_config.shard_streams.enabled": True,
            "limits_config.shard_streams.time_sharding_enabled": True,
            "limits_config.per_stream_rate_limit": "16MB",
            "limits_config.per_stream_rate_limit_burst": "64MB",
            "limits_config.ingestion_rate_mb": 16,
            "limits_config.ingestion_burst_size_mb": 64,
            "limits_config.max_query_length": "${BACKFILL_DEPTH:-2160h}",
            "limits_config.retention_period": "${LOG_RETENTION:-2400h}",
            "ingester.query_store_max_look_back_period": "${BACKFILL_DEPTH:-2160h}",
            "compactor.working_directory": "${LOKI_STORAGE:-/loki}/compactor",
            "compactor.retention_enabled": True,
            "compactor.delete_request_store": "filesystem",
            "analytics.reporting_enabled": False,
        },
    ),
    # The pages of the three data sources have their jsonData; the word for a derived field of the
    # type Label, `matcherType`, is what Grafana writes itself.
    "grafana/provisioning/datasources/datasources.yaml": Settings(
        "grafana.com/docs/grafana/latest/administration/provisioning and .../datasources",
        "grafana/grafana:13.0.1",
        {
            "apiVersion": 1,
            "datasources.*.name": ["Prometheus", "Tempo", "Loki"],
            "datasources.*.uid": ["prometheus", "tempo", "loki"],
            "datasources.*.type": ["prometheus", "tempo", "loki"],
            "datasources.*.access": ["proxy", "proxy", "proxy"],
            "datasources.*.url": [
                "http://prometheus:9090",
                "http://tempo:3200",
                "http://loki:3100",
            ],
            "datasources.*.isDefault": True,
            "datasources.*.jsonData.httpMethod": "POST",
            "datasources.*.jsonData.timeInterval": "60s",
            "datasources.*.jsonData.exemplarTraceIdDestinations.*.name": "trace_id",
            "datasources.*.jsonData.exemplarTraceIdDestinations.*.datasourceUid": "tempo",
            "datasources.*.jsonData.tracesToLogsV2.datasourceUid": "loki",
            "datasources.*.jsonData.tracesToLogsV2.spanStartTimeShift": "-1h",
            "datasources.*.jsonData.tracesToLogsV2.spanEndTimeShift": "1h",
            "datasources.*.jsonData.tracesToLogsV2.tags.*.key": "service.name",
            "datasources.*.jsonData.tracesToLogsV2.tags.*.value": "service_name",
            "datasources.*.jsonData.tracesToLogsV2.customQuery": True,
            "datasources.*.jsonData.tracesToLogsV2.query": (
                '{$${__tags}} | trace_id="$${__trace.traceId}"'
            ),
            "datasources.*.jsonData.tracesToMetrics.datasourceUid": "prometheus",
            "datasources.*.jsonData.tracesToMetrics.spanStartTimeShift": "-1h",
            "datasources.*.jsonData.tracesToMetrics.spanEndTimeShift": "1h",
            "datasources.*.jsonData.tracesToMetrics.tags.*.key": "runalloy.workflow.name",
            "datasources.*.jsonData.tracesToMetrics.tags.*.value": "runalloy_workflow_name",
            "datasources.*.jsonData.tracesToMetrics.queries.*.name": [
                "Executions per minute",
                "p95 duration",
            ],
            "datasources.*.jsonData.tracesToMetrics.queries.*.query": [
                "sum by (runalloy_execution_outcome) "
                "(rate(runalloy_workflow_execution_duration_seconds_count{$$__tags}[5m])) * 60",
                "histogram_quantile(0.95, sum by (le) "
                "(rate(runalloy_workflow_execution_duration_seconds_bucket{$$__tags}[5m])))",
            ],
            "datasources.*.jsonData.search.hide": False,
            "datasources.*.jsonData.nodeGraph.enabled": True,
            "datasources.*.jsonData.derivedFields.*.name": "Trace",
            "datasources.*.jsonData.derivedFields.*.matcherType": "label",
            "datasources.*.jsonData.derivedFields.*.matcherRegex": "trace_id",
            "datasources.*.jsonData.derivedFields.*.datasourceUid": "tempo",
            "datasources.*.jsonData.derivedFields.*.url": "$${__value.raw}",
            "datasources.*.jsonData.derivedFields.*.urlDisplayLabel": "Open the trace",
        },
    ),
    "grafana/provisioning/dashboards/dashboards.yaml": Settings(
        "grafana.com/docs/grafana/latest/administration/provisioning/#dashboards",
        "grafana/grafana:13.0.1",
        {
            "apiVersion": 1,
            "providers.*.name": "otel-alloy",
            "providers.*.folder": "Alloy",
            "providers.*.type": "file",
            "providers.*.options.path": "/var/lib/grafana/dashboards",
        },
    ),
}
