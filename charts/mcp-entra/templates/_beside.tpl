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
{{- else if $.Values.watchNamespaces }}
{{- $theirs := include "mcp-entra.hostsOf" $namespace | fromJsonArray }}
{{- range $own := $.Values.allowedHosts }}
{{- range $their := $theirs }}
{{- if include "mcp-entra.hostsOverlap" (list $own $their) }}
{{- fail (printf "allowedHosts: %s overlaps %s of release %s in namespace %s, and neither operator sees what the other's servers hold: give each release hosts of its own" $own $their $release $namespace) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The hosts that the operator in a namespace allows, by its command line. */ -}}
{{- define "mcp-entra.hostsOf" -}}
{{- $hosts := list }}
{{- $deployment := lookup "apps/v1" "Deployment" . (include "mcp-entra.name" .) }}
{{- range dig "spec" "template" "spec" "containers" list $deployment }}
{{- range .args }}
{{- if hasPrefix "--allowed-host=" . }}
{{- $hosts = append $hosts (trimPrefix "--allowed-host=" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $hosts }}
{{- end }}

{{- /* Something, if a host matches both patterns. */ -}}
{{- define "mcp-entra.hostsOverlap" -}}
{{- $one := trimPrefix "*" (index . 0) }}
{{- $other := trimPrefix "*" (index . 1) }}
{{- $oneIsExact := eq $one (index . 0) }}
{{- $otherIsExact := eq $other (index . 1) }}
{{- if or (eq $one $other) (and (not $oneIsExact) (hasSuffix $one $other)) (and (not $otherIsExact) (hasSuffix $other $one)) }}true{{ end }}
{{- end }}
