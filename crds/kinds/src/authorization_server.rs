//! `spec.authorizationServer`: OAuth authorization server for clients that cannot sign in to Entra themselves.

use kube::{KubeSchema, core::Rule};
use mcp_entra_policy::{
    APP_REDIRECT_PATTERN, CLIENT_ID_PATTERN, ClientRegistration, REFUSED_SCHEMES_PATTERN, STORE_URL_PATTERN,
    WEB_REDIRECT_PATTERN,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// OAuth 2.1 authorization server between MCP clients and Entra. In Entra it is a confidential client. Its only
/// credential is the service account token of the pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.clientRegistration != 'Listed' || (has(self.clients) && self.clients.size() > 0)",
    "clients must not be empty with clientRegistration: Listed"
))]
pub struct AuthorizationServer {
    /// Store of sessions and unfinished sign-ins.
    pub session_store: SessionStore,
    /// Clients that may sign users in: `Dynamic` (any client that registers itself or publishes a client ID metadata
    /// document) or `Listed` (only those in `clients`). Defaults to `Dynamic`.
    #[serde(default)]
    pub client_registration: ClientRegistration,
    /// Clients with fixed ids. They are public clients and have no secret. Required with `clientRegistration: Listed`.
    /// At most 32.
    #[schemars(length(max = 32))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["clientId".into()]))]
    pub clients: Vec<Client>,
    /// Additional redirect URIs that clients may register. They must match exactly. URIs of the user's own machine and
    /// of well-known clients are always allowed. At most 32.
    #[schemars(length(max = 32), inner(length(min = 1, max = 512)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set, validation = redirect_uris())]
    pub allowed_redirects: Vec<String>,
    /// Hosts from which the server fetches client ID metadata documents. If empty, it fetches them from any public host,
    /// or from none if it uses a forward proxy. At most 32.
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
    /// Permissions of `graph.scopes` that each user is asked to consent to at sign-in. Leave out permissions that need
    /// an administrator's approval, since they make every sign-in fail. Grant admin consent to those in Entra. At most
    /// 32.
    #[schemars(length(max = 32), inner(length(min = 1, max = 120), regex(pattern = r"^[A-Za-z]+(\.[A-Za-z-]+)+$")))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub user_consent_scopes: Vec<String>,
}

impl AuthorizationServer {
    /// Returns the CA certificates for the connection to the session store, if any are set.
    pub fn store_ca(&self) -> Option<&CaBundle> {
        self.session_store.valkey.as_ref()?.ca_bundle.as_ref()
    }
}

/// Store of sessions. Exactly one of `memory` and `valkey` must be set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.memory) != has(self.valkey)", "exactly one of memory and valkey must be set"))]
pub struct SessionStore {
    /// Memory of the pod. Requires at most one pod. A restart signs out all users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryStore>,
    /// Valkey or Redis server, which all pods share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valkey: Option<ValkeyStore>,
}

/// Memory of the pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemoryStore {}

/// Valkey or Redis server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ValkeyStore {
    /// URL of the primary, `rediss://host[:port][/database]`. TLS is required. Must not contain a user or password. The
    /// port defaults to 6379.
    #[schemars(length(max = 300), regex(pattern = STORE_URL_PATTERN))]
    pub url: String,
    /// User name of the ACL user. Defaults to `default`.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9._@-]+$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// CA certificates for this connection, in addition to those of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
    /// Secret with the password. The pods mount it. The operator never reads it.
    pub password_secret_ref: PasswordSecretReference,
}

/// Reference to a ConfigMap of this namespace with CA certificates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaBundle {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the certificates, in PEM format. Defaults to `ca.crt`.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl CaBundle {
    /// Returns the key of the certificates.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or("ca.crt")
    }
}

/// Reference to a Secret of this namespace with a password.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasswordSecretReference {
    /// Name of the Secret. Must be `<name of the McpServer>-session-store`. This name is the permission for this server
    /// to send the content to a session store.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*-session-store$")
    )]
    pub name: String,
    /// Key of the password. Defaults to `password`.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl PasswordSecretReference {
    /// Returns the key of the password.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or("password")
    }
}

/// Client with a fixed id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// Client id (OAuth `client_id`).
    #[schemars(length(min = 1, max = 256), regex(pattern = CLIENT_ID_PATTERN))]
    pub client_id: String,
    /// Name of the client, which users see.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^\S(.*\S)?$"))]
    pub name: String,
    /// Redirect URIs of the client. They must match exactly, except for the port of a URI on the user's own machine. At
    /// most 8.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 512)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = redirect_uris())]
    pub redirect_uris: Vec<String>,
}

/// Returns the rule that refuses invalid redirect URIs, with the patterns that the server uses.
fn redirect_uris() -> Rule {
    let rule = "self.all(uri, uri.matches(r'WEB') || (uri.matches(r'APP') && !uri.matches(r'REFUSED')))";
    Rule::new(
        rule.replace("WEB", WEB_REDIRECT_PATTERN)
            .replace("APP", APP_REDIRECT_PATTERN)
            .replace("REFUSED", REFUSED_SCHEMES_PATTERN),
    )
    .message("a redirect URI must be https, http on the user's own machine (localhost, 127.0.0.1, [::1]), or a private-use scheme, and must have no fragment")
}
