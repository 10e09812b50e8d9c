{{- /* Fails if another release watches the same namespaces, since two operators would overwrite each other's objects. Helm
itself refuses two releases with the same scope, since their roles have the same name. */ -}}
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
{{- fail (printf "release %s of namespace %s already watches every namespace: use that release, or set its watchNamespaces" $release $namespace) }}
{{- else if and (not $.Values.watchNamespaces) (ne .metadata.name $everywhere) }}
{{- fail (printf "release %s of namespace %s already watches some namespaces: uninstall it, or set watchNamespaces to other namespaces" $release $namespace) }}
{{- else if $.Values.watchNamespaces }}
{{- $theirs := include "mcp-entra.hostsOf" $namespace | fromJsonArray }}
{{- range $own := $.Values.allowedHosts }}
{{- range $their := $theirs }}
{{- if include "mcp-entra.hostsOverlap" (list $own $their) }}
{{- fail (printf "allowedHosts: %s overlaps %s of release %s in namespace %s, and neither operator sees the hosts of the other's servers: set different hosts for each release" $own $their $release $namespace) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Allowed hosts of the operator in a namespace, from its arguments. */ -}}
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

{{- /* Returns a non-empty string if a host can match both patterns. */ -}}
{{- define "mcp-entra.hostsOverlap" -}}
{{- $one := trimPrefix "*" (index . 0) }}
{{- $other := trimPrefix "*" (index . 1) }}
{{- $oneIsExact := eq $one (index . 0) }}
{{- $otherIsExact := eq $other (index . 1) }}
{{- if or (eq $one $other) (and (not $oneIsExact) (hasSuffix $one $other)) (and (not $otherIsExact) (hasSuffix $other $one)) }}true{{ end }}
{{- end }}
