//! Builds the volumes of pods: configuration, policy, trust bundle, a backend's socket, and the keys, the session
//! store's password and the CA of an authorization server. The projected service account token is the server's only
//! credential for Entra.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EnvVar, KeyToPath, ProjectedVolumeSource, SecretProjection, SecretVolumeSource,
    ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use mcp_entra_crds::{Injection, PasswordSecretReference};
use mcp_entra_policy::{CONFIGURATION_KEY, POLICY_KEY};

use super::backend;
use crate::{
    mcpserver::{
        keys::{names::name, objects::SECRET_KEY},
        validate::{
            Validated,
            authorization_server::{SignIn, Store},
        },
    },
    objects::{
        child::ChildKind,
        config_map_edition::Mounted,
        names::{CONFIGURATION_VOLUME, POLICY_VOLUME},
        owner::Owner,
        trust_bundle::Trust,
    },
};

pub(super) const CONFIGURATION_FOLDER: &str = "/etc/mcp-entra/config";
pub(super) const POLICY_FOLDER: &str = "/etc/mcp-entra/policy";
pub(super) const TRUST_FOLDER: &str = "/etc/mcp-entra/trust";
/// The folder with a file for each key epoch, named by its number.
const KEYS_FOLDER: &str = "/etc/mcp-entra/oauth";
const PASSWORD_FOLDER: &str = "/etc/mcp-entra/session-store";
const PASSWORD_FILE: &str = "password";
const STORE_CA_FOLDER: &str = "/etc/mcp-entra/session-store-ca";
const TOKEN_FOLDER: &str = "/var/run/secrets/mcp-entra";
const TOKEN_FILE: &str = "azure-identity-token";

/// Returns the volumes of the server's container, each with the folder that it is mounted at.
pub(super) fn volumes(server: &Validated, mounted: Mounted) -> Vec<(&'static str, Volume)> {
    // One key each: the server needs nothing else of the ConfigMap.
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
    let certificates =
        |volume: &str, trust: &Trust, folder| config_map(volume, trust.config_map.clone(), &trust.key, folder);
    volumes.extend(server.trust.as_ref().map(|trust| certificates("trust", trust, TRUST_FOLDER)));
    volumes.extend(server.backend.as_ref().and_then(backend::socket_volume));
    let Some(sign_in) = &server.sign_in else { return volumes };
    volumes.push((KEYS_FOLDER, keys(&server.owner, &sign_in.epochs)));
    if let Store::Valkey { password: reference, .. } = &sign_in.store {
        volumes.push((PASSWORD_FOLDER, password(reference)));
    }
    volumes.extend(sign_in.store_ca().map(|ca| certificates("session-store-ca", ca, STORE_CA_FOLDER)));
    volumes
}

/// Returns the volume with the keys of an authorization server. Each Secret is a source, so one volume contains them
/// all.
fn keys(owner: &Owner, epochs: &[u32]) -> Volume {
    let source = |number: &u32| VolumeProjection {
        secret: Some(SecretProjection {
            name: name(owner, *number),
            items: Some(vec![KeyToPath { key: SECRET_KEY.to_owned(), path: number.to_string(), mode: None }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name: "oauth".to_owned(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(epochs.iter().map(source).collect()),
            ..ProjectedVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// Returns the volume with the password of the session store.
fn password(reference: &PasswordSecretReference) -> Volume {
    let item = KeyToPath { key: reference.key().to_owned(), path: PASSWORD_FILE.to_owned(), mode: None };
    Volume {
        name: "session-store".to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(reference.name.clone()),
            items: Some(vec![item]),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// Returns the variables with the file paths of an authorization server.
pub(super) fn sign_in_variables(sign_in: &SignIn) -> Vec<EnvVar> {
    let variable = |name: &str, value: String| EnvVar { name: name.to_owned(), value: Some(value), value_from: None };
    let mut variables = vec![variable("MCP_ENTRA_OAUTH_KEYS", KEYS_FOLDER.to_owned())];
    if matches!(sign_in.store, Store::Valkey { .. }) {
        variables.push(variable("MCP_ENTRA_SESSION_STORE_PASSWORD", format!("{PASSWORD_FOLDER}/{PASSWORD_FILE}")));
    }
    let ca = sign_in.store_ca();
    variables.extend(ca.map(|ca| variable("MCP_ENTRA_SESSION_STORE_CA", format!("{STORE_CA_FOLDER}/{}", ca.key))));
    variables
}

/// Returns true if the operator projects the token, not azure-workload-identity's webhook.
pub(super) fn projects_token(server: &Validated) -> bool {
    server.workload.injection == Injection::Operator
}

/// Returns the path of the projected token in the container.
pub(super) fn token_path() -> String {
    format!("{TOKEN_FOLDER}/{TOKEN_FILE}")
}

/// Returns the volume with the projected token. Its name differs from that of azure-workload-identity's volume.
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
