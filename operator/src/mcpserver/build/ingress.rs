//! Builds the Ingress: the published paths on the exposed host, with TLS.

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec,
    IngressTLS, ServiceBackendPort,
};

use super::{
    container::HTTP_PORT_NAME,
    gateway::exposing_metadata,
    paths::{Published, published},
};
use crate::{
    mcpserver::validate::exposure::{Exposed, IngressWay},
    objects::{child::ChildKind, owner::Owner},
    ownership::Held,
};

pub(super) fn ingress(owner: &Owner, exposed: &Exposed, held: &Held, way: &IngressWay) -> Ingress {
    let IngressWay { class_name, annotations, secret_name } = way;
    let mut metadata = exposing_metadata(owner, exposed, ChildKind::Ingress);
    metadata.annotations.get_or_insert_default().extend(annotations.clone());
    let backend = IngressBackend {
        service: Some(IngressServiceBackend {
            name: ChildKind::Service.name(&owner.name),
            port: Some(ServiceBackendPort { name: Some(HTTP_PORT_NAME.to_owned()), number: None }),
        }),
        resource: None,
    };
    let path = |published: Published| {
        let (path, path_type) = match published {
            Published::Below(path) => (path, "Prefix"),
            Published::Exactly(path) => (path, "Exact"),
        };
        let path_type = if is_plain(&path) { path_type } else { "ImplementationSpecific" };
        HTTPIngressPath { path: Some(path), path_type: path_type.to_owned(), backend: backend.clone() }
    };
    Ingress {
        metadata,
        spec: Some(IngressSpec {
            ingress_class_name: class_name.clone(),
            rules: Some(vec![IngressRule {
                host: Some(exposed.host.clone()),
                http: Some(HTTPIngressRuleValue { paths: published(exposed, held).into_iter().map(path).collect() }),
            }]),
            tls: Some(vec![IngressTLS {
                hosts: Some(vec![exposed.host.clone()]),
                secret_name: Some(secret_name.clone()),
            }]),
            default_backend: None,
        }),
        status: None,
    }
}

/// Returns true if ingress-nginx accepts the path with type `Exact` or `Prefix`. By default, versions since 1.12 accept
/// only these characters, and their webhook rejects the whole Ingress otherwise.
fn is_plain(path: &str) -> bool {
    path.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'-'))
}
