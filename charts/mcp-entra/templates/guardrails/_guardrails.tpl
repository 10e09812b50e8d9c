{{/* The user name of the operator's service account. */}}
{{- define "mcp-entra.guardrails.operator" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ .Values.serviceAccount.name }}
{{- end }}

{{/* Metadata of an object of a guardrail; the argument has root and name. */}}
{{- define "mcp-entra.guardrails.metadata" -}}
name: {{ include "mcp-entra.clusterName" .root }}-{{ .name }}
labels:
  {{- include "mcp-entra.labels" .root | nindent 2 }}
{{- end }}

{{/* What a policy does, and where. The argument has root and name; actions; everywhere, if no selector narrows it; and
     parameters, the name of its ConfigMap, if it has one. */}}
{{- define "mcp-entra.guardrails.binding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  {{- include "mcp-entra.guardrails.metadata" . | nindent 2 }}
spec:
  policyName: {{ include "mcp-entra.clusterName" .root }}-{{ .name }}
  validationActions: {{ toJson .actions }}
  {{- with .parameters }}
  paramRef:
    name: {{ include "mcp-entra.clusterName" $.root }}-{{ . }}
    namespace: {{ $.root.Release.Namespace | quote }}
    parameterNotFoundAction: Deny
  {{- end }}
  {{- $selector := deepCopy .root.Values.guardrails.namespaceSelector }}
  {{- /* Elsewhere there may be another release, with an operator and guardrails of its own. */ -}}
  {{- with .root.Values.watchNamespaces }}
  {{- $watched := dict "key" "kubernetes.io/metadata.name" "operator" "In" "values" . }}
  {{- $_ := set $selector "matchExpressions" (append (default list $selector.matchExpressions) $watched) }}
  {{- end }}
  {{- if and $selector (not .everywhere) }}
  matchResources:
    namespaceSelector:
      {{- toYaml $selector | nindent 6 }}
  {{- end }}
{{- end }}

{{/* Parameters: the argument has root, name, and data, a line an entry. Whoever may write ConfigMaps in the release's
     namespace may change them without Helm. */}}
{{- define "mcp-entra.guardrails.parameters" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "mcp-entra.guardrails.metadata" . | nindent 2 }}
  namespace: {{ .root.Release.Namespace | quote }}
data:
  {{- range $key, $lines := .data }}
  {{ $key | quote }}: {{ join "\n" $lines | quote }}
  {{- end }}
{{- end }}

{{/* Where a guardrail looks at McpServers. */}}
{{- define "mcp-entra.guardrails.on-servers" -}}
failurePolicy: Fail
matchConstraints:
  resourceRules:
  - apiGroups: [mcp-entra.dev]
    apiVersions: [v1alpha1]
    resources: [mcpservers]
    operations: [CREATE, UPDATE]
    scope: "*"
matchConditions:
# What stood there before the guardrail can be labelled, and collected, as it is.
- name: its-spec-changes
  expression: request.operation == 'CREATE' || object.spec != oldObject.spec
{{- end }}

{{/* Where a guardrail looks at the images of servers' pods: whatever bears the label by which Services find them. */}}
{{- define "mcp-entra.guardrails.on-pods" -}}
failurePolicy: Fail
matchConstraints:
  # Of the object as it was, or as it is to be: a label that is taken off in passing counts.
  objectSelector:
    matchLabels:
      app.kubernetes.io/name: mcp-entra-server
  resourceRules:
  - apiGroups: [""]
    apiVersions: [v1]
    resources: [pods, pods/ephemeralcontainers]
    operations: [CREATE, UPDATE]
    scope: "*"
  # Refused here, the operator says it in the condition Programmed, before any pod is replaced.
  - apiGroups: [apps]
    apiVersions: [v1]
    resources: [deployments]
    operations: [CREATE, UPDATE]
    scope: "*"
matchConditions:
# Pods that stood there before the guardrail can be nudged, and collected, as they are.
- name: it-is-another-pod-or-becomes-a-servers
  expression: >-
    request.operation == 'CREATE' || object.spec != oldObject.spec
    || oldObject.metadata.?labels[?'app.kubernetes.io/name'].orValue('') != 'mcp-entra-server'
variables:
- name: pod
  expression: "request.resource.resource == 'pods' ? dyn(object).spec : dyn(object).spec.template.spec"
- name: images
  expression: >-
    (variables.pod.containers
    + variables.pod.?initContainers.orValue([])
    + variables.pod.?ephemeralContainers.orValue([])).map(container, container.?image.orValue(''))
    + variables.pod.?volumes.orValue([]).filter(volume, has(volume.image)).map(volume, volume.image.?reference.orValue(''))
{{- end }}
