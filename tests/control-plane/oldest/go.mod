// The oldest Kubernetes that is supported, as data: the testbed reads its OpenAPI documents from this module's folder. It is not built.
module mcp-entra.dev/tests/control-plane/oldest

go 1.26.0

require k8s.io/kubernetes v1.33.13
