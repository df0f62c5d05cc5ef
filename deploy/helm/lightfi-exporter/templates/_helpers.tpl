{{- define "lightfi-exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* 50 characters, so that names with a suffix fit the 63 characters of a label. */}}
{{- define "lightfi-exporter.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "lightfi-exporter.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "lightfi-exporter.selectorLabels" -}}
app.kubernetes.io/name: {{ include "lightfi-exporter.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* Labels of every object; the user's labels override the chart's. */}}
{{- define "lightfi-exporter.commonLabels" -}}
{{- $own := dict "app.kubernetes.io/version" .Chart.AppVersion "app.kubernetes.io/part-of" "lightfi-exporter" "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- mergeOverwrite $own (default dict .Values.commonLabels) | toYaml -}}
{{- end -}}

{{- define "lightfi-exporter.labels" -}}
{{ include "lightfi-exporter.selectorLabels" . }}
{{ include "lightfi-exporter.commonLabels" . }}
{{- end -}}

{{- define "lightfi-exporter.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "lightfi-exporter.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "lightfi-exporter.image" -}}
{{- $image := .Values.image -}}
{{- with $image.registry }}{{ . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default .Chart.AppVersion $image.tag }}{{ end -}}
{{- end -}}

{{- define "lightfi-exporter.secretName" -}}
{{- default (include "lightfi-exporter.fullname" .) .Values.credentials.existingSecret -}}
{{- end -}}

{{- define "lightfi-exporter.claimName" -}}
{{- default (printf "%s-token-store" (include "lightfi-exporter.fullname" .)) .Values.tokenStore.persistence.existingClaim -}}
{{- end -}}

{{/* Not empty if the chart creates the Secret; otherwise the user does. */}}
{{- define "lightfi-exporter.makesSecret" -}}
{{- if and .Values.credentials.clientId (not .Values.credentials.existingSecret) (not .Values.demo) }}true{{ end -}}
{{- end -}}

{{/* Not empty if the Secret has a refresh token; otherwise only the token store has one. */}}
{{- define "lightfi-exporter.hasRefreshToken" -}}
{{- if .Values.credentials.keys.refreshToken -}}
{{- if or .Values.credentials.refreshToken (not (include "lightfi-exporter.makesSecret" .)) }}true{{ end -}}
{{- end -}}
{{- end -}}

{{/* Not empty if the web configuration enables TLS. */}}
{{- define "lightfi-exporter.tls" -}}
{{- if and .Values.webConfig.existingSecret .Values.webConfig.tls.enabled }}true{{ end -}}
{{- end -}}

{{/* Not empty if `helm test` has a pod: without the CA, or with client certificates, it could not connect to the exporter. */}}
{{- define "lightfi-exporter.hasTest" -}}
{{- $own := .Values.webConfig.tls -}}
{{- if and .Values.tests.enabled (or (not (include "lightfi-exporter.tls" .)) (and $own.existingSecret $own.caKey (not $own.clientCertificates))) }}true{{ end -}}
{{- end -}}

{{- define "lightfi-exporter.webConfigFile" -}}
/etc/lightfi-exporter/web/{{ .Values.webConfig.key }}
{{- end -}}

{{/* A demo reads no configuration. */}}
{{- define "lightfi-exporter.telemetryPath" -}}
{{- if .Values.demo }}/metrics{{ else }}{{ dig "web" "telemetry_path" "/metrics" (default dict .Values.config) }}{{ end -}}
{{- end -}}

{{/* The exporter's configuration: the user's keys and the paths that the chart sets. */}}
{{- define "lightfi-exporter.config" -}}
{{- $paths := dict "client_id_file" "/etc/lightfi-exporter/credentials/client-id" "client_secret_file" "/etc/lightfi-exporter/credentials/client-secret" "token_store" "/var/lib/lightfi-exporter/token.json" -}}
{{- if include "lightfi-exporter.hasRefreshToken" . -}}
{{- $_ := set $paths "refresh_token_file" "/etc/lightfi-exporter/credentials/refresh-token" -}}
{{- end -}}
{{- $set := dict "oauth" $paths -}}
{{- if .Values.webConfig.existingSecret -}}
{{- $_ := set $set "web" (dict "config_file" (include "lightfi-exporter.webConfigFile" .)) -}}
{{- end -}}
{{- mergeOverwrite (deepCopy (default dict .Values.config)) $set | toYaml -}}
{{- end -}}

{{/* A probe: the user's timing and a handler for the web configuration. Arguments: root, probe, path. */}}
{{- define "lightfi-exporter.probe" -}}
{{- $handler := dict -}}
{{- if or .probe.httpGet .probe.tcpSocket .probe.exec .probe.grpc -}}
{{- else if and (include "lightfi-exporter.tls" .root) .root.Values.webConfig.tls.clientCertificates -}}
{{- $handler = dict "tcpSocket" (dict "port" "http") -}}
{{- else if include "lightfi-exporter.tls" .root -}}
{{- $handler = dict "httpGet" (dict "path" .path "port" "http" "scheme" "HTTPS") -}}
{{- else -}}
{{- $handler = dict "httpGet" (dict "path" .path "port" "http") -}}
{{- end -}}
{{- merge $handler .probe | toYaml -}}
{{- end -}}

{{/* The common part of ServiceMonitor and PodMonitor. Arguments: root, monitor. */}}
{{- define "lightfi-exporter.endpoint" -}}
{{- $tls := .monitor.tlsConfig -}}
{{- $own := .root.Values.webConfig.tls -}}
{{- if and (not $tls) (include "lightfi-exporter.tls" .root) -}}
{{- /* Prometheus connects to the pod's address, which certificates do not contain. */ -}}
{{- $tls = dict "serverName" (include "lightfi-exporter.host" .root) -}}
{{- if and $own.existingSecret $own.caKey -}}
{{- $_ := set $tls "ca" (dict "secret" (dict "name" $own.existingSecret "key" $own.caKey)) -}}
{{- end -}}
{{- end -}}
- port: http
  path: {{ include "lightfi-exporter.telemetryPath" .root }}
  scheme: {{ ternary "https" "http" (not (empty (include "lightfi-exporter.tls" .root))) }}
  interval: {{ .monitor.interval }}
  scrapeTimeout: {{ .monitor.scrapeTimeout }}
  {{- with $tls }}
  tlsConfig:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .monitor.basicAuth }}
  basicAuth:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if or .monitor.stableLabels .monitor.relabelings }}
  relabelings:
    {{- if .monitor.stableLabels }}
    # A restart is the same exporter with the same readings: no new series.
    - action: replace
      targetLabel: instance
      replacement: {{ include "lightfi-exporter.fullname" .root | quote }}
    - action: labeldrop
      regex: pod
    {{- end }}
    {{- with .monitor.relabelings }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  {{- with .monitor.metricRelabelings }}
  metricRelabelings:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* The service's name in certificates. */}}
{{- define "lightfi-exporter.host" -}}
{{ include "lightfi-exporter.fullname" . }}.{{ .Release.Namespace }}.svc
{{- end -}}

{{/* Labels of the test pod; they differ from the exporter's, so the service does not select it. */}}
{{- define "lightfi-exporter.testLabels" -}}
app.kubernetes.io/name: {{ include "lightfi-exporter.name" . }}-test
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}
