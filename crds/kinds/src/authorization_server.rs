//! `spec.authorizationServer`: sign-in for clients that cannot sign in to Entra themselves.

use kube::{KubeSchema, core::Rule};
use mcp_entra_policy::{
    APP_REDIRECT_PATTERN, CLIENT_ID_PATTERN, ClientRegistration, REFUSED_SCHEMES_PATTERN, STORE_URL_PATTERN,
    WEB_REDIRECT_PATTERN,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An OAuth 2.1 authorization server between MCP clients and Entra. To Entra it is a confidential client whose only
/// credential is the pods' service account token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.clientRegistration != 'Listed' || (has(self.clients) && self.clients.size() > 0)",
    "with clientRegistration: Listed, clients names those that may sign people in"
))]
pub struct AuthorizationServer {
    /// Place where sessions and sign-ins that are under way are kept.
    pub session_store: SessionStore,
    /// Clients that may sign people in: any, which register themselves, or those in `clients` alone.
    #[serde(default)]
    pub client_registration: ClientRegistration,
    /// Clients that are known beforehand. They are public clients: none has a secret.
    #[schemars(length(max = 32))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["clientId".into()]))]
    pub clients: Vec<Client>,
    /// Redirect URIs that any client may register, to the letter, besides those of the person's machine and of
    /// well-known clients.
    #[schemars(length(max = 32), inner(length(min = 1, max = 512)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set, validation = redirect_uris())]
    pub allowed_redirects: Vec<String>,
    /// Hosts that client ID metadata documents are fetched from where the pods reach the internet by a forward proxy.
    /// Empty: any public host without a proxy, and none with one.
    #[schemars(
        length(max = 32),
        inner(
            length(min = 1, max = 253),
            regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
        )
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub client_metadata_hosts: Vec<String>,
    /// Permissions of `graph.scopes` that a sign-in asks the person to consent to. One that only an administrator may
    /// approve stops every sign-in: such permissions get admin consent in Entra instead.
    #[schemars(length(max = 32), inner(length(min = 1, max = 120), regex(pattern = r"^[A-Za-z]+(\.[A-Za-z-]+)+$")))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub user_consent_scopes: Vec<String>,
}

impl AuthorizationServer {
    /// The CA certificates of the connection to the session store, if it names some.
    pub fn store_ca(&self) -> Option<&CaBundle> {
        self.session_store.valkey.as_ref()?.ca_bundle.as_ref()
    }
}

/// A place where sessions are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.memory) != has(self.valkey)", "exactly one of memory and valkey"))]
pub struct SessionStore {
    /// The memory of the pod, of which there is one then: a restart signs everybody out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryStore>,
    /// A Valkey or Redis server, which all pods share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valkey: Option<ValkeyStore>,
}

/// The memory of the pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemoryStore {}

/// A Valkey or Redis server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ValkeyStore {
    /// URL of the primary, `rediss://host[:port][/database]`: TLS, without a user or a password. Port 6379 if none is
    /// named.
    #[schemars(length(max = 300), regex(pattern = STORE_URL_PATTERN))]
    pub url: String,
    /// The ACL user. Absent: `default`.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9._@-]+$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// CA certificates for this connection, besides the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
    /// The password. The pods mount it; the operator never reads it.
    pub password_secret_ref: PasswordSecretReference,
}

/// A ConfigMap of the same namespace with CA certificates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaBundle {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key with the certificates in PEM. Absent: `ca.crt`.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl CaBundle {
    /// The key with the certificates.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or("ca.crt")
    }
}

/// A Secret of the same namespace with a password.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasswordSecretReference {
    /// Name of the Secret: the McpServer's name and `-session-store`. By that name whoever makes it says that this server
    /// may send its content to a session store.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*-session-store$")
    )]
    pub name: String,
    /// Key with the password. Absent: `password`.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl PasswordSecretReference {
    /// The key with the password.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or("password")
    }
}

/// A client that is known beforehand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// Its `client_id`.
    #[schemars(length(min = 1, max = 256), regex(pattern = CLIENT_ID_PATTERN))]
    pub client_id: String,
    /// Its name, as people are shown it.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^\S(.*\S)?$"))]
    pub name: String,
    /// Its redirect URIs, each to the letter, but for the port of the person's machine.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 512)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = redirect_uris())]
    pub redirect_uris: Vec<String>,
}

/// Refuses what is no redirect URI by the patterns that the server refuses it by.
fn redirect_uris() -> Rule {
    let rule = "self.all(uri, uri.matches(r'WEB') || (uri.matches(r'APP') && !uri.matches(r'REFUSED')))";
    Rule::new(
        rule.replace("WEB", WEB_REDIRECT_PATTERN)
            .replace("APP", APP_REDIRECT_PATTERN)
            .replace("REFUSED", REFUSED_SCHEMES_PATTERN),
    )
    .message("a redirect URI is https, http of the person's own machine (localhost, 127.0.0.1, [::1]), or in a scheme of a program's own, and has no fragment")
}
