//! Document that a server returns for `GET /status` on its admin port. It describes the current state of the pod,
//! without identities of callers. The operator polls it for its conditions.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// State of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    /// Version of the server program.
    pub version: String,
    /// Policy that the pod enforces.
    pub policy: PolicyStatus,
    /// Result of the last probe of the federated credential.
    pub federation: FederationStatus,
    /// Keys that verify tokens.
    pub keys: KeysStatus,
    /// Results of token requests for Microsoft Graph. Absent from servers of older versions.
    #[serde(default)]
    pub graph: GraphStatus,
    /// Session store. Absent if the server has no authorization server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_store: Option<SessionStoreStatus>,
    /// Backend. Absent if the server offers its built-in tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendStatus>,
}

/// Backend at the last probe of the pod. If it lists only to users, these are the lists that users got lately. Texts from the backend are shortened and contain no control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendStatus {
    /// True if the backend answered the last probe. Absent until the first probe ends.
    #[serde(default)]
    pub works: Option<bool>,
    /// Reason and next step, if the last probe failed.
    #[serde(default)]
    pub message: Option<String>,
    /// Name that the backend reports.
    #[serde(default)]
    pub name: Option<String>,
    /// Version that the backend reports.
    #[serde(default)]
    pub version: Option<String>,
    /// Version of the MCP protocol that the backend uses, a date.
    #[serde(default)]
    pub protocol: Option<String>,
    /// Digests of all tool definitions by tool name, including hidden tools.
    #[serde(default)]
    pub tools: BTreeMap<String, String>,
    /// Names of its prompts.
    #[serde(default)]
    pub prompts: BTreeSet<String>,
    /// URIs of its resources, and URI templates.
    #[serde(default)]
    pub resources: BTreeSet<String>,
    /// Tools that the server hides, since they differ from the pin or are not in it.
    #[serde(default)]
    pub hidden: BTreeSet<String>,
    /// Addresses and ports, such as `0.0.0.0:3001`, on which another program of the pod listens and which other pods
    /// can reach. Absent if this cannot be read.
    #[serde(default)]
    pub listens: Option<BTreeSet<String>>,
}

/// Session store of the server's own authorization server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionStoreStatus {
    /// True if the store answered the last probe. Absent until the first probe ends.
    #[serde(default)]
    pub works: Option<bool>,
    /// Reason and next step, if the last probe failed. Contains no session and no password.
    #[serde(default)]
    pub message: Option<String>,
}

/// Results of requests to Entra for tokens for Microsoft Graph on behalf of users.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GraphStatus {
    /// Delegated permissions that Entra last refused because they have no consent.
    #[serde(default)]
    pub missing_permissions: BTreeSet<String>,
}

/// Policy that a pod enforces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// Revision of the policy in force. Absent until a valid policy is read.
    pub revision: Option<String>,
    /// Reason why the newest document cannot be used, if it cannot.
    pub error: Option<String>,
}

/// Result of the last probe of the federated credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FederationStatus {
    /// Identity in the projected token. Absent until the token is read.
    pub identity: Option<FederatedIdentity>,
    /// True if the last exchange succeeded. Absent until the first probe ends.
    pub works: Option<bool>,
    /// Entra's error codes and the next step, if the exchange failed. Entra's own text is omitted, since it may name an
    /// account.
    pub message: Option<String>,
    /// Time at which the last probe ended, RFC 3339. Absent until the first probe ends.
    pub last_probe: Option<String>,
}

/// Federated credential that Entra needs to accept this pod's token. The values must match exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FederatedIdentity {
    /// `iss` of the service account token.
    pub issuer: String,
    /// `sub` of the service account token.
    pub subject: String,
    /// `aud` of the service account token.
    pub audience: String,
}

/// Keys that verify tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeysStatus {
    /// Number of usable keys. Without keys, every request is refused.
    pub count: usize,
    /// Seconds since the last successful fetch. Absent until the first one.
    pub age_seconds: Option<u64>,
    /// Reason why the last fetch failed, if it did.
    pub error: Option<String>,
}
