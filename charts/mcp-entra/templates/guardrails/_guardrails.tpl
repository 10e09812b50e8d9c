{{/* User name of the operator's ServiceAccount. */}}
{{- define "mcp-entra.guardrails.operator" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ .Values.serviceAccount.name }}
{{- end }}

{{/* Metadata of an object of a guardrail. Arguments: root, name. */}}
{{- define "mcp-entra.guardrails.metadata" -}}
name: {{ include "mcp-entra.clusterName" .root }}-{{ .name }}
labels:
  {{- include "mcp-entra.labels" .root | nindent 2 }}
{{- end }}

{{/* Binding of a policy. Arguments: root, name and actions; everywhere, if no selector limits it; parameters, the name of its
     ConfigMap, if it has one. */}}
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
  {{- /* Other namespaces may have another release, with its own operator and guardrails. */ -}}
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

{{/* ConfigMap with parameters. Arguments: root, name, and data with one line per entry. Everybody who may write ConfigMaps in
     the release's namespace can change them without Helm. */}}
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

{{/* Match rules of a guardrail for McpServers. */}}
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
# Existing objects can still be labelled and garbage collected.
- name: its-spec-changes
  expression: request.operation == 'CREATE' || object.spec != oldObject.spec
{{- end }}

{{/* Match rules of a guardrail for images of servers' pods: all pods with the label that Services select. */}}
{{- define "mcp-entra.guardrails.on-pods" -}}
failurePolicy: Fail
matchConstraints:
  # Matches the old or the new object, so that removing the label does not bypass the policy.
  objectSelector:
    matchLabels:
      app.kubernetes.io/name: mcp-entra-server
  resourceRules:
  - apiGroups: [""]
    apiVersions: [v1]
    resources: [pods, pods/ephemeralcontainers]
    operations: [CREATE, UPDATE]
    scope: "*"
  # Included so that the condition Programmed reports the refusal before any pod is replaced.
  - apiGroups: [apps]
    apiVersions: [v1]
    resources: [deployments]
    operations: [CREATE, UPDATE]
    scope: "*"
matchConditions:
# Existing pods can still be annotated and garbage collected.
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
