// Custom resource definitions of others, as data: the testbed reads them from the folders of these modules.
module mcp-entra.dev/tests/control-plane/definitions

go 1.26.0

require (
	github.com/cert-manager/cert-manager v1.21.2
	github.com/prometheus-operator/prometheus-operator v0.85.0
	sigs.k8s.io/gateway-api v1.6.1
)
