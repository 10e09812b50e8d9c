//! The Ingress: the MCP endpoint and its protected resource metadata (RFC 9728) on the exposed host, over TLS.

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec,
    IngressTLS, ServiceBackendPort,
};
use mcp_entra_crds::Exposure;

use super::deployment::HTTP_PORT_NAME;
use crate::{child::ChildKind, claims::Held, validate::Validated};

/// Where RFC 9728 §3.1 puts a host's metadata; a resource's path is appended to it.
const PROTECTED_RESOURCE_METADATA: &str = "/.well-known/oauth-protected-resource";

pub(super) fn ingress(server: &Validated, exposure: &Exposure, held: Held) -> Ingress {
    let metadata = server.owner.child_metadata(ChildKind::Ingress);
    let backend = IngressBackend {
        service: Some(IngressServiceBackend {
            name: ChildKind::Service.name(&server.owner.name),
            port: Some(ServiceBackendPort { name: Some(HTTP_PORT_NAME.to_owned()), number: None }),
        }),
        resource: None,
    };
    let path = |path: String, path_type: &str| HTTPIngressPath {
        path: Some(path),
        path_type: path_type.to_owned(),
        backend: backend.clone(),
    };
    let mut paths = vec![
        path(exposure.path.clone(), "Prefix"),
        path(format!("{PROTECTED_RESOURCE_METADATA}{}", exposure.path), "Exact"),
    ];
    if held.root {
        paths.push(path(PROTECTED_RESOURCE_METADATA.to_owned(), "Exact"));
    }
    Ingress {
        metadata,
        spec: Some(IngressSpec {
            ingress_class_name: exposure.ingress.class_name.clone(),
            rules: Some(vec![IngressRule {
                host: Some(exposure.host.clone()),
                http: Some(HTTPIngressRuleValue { paths }),
            }]),
            tls: Some(vec![IngressTLS {
                hosts: Some(vec![exposure.host.clone()]),
                secret_name: Some(exposure.tls.secret_name.clone()),
            }]),
            default_backend: None,
        }),
        status: None,
    }
}
