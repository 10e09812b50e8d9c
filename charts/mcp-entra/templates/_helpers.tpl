{{- /* Name of all namespaced objects, and prefix of the cluster roles. The leader election lease has the same name. It does
not depend on the release name. */ -}}
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

{{- /* Labels of the chart and additional labels. The chart's labels take precedence. Arguments: the chart's context, and the
additional labels. */ -}}
{{- define "mcp-entra.labelsWith" -}}
{{- merge (include "mcp-entra.labels" (index . 0) | fromYaml) (default dict (index . 1)) | toYaml }}
{{- end }}

{{- /* Reference to an image. Arguments: the chart's context, and the key below `image`. */ -}}
{{- define "mcp-entra.image" -}}
{{- $context := index . 0 }}
{{- $image := index $context.Values.image (index . 1) }}
{{- $registry := required "image.registry is not set. No images are published: push your own build of mcp-entra-operator and mcp-entra-server to your registry, and set it with --set image.registry=registry.example.com/platform" $context.Values.image.registry }}
{{- $repository := printf "%s/%s" $registry $image.repository }}
{{- if $image.digest }}
{{- printf "%s@%s" $repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default $context.Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{- /* Name of the cluster roles. It is fixed if the release watches all namespaces, so that Helm refuses a second such
release. Releases that watch some namespaces have different names. */ -}}
{{- define "mcp-entra.clusterName" -}}
{{- if .Values.watchNamespaces }}
{{- printf "%s-in-%s" (include "mcp-entra.name" .) .Release.Namespace }}
{{- else }}
{{- include "mcp-entra.name" . }}
{{- end }}
{{- end }}

{{- /* Security context of the pods of the operator's image, by the restricted Pod Security Standard. */ -}}
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
