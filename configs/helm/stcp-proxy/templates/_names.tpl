{{/* The name of every object of a release. */}}
{{- define "stcp-proxy.name" -}}
{{- if contains "stcp-proxy" .Release.Name }}{{ .Release.Name }}{{ else }}{{ printf "%s-stcp-proxy" .Release.Name | trunc 63 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "stcp-proxy.selector" -}}
app.kubernetes.io/name: stcp-proxy
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "stcp-proxy.labels" -}}
{{ include "stcp-proxy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* The Secret with host.key and admin.token. */}}
{{- define "stcp-proxy.secret" -}}
{{- if .Values.secret.existing }}{{ .Values.secret.existing }}{{ else }}{{ include "stcp-proxy.name" . }}{{ end -}}
{{- end }}
