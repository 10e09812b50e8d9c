{{- /* Refuses a release beside one that watches the same: two operators would write each other's objects. What Helm
refuses by itself, since both would have the same role: two that watch everything, or the same namespace. */ -}}
{{- define "mcp-entra.besideOthers" -}}
{{- $everywhere := include "mcp-entra.name" . }}
{{- range (lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" "").items }}
{{- $annotations := .metadata.annotations | default dict }}
{{- $release := get $annotations "meta.helm.sh/release-name" }}
{{- $namespace := get $annotations "meta.helm.sh/release-namespace" }}
{{- $isOperators := or (eq .metadata.name $everywhere) (hasPrefix (printf "%s-in-" $everywhere) .metadata.name) }}
{{- $isOurs := and (eq $release $.Release.Name) (eq $namespace $.Release.Namespace) }}
{{- if and $isOperators $release (not $isOurs) }}
{{- if and $.Values.watchNamespaces (eq .metadata.name $everywhere) }}
{{- fail (printf "release %s of namespace %s watches every namespace already: leave these to it, or give it watchNamespaces" $release $namespace) }}
{{- else if and (not $.Values.watchNamespaces) (ne .metadata.name $everywhere) }}
{{- fail (printf "release %s of namespace %s watches some namespaces already: uninstall it, or set watchNamespaces to others" $release $namespace) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
