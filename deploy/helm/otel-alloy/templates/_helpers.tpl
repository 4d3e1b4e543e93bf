{{- define "otel-alloy.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "otel-alloy.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "otel-alloy.labels" -}}
{{ include "otel-alloy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "otel-alloy.account" -}}
{{ .Values.serviceAccount.name | default (include "otel-alloy.name" .) }}
{{- end }}

{{- define "otel-alloy.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- /* What cannot be, said before anything is installed. */}}
{{- define "otel-alloy.checks" -}}
{{- if and (gt (int .Values.replicas) 1) (not .Values.postgresql.secret) }}
{{- fail "replicas: more than one needs a PostgreSQL; name the Secret with its URL in postgresql.secret" }}
{{- end }}
{{- if and .Values.destinations.secret .Values.destinations.configMap }}
{{- fail "destinations: name a secret or a configMap, not both" }}
{{- end }}
{{- end }}

{{- /* Whole seconds, rounded up, of a duration setting: (list $ name default). A variable wins. */}}
{{- define "otel-alloy.seconds" -}}
{{- $root := index . 0 }}{{ $name := index . 1 }}
{{- $text := dig $name (index . 2) $root.Values.settings | toString | lower | nospace }}
{{- range $root.Values.env }}
{{- if and (eq .name (printf "OTEL_ALLOY_%s" ($name | upper))) .value }}{{ $text = .value | toString | lower | nospace }}{{ end }}
{{- end }}
{{- $units := dict "ms" 0.001 "s" 1 "" 1 "m" 60 "min" 60 "h" 3600 "d" 86400 "w" 604800 }}
{{- $sum := 0.0 }}
{{- range regexFindAll "[0-9]+([.][0-9]+)?(ms|min|[smhdw])?" $text -1 }}
{{- $number := regexFind "^[0-9.]+" . }}
{{- $sum = addf $sum (mulf (float64 $number) (get $units (trimPrefix $number .))) }}
{{- end }}
{{- ceil $sum | int }}
{{- end }}

{{- define "otel-alloy.pod" -}}
metadata:
  labels:
    {{- include "otel-alloy.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # A changed file rolls the pods over.
    otel-alloy/settings: {{ toYaml .Values.settings | sha256sum | quote }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "otel-alloy.account" . }}
  automountServiceAccountToken: false
  # A service called otel-alloy would come along as OTEL_ALLOY_PORT and the like, which look like
  # settings and are none.
  enableServiceLinks: false
  # Sources, destinations and leases may each take shutdown_timeout to end.
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds | default (include "otel-alloy.seconds" (list . "shutdown_timeout" "10s") | int | mul 3 | add 15) }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .Values.postgresql.secret }}
  topologySpreadConstraints:
    {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - topologyKey: {{ . }}
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "otel-alloy.selector" $ | nindent 10 }}
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: otel-alloy
      image: {{ include "otel-alloy.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [run]
      env:
        - name: OTEL_ALLOY_CONFIG
          value: /etc/otel-alloy/settings.yaml
        {{- if .Values.alloy.key }}
        - name: ALLOY_API_KEY_FILE
          value: /run/secrets/otel-alloy/{{ .Values.alloy.key }}
        {{- end }}
        - name: OTEL_ALLOY_STORAGE
          {{- if .Values.postgresql.secret }}
          valueFrom:
            secretKeyRef:
              name: {{ .Values.postgresql.secret }}
              key: {{ .Values.postgresql.key }}
          {{- else }}
          value: sqlite:////var/lib/otel-alloy/checkpoint.db
          {{- end }}
        {{- if or .Values.destinations.secret .Values.destinations.configMap }}
        - name: OTEL_ALLOY_DESTINATIONS_DIR
          value: /etc/otel-alloy-destinations
        {{- end }}
        - name: OTEL_ALLOY_HEALTH_ENDPOINT
          value: 0.0.0.0:8089
        - name: OTEL_ALLOY_LOG_FORMAT
          value: json
        {{- if .Values.serviceMonitor.enabled }}
        - name: OTEL_METRICS_EXPORTER
          value: prometheus
        - name: OTEL_EXPORTER_PROMETHEUS_HOST
          value: 0.0.0.0
        - name: OTEL_EXPORTER_PROMETHEUS_PORT
          value: "9464"
        {{- else if .Values.metrics }}
        - name: OTEL_METRICS_EXPORTER
          value: otlp
        {{- end }}
        {{- with .Values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: health
          containerPort: 8089
        {{- if .Values.serviceMonitor.enabled }}
        - name: metrics
          containerPort: 9464
        {{- end }}
      livenessProbe:
        httpGet:
          path: /livez
          port: health
        periodSeconds: 10
        timeoutSeconds: 2
        failureThreshold: 6
      readinessProbe:
        httpGet:
          path: /readyz
          port: health
        periodSeconds: 10
        timeoutSeconds: 2
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      volumeMounts:
        - name: settings
          mountPath: /etc/otel-alloy
          readOnly: true
        - name: keys
          mountPath: /run/secrets/otel-alloy
          readOnly: true
        {{- if or .Values.destinations.secret .Values.destinations.configMap }}
        - name: destinations
          mountPath: /etc/otel-alloy-destinations
          readOnly: true
        {{- end }}
        {{- if not .Values.postgresql.secret }}
        - name: checkpoint
          mountPath: /var/lib/otel-alloy
        {{- end }}
        - name: tmp
          mountPath: /tmp
  volumes:
    - name: settings
      configMap:
        name: {{ include "otel-alloy.name" . }}
    - name: keys
      secret:
        secretName: {{ .Values.alloy.secret }}
        defaultMode: 0440
    {{- with .Values.destinations.secret }}
    - name: destinations
      secret:
        secretName: {{ . }}
        defaultMode: 0440
    {{- end }}
    {{- with .Values.destinations.configMap }}
    - name: destinations
      configMap:
        name: {{ . }}
    {{- end }}
    - name: tmp
      emptyDir:
        sizeLimit: 64Mi
{{- end }}
