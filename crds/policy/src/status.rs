//! The document that a server answers to `GET /status` on its admin port: what is so in that pod now, without
//! identities of callers. The operator polls it for its conditions.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The state of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    /// Version of the server program.
    pub version: String,
    /// The policy that is enforced.
    pub policy: PolicyStatus,
    /// The result of the last probe of the federated credential.
    pub federation: FederationStatus,
    /// The keys that tokens are verified with.
    pub keys: KeysStatus,
    /// Answers of Entra about Microsoft Graph. Servers of an older version say nothing of them.
    #[serde(default)]
    pub graph: GraphStatus,
    /// The session store. Absent where the server is no authorization server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_store: Option<SessionStoreStatus>,
    /// The backend. Absent where the server offers its built-in tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendStatus>,
}

/// The backend as the pod's last probe found it. Where it shows its lists to users alone, they are those that users were shown
/// lately. What it says of itself is cut to a length and free of control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendStatus {
    /// True if the backend answered at the last probe; absent before the first ended.
    #[serde(default)]
    pub works: Option<bool>,
    /// While it does not: the reason and what to do next.
    #[serde(default)]
    pub message: Option<String>,
    /// Its name, as it says.
    #[serde(default)]
    pub name: Option<String>,
    /// Its version, as it says.
    #[serde(default)]
    pub version: Option<String>,
    /// The revision of the protocol that it speaks, a date.
    #[serde(default)]
    pub protocol: Option<String>,
    /// Digests of the definitions of the tools that it has, by name, with those that are not offered.
    #[serde(default)]
    pub tools: BTreeMap<String, String>,
    /// Names of its prompts.
    #[serde(default)]
    pub prompts: BTreeSet<String>,
    /// URIs of its resources and the texts of its templates.
    #[serde(default)]
    pub resources: BTreeSet<String>,
    /// Tools that are not offered since they are not as the pin has them, or are not in it.
    #[serde(default)]
    pub hidden: BTreeSet<String>,
    /// Addresses and ports, as `0.0.0.0:3001`, where something other than this server listens and which others may reach.
    /// Absent where that cannot be read.
    #[serde(default)]
    pub listens: Option<BTreeSet<String>>,
}

/// The place where the sessions of the server's own authorization server are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionStoreStatus {
    /// True if the store answered at the last probe; absent before the first ended.
    #[serde(default)]
    pub works: Option<bool>,
    /// While it does not: the reason and what to do next. It names no session and no password.
    #[serde(default)]
    pub message: Option<String>,
}

/// Answers of Entra to the question for tokens for Microsoft Graph on behalf of users.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GraphStatus {
    /// The delegated permissions that were last refused because nobody has consented to them.
    #[serde(default)]
    pub missing_permissions: BTreeSet<String>,
}

/// The policy that a pod enforces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// Revision of the policy in force; absent before the first good one.
    pub revision: Option<String>,
    /// The reason why the newest document could not be used, if so.
    pub error: Option<String>,
}

/// The result of the last probe of the federated credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FederationStatus {
    /// The identity in the projected token, once it could be read.
    pub identity: Option<FederatedIdentity>,
    /// True if the last exchange worked; absent before the first probe ended.
    pub works: Option<bool>,
    /// While the exchange fails: Entra's codes and what to do next. Entra's own text may name an account, and is left
    /// out.
    pub message: Option<String>,
    /// The end of the last probe, RFC 3339; absent before the first.
    pub last_probe: Option<String>,
}

/// The federated credential as it must stand in Entra, exactly, for this pod's token to be accepted.
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

/// The keys that tokens are verified with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeysStatus {
    /// The number of usable keys; with none, nobody gets in.
    pub count: usize,
    /// Seconds since they were fetched; absent before the first.
    pub age_seconds: Option<u64>,
    /// The reason why the last fetch failed, if it did.
    pub error: Option<String>,
}
