{{- /* Arguments of `mcp-entra-operator run`. Each value sets the option of the same name. */ -}}
{{- define "mcp-entra.arguments" -}}
{{- $arguments := list "run" "--listen=[::]:8080" (printf "--server-image=%s" (include "mcp-entra.image" (list . "server"))) }}
{{- $lists := dict
  "watch-namespace" .Values.watchNamespaces
  "allowed-host" .Values.allowedHosts
  "allowed-image" .Values.allowedImages
  "allowed-backend-image" .Values.allowedBackendImages
  "allowed-backend-resource" .Values.allowedBackendResources
  "allowed-backend-secret" .Values.allowedBackendSecrets
  "allowed-authority" .Values.allowedAuthorities
  "allowed-graph" .Values.allowedGraphs
  "allowed-ingress-annotation" .Values.allowedIngressAnnotations
  "allowed-pod-annotation" .Values.allowedPodAnnotations
  "allowed-pod-label" .Values.allowedPodLabels
  "allowed-priority-class" .Values.allowedPriorityClasses
  "trusted-proxy" .Values.trustedProxies
  "monitoring-namespace" .Values.monitoringNamespaces
}}
{{- range $option, $values := $lists }}
{{- range $values }}
{{- $arguments = append $arguments (printf "--%s=%s" $option .) }}
{{- end }}
{{- end }}
{{- $single := dict
  "pod-proxy-url" .Values.podProxyUrl
  "upgrades-at-once" .Values.upgradesAtOnce
  "roll-out-deadline-seconds" .Values.rollOutDeadlineSeconds
  "status-poll-seconds" .Values.statusPollSeconds
  "probe-interval-seconds" .Values.probeIntervalSeconds
  "release-after-seconds" .Values.releaseAfterSeconds
  "lease-duration-seconds" .Values.leaseDurationSeconds
  "log-format" .Values.logFormat
}}
{{- range $option, $value := $single }}
{{- if $value }}
{{- $arguments = append $arguments (printf "--%s=%v" $option $value) }}
{{- end }}
{{- end }}
{{- if .Values.allowTrustBundles }}
{{- $arguments = append $arguments "--allow-trust-bundles" }}
{{- end }}
{{- with .Values.podMonitors }}
{{- if .create }}
{{- $arguments = append $arguments (printf "--pod-monitors=%s" .label | trimSuffix "=") }}
{{- end }}
{{- end }}
{{- toYaml (concat $arguments .Values.extraArgs) }}
{{- end }}
