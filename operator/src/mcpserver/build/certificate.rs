//! Builds the Certificate: cert-manager issues the certificate of the exposed host into a Secret.

use kube::api::DynamicObject;
use mcp_entra_crds::IssuerReference;
use serde_json::json;

use super::gateway::{exposing_metadata, object};
use crate::{
    mcpserver::validate::exposure::{Exposed, certificate_secret},
    objects::{child::ChildKind, owner::Owner},
};

pub(super) fn certificate(owner: &Owner, exposed: &Exposed, issuer: &IssuerReference) -> DynamicObject {
    let kind = ChildKind::Certificate;
    let IssuerReference { name, kind: issuer_kind, group } = issuer;
    let spec = json!({
        "secretName": certificate_secret(owner),
        "dnsNames": [exposed.host],
        "issuerRef": {"name": name, "kind": issuer_kind, "group": group},
    });
    object(exposing_metadata(owner, exposed, kind), kind, spec)
}
