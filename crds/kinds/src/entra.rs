//! `spec.entra`: identity of the server in Microsoft Entra ID, and the tokens that it accepts.

use kube::{KubeSchema, core::Rule};
use mcp_entra_policy::{Cloud, GroupsSource, TokenVersion, microsofts_own_pattern};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Identity of the server in Microsoft Entra ID, and the tokens that it accepts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entra {
    /// Id of the tenant in Microsoft Entra ID. Must be a GUID in lower case.
    #[schemars(regex(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"), length(max = 36))]
    pub tenant_id: String,
    /// Client id of the server's app registration. It is the audience of user tokens and the client in the on-behalf-of
    /// exchange. Must be a GUID in lower case, and not an application of Microsoft.
    #[schemars(regex(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"), length(max = 36))]
    #[x_kube(validation = not_microsofts("!self.matches(PATTERN)"))]
    pub client_id: String,
    /// Cloud of Microsoft Entra ID: `Public` (global, including GCC), `USGov` (US Government L4), `USGovDoD` (US
    /// Government L5) or `China` (operated by 21Vianet). It sets the addresses of Entra and Microsoft Graph, and the
    /// audience of the federated credential. Defaults to `Public`.
    #[serde(default)]
    pub cloud: Cloud,
    /// Additional audiences that the server accepts in tokens. `clientId` and `api://<clientId>` are always accepted.
    /// Must not be a resource of Microsoft, such as `https://graph.microsoft.com`. At most 8.
    #[schemars(length(max = 8), inner(length(min = 1, max = 256)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(validation = not_microsofts("self.all(value, !value.matches(PATTERN))"))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub audiences: Vec<String>,
    /// Allows other servers of the namespace to use the same `clientId` and `audiences`, if they also set this field to
    /// true. Each server then accepts the tokens of the others. Scopes do not separate such servers, since Entra puts
    /// every granted scope into each token. Defaults to false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared_client_id: bool,
    /// Scopes of the app registration. A user token must contain at least one of them. Defaults to `mcp.access`.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 120), regex(pattern = "^[A-Za-z0-9._:-]+$")))]
    #[serde(default = "default_required_scopes")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub required_scopes: Vec<String>,
    /// Client ids (claim `azp` or `appid`) of the applications whose tokens are accepted. Must be GUIDs in lower case.
    /// If empty, every client that Entra issues a token for is accepted. At most 64.
    #[schemars(
        length(max = 64),
        inner(length(max = 36), regex(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"))
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed_clients: Vec<String>,
    /// Versions of access tokens that are accepted: `V1`, `V2` or both. `V1` is for an app registration with
    /// `requestedAccessTokenVersion: 1`. Defaults to `V2`.
    #[schemars(length(min = 1, max = 2))]
    #[serde(default = "default_token_versions")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub token_versions: Vec<TokenVersion>,
    /// Source of a user's groups. `Resolve` asks Microsoft Graph if the token does not list the groups. `InToken` uses
    /// the token alone, and an absent claim means no groups. Defaults to `Resolve`.
    #[serde(default)]
    pub groups: GroupsSource,
    /// Projection of the service account token into the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub federation: Option<Federation>,
    /// Addresses of Entra and Microsoft Graph that replace those of `cloud`. The operator's configuration must allow
    /// them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
    /// CA certificates for outgoing TLS connections, in addition to those of the image. The operator's configuration
    /// must allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_bundle: Option<TrustBundle>,
}

/// Returns the rule that refuses resources of Microsoft, with the pattern that the server uses at its start.
fn not_microsofts(rule: &str) -> Rule {
    Rule::new(rule.replace("PATTERN", &format!("r'{}'", microsofts_own_pattern()))).message(
        "a resource of Microsoft must not be an audience of this server, since its tokens are not issued for this server; use the client id or App ID URI of your own app registration",
    )
}

fn default_required_scopes() -> Vec<String> {
    vec!["mcp.access".to_owned()]
}

fn default_token_versions() -> Vec<TokenVersion> {
    TokenVersion::by_default().into_iter().collect()
}

/// Projection of the service account token into the pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.injection != 'Webhook' || self.tokenExpirationSeconds >= 3600",
    "tokenExpirationSeconds must be at least 3600 with injection: Webhook, the minimum of azure-workload-identity"
))]
pub struct Federation {
    /// Component that projects the token into the pods: `Operator`, or `Webhook` for the webhook of
    /// azure-workload-identity. Defaults to `Operator`.
    #[serde(default)]
    pub injection: Injection,
    /// Name of an existing ServiceAccount in this namespace for the pods. Its annotation `mcp-entra.dev/allow-server`
    /// must be the name of the McpServer. The operator never changes it. If absent, the operator creates a
    /// ServiceAccount.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// Lifetime of the projected token in seconds. Kubernetes renews the token after 80 % of it. Must be between 600
    /// and 86400, and at least 3600 with `injection: Webhook`. An annotation of an existing ServiceAccount takes
    /// precedence with `injection: Webhook`. Defaults to 3600.
    #[schemars(range(min = 600, max = 86400))]
    #[serde(default = "default_token_expiration_seconds")]
    pub token_expiration_seconds: i64,
}

/// Component that projects the service account token into the pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Injection {
    /// The operator. Works on every cluster.
    #[default]
    Operator,
    /// The webhook of azure-workload-identity, which must be installed.
    Webhook,
}

impl Default for Federation {
    fn default() -> Self {
        Self {
            injection: Injection::default(),
            service_account_name: None,
            token_expiration_seconds: default_token_expiration_seconds(),
        }
    }
}

fn default_token_expiration_seconds() -> i64 {
    3600
}

/// Addresses that replace those of the cloud. Both are required, since a token of one cloud is not valid in another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// Base address of Entra. Must be an https URL without a path.
    #[schemars(regex(pattern = "^https://[A-Za-z0-9.-]+(:[0-9]+)?$"), length(max = 256))]
    pub authority: String,
    /// Base address of Microsoft Graph. Must be an https URL without a path.
    #[schemars(regex(pattern = "^https://[A-Za-z0-9.-]+(:[0-9]+)?$"), length(max = 256))]
    pub graph: String,
}

/// Reference to a ConfigMap of this namespace with CA certificates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrustBundle {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the certificates, in PEM format. Defaults to `ca.crt`.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    #[serde(default = "default_trust_bundle_key")]
    pub key: String,
}

fn default_trust_bundle_key() -> String {
    "ca.crt".to_owned()
}
