{{- /* Fails if no host is allowed while McpServers are exposed. Rendering without a cluster cannot check this. The operator
checks it at its start, too. */ -}}
{{- define "mcp-entra.hostsInUse" -}}
{{- if and (not .Values.allowedHosts) (.Capabilities.APIVersions.Has "mcp-entra.dev/v1alpha1/McpServer") }}
{{- $hosts := list }}
{{- $servers := list }}
{{- range $namespace := .Values.watchNamespaces | default (list "") }}
{{- range (lookup "mcp-entra.dev/v1alpha1" "McpServer" $namespace "").items }}
{{- $host := dig "spec" "exposure" "host" "" . }}
{{- if and $host (dig "status" "url" "" .) }}
{{- $hosts = append $hosts $host }}
{{- $servers = append $servers (printf "%s (%s/%s)" $host .metadata.namespace .metadata.name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if $servers }}
{{- fail (printf "McpServers are exposed, but no host is allowed: %s. Nothing was changed. Allow these hosts with the value allowedHosts: %s, or remove spec.exposure from these servers; \"*\" allows every host" ($servers | sortAlpha | join ", ") ($hosts | uniq | sortAlpha | toJson)) }}
{{- end }}
{{- end }}
{{- end }}
