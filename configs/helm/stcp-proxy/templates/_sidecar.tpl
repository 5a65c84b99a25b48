{{/*
Parts of a pod, for this chart's gateway and for other charts. A chart that depends on this one, with gateway.enabled: false, writes:

  initContainers:
    - {{ include "stcp-proxy.sidecar" (index .Subcharts "stcp-proxy") | nindent 6 | trim }}
  volumes:
    {{- include "stcp-proxy.volumes" (index .Subcharts "stcp-proxy") | nindent 4 }}
  securityContext: {fsGroup: 47443}
*/}}

{{- define "stcp-proxy.container" -}}
name: stcp
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.gateway.ports }}
ports:
  {{- range . }}
  - {name: {{ .name }}, containerPort: {{ .port }}}
  {{- end }}
  {{- if $.Values.metrics.enabled }}
  - {name: stcp-admin, containerPort: 9901}
  {{- end }}
{{- else }}
{{- if .Values.metrics.enabled }}
ports:
  - {name: stcp-admin, containerPort: 9901}
{{- end }}
{{- end }}
startupProbe:
  exec: {command: ["stcp-proxy", "wait", "/etc/stcp/config.yaml", "--timeout", "2s"]}
  periodSeconds: 2
  timeoutSeconds: 10
  failureThreshold: 30
readinessProbe:
  exec: {command: ["stcp-proxy", "wait", "/etc/stcp/config.yaml", "--timeout", "2s"]}
  periodSeconds: 15
  timeoutSeconds: 10
livenessProbe:
  exec: {command: ["stcp-proxy", "status", "/etc/stcp/config.yaml", "--json", "--connections", "0"]}
  periodSeconds: 30
  timeoutSeconds: 15
securityContext:
  runAsNonRoot: true
  runAsUser: 47443
  runAsGroup: 47443
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
{{- with .Values.env }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - {name: stcp-config, mountPath: /etc/stcp, readOnly: true}
  - {name: stcp-keys, mountPath: /var/lib/stcp, readOnly: true}
  {{- if .Values.certificate.enabled }}
  - {name: stcp-certificate, mountPath: /run/stcp, readOnly: true}
  {{- end }}
{{- end }}

{{/* An entry of initContainers: it starts before the others, and ends after them. */}}
{{- define "stcp-proxy.sidecar" -}}
{{ include "stcp-proxy.container" . }}
restartPolicy: Always
{{- end }}

{{/* An entry of initContainers, before the sidecar: it installs the rules of interception and ends. */}}
{{- define "stcp-proxy.rules" -}}
name: stcp-rules
image: {{ printf "%s:%s" .Values.interception.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: ["intercept", "/etc/stcp/config.yaml", "--uid", "47443", "--apply"]
securityContext:
  runAsUser: 0
  runAsGroup: 0
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL], add: [NET_ADMIN]}
  seccompProfile: {type: RuntimeDefault}
volumeMounts:
  - {name: stcp-config, mountPath: /etc/stcp, readOnly: true}
{{- end }}

{{- define "stcp-proxy.volumes" -}}
- name: stcp-config
  configMap: {name: {{ include "stcp-proxy.name" . }}}
- name: stcp-keys
  secret: {secretName: {{ include "stcp-proxy.secret" . }}, defaultMode: 0400}
{{- if .Values.certificate.enabled }}
- name: stcp-certificate
  secret: {secretName: {{ include "stcp-proxy.name" . }}-tls, defaultMode: 0400}
{{- end }}
{{- end }}
