{{- /* The name of everything namespaced, and what marks the roles of the cluster as this release's. The lease that the
operator elects its leader by has it too, whatever the release is called. */ -}}
{{- define "mcp-entra.name" -}}mcp-entra-operator{{- end }}

{{- define "mcp-entra.selector" -}}
app.kubernetes.io/name: {{ include "mcp-entra.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "mcp-entra.labels" -}}
{{ include "mcp-entra.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: mcp-entra
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* The chart's labels and further ones, of which the chart's win. Takes the chart's context, and the further labels. */ -}}
{{- define "mcp-entra.labelsWith" -}}
{{- merge (include "mcp-entra.labels" (index . 0) | fromYaml) (default dict (index . 1)) | toYaml }}
{{- end }}

{{- /* A reference to an image. Takes the chart's context, and which of `image`. */ -}}
{{- define "mcp-entra.image" -}}
{{- $context := index . 0 }}
{{- $image := index $context.Values.image (index . 1) }}
{{- $registry := required "image.registry is not set. No images are published: push your own build of mcp-entra-operator and mcp-entra-server to a registry of yours, and name it with --set image.registry=registry.example.com/platform" $context.Values.image.registry }}
{{- $repository := printf "%s/%s" $registry $image.repository }}
{{- if $image.digest }}
{{- printf "%s@%s" $repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default $context.Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{- /* Rights of the cluster are one release's where it watches everywhere: Helm refuses a second, which would write what
the first writes. Releases that watch some namespaces have theirs beside each other. */ -}}
{{- define "mcp-entra.clusterName" -}}
{{- if .Values.watchNamespaces }}
{{- printf "%s-in-%s" (include "mcp-entra.name" .) .Release.Namespace }}
{{- else }}
{{- include "mcp-entra.name" . }}
{{- end }}
{{- end }}

{{- /* What every container of the operator's image runs as: the restricted Pod Security Standard, and a read-only root. */ -}}
{{- define "mcp-entra.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "mcp-entra.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}
