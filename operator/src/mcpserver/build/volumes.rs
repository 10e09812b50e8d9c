//! The volumes of the pods: the configuration, the policy, the trust bundle, and the projected service account token that is
//! the server's only credential to Entra.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, KeyToPath, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use mcp_entra_crds::Injection;
use mcp_entra_policy::{CONFIGURATION_KEY, POLICY_KEY};

use crate::{
    mcpserver::validate::Validated,
    objects::{
        child::ChildKind,
        config_map_edition::Mounted,
        names::{CONFIGURATION_VOLUME, POLICY_VOLUME},
        trust_bundle::Trust,
    },
};

pub(super) const CONFIGURATION_FOLDER: &str = "/etc/mcp-entra/config";
pub(super) const POLICY_FOLDER: &str = "/etc/mcp-entra/policy";
pub(super) const TRUST_FOLDER: &str = "/etc/mcp-entra/trust";
const TOKEN_FOLDER: &str = "/var/run/secrets/mcp-entra";
const TOKEN_FILE: &str = "azure-identity-token";

/// Returns the volumes of the pods, each with the folder that it is mounted at.
pub(super) fn volumes(server: &Validated, mounted: Mounted) -> Vec<(&'static str, Volume)> {
    // One key each: the server needs nothing else of a ConfigMap.
    let config_map = |volume: &str, name: String, key: &str, folder: &'static str| {
        let source = ConfigMapVolumeSource {
            name,
            items: Some(vec![KeyToPath { key: key.to_owned(), path: key.to_owned(), mode: None }]),
            ..ConfigMapVolumeSource::default()
        };
        (folder, Volume { name: volume.to_owned(), config_map: Some(source), ..Volume::default() })
    };
    let owner = &server.owner.name;
    let mut volumes = vec![
        config_map(
            CONFIGURATION_VOLUME,
            mounted.name(ChildKind::Configuration, owner),
            CONFIGURATION_KEY,
            CONFIGURATION_FOLDER,
        ),
        config_map(POLICY_VOLUME, mounted.name(ChildKind::Policy, owner), POLICY_KEY, POLICY_FOLDER),
    ];
    if projects_token(server) {
        volumes.push((TOKEN_FOLDER, projected_token(server)));
    }
    let trust = |trust: &Trust| config_map("trust", trust.config_map.clone(), &trust.key, TRUST_FOLDER);
    volumes.extend(server.trust.as_ref().map(trust));
    volumes
}

/// Returns true if the operator has the token projected, and not azure-workload-identity's webhook.
pub(super) fn projects_token(server: &Validated) -> bool {
    server.workload.injection == Injection::Operator
}

/// The path of the projected token in the container.
pub(super) fn token_path() -> String {
    format!("{TOKEN_FOLDER}/{TOKEN_FILE}")
}

/// The volume with the projected token. Its name differs from that of the azure-workload-identity webhook's volume.
fn projected_token(server: &Validated) -> Volume {
    let token = ServiceAccountTokenProjection {
        audience: Some(server.audience.to_owned()),
        expiration_seconds: Some(server.workload.token_expiration_seconds),
        path: TOKEN_FILE.to_owned(),
    };
    Volume {
        name: "mcp-entra-identity".to_owned(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(vec![VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() }]),
            ..ProjectedVolumeSource::default()
        }),
        ..Volume::default()
    }
}
