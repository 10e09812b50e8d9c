//! CA certificates from ConfigMaps that a spec names. Pure.

use mcp_entra_crds::McpServerSpec;

use crate::{
    conditions::condition::Reason,
    mcpserver::{
        resolved::ResolvedTrustBundle,
        validate::refusal::{Refusal, refuse},
    },
    objects::trust_bundle::Trust,
    runtime::options::Options,
};

/// Returns the trust bundle, if the operator's configuration allows one.
pub(super) fn trust_bundle(
    spec: &McpServerSpec,
    resolved: &ResolvedTrustBundle,
    options: &Options,
) -> Result<Option<Trust>, Refusal> {
    let Some(bundle) = &spec.entra.trust_bundle else { return Ok(None) };
    if !options.allow_trust_bundles {
        return refuse(
            Reason::TrustBundleNotAllowed,
            "spec.entra.trustBundle is not allowed; remove it, or ask the administrator of mcp-entra-operator to start it with --allow-trust-bundles",
        );
    }
    certificates("spec.entra.trustBundle", &bundle.name, &bundle.key, resolved).map(Some)
}

/// Returns the certificates in a ConfigMap's key, which `field` of the spec names.
pub(super) fn certificates(
    field: &str,
    name: &str,
    key: &str,
    resolved: &ResolvedTrustBundle,
) -> Result<Trust, Refusal> {
    let certificates = match resolved {
        ResolvedTrustBundle::Content(certificates) => certificates,
        ResolvedTrustBundle::NoKey => {
            return refuse(
                Reason::TrustBundleNotFound,
                format!("{field}: ConfigMap {name} has no key {key}; add it, or set another one in {field}.key"),
            );
        }
        ResolvedTrustBundle::NoConfigMap | ResolvedTrustBundle::Unset => {
            return refuse(
                Reason::TrustBundleNotFound,
                format!(
                    "{field}: there is no ConfigMap {name} in this namespace; create it with CA certificates in PEM under the key {key}"
                ),
            );
        }
    };
    if !certificates.contains("-----BEGIN CERTIFICATE-----") {
        return refuse(
            Reason::TrustBundleInvalid,
            format!("{field}: key {key} of ConfigMap {name} contains no certificate in PEM; add one"),
        );
    }
    Ok(Trust { config_map: name.to_owned(), key: key.to_owned(), certificates: certificates.clone() })
}
