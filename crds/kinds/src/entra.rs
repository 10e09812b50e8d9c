//! `spec.entra`: who the server is to Microsoft Entra ID, and whose tokens it accepts.

use kube::{KubeSchema, core::Rule};
use mcp_entra_policy::{Cloud, GroupsSource, TokenVersion, microsofts_own_pattern};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Identity of the server in Microsoft Entra ID, and the tokens that it accepts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entra {
    /// Id of the tenant: a GUID in lower case.
    #[schemars(regex(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"), length(max = 36))]
    pub tenant_id: String,
    /// Id of the server's app registration, a GUID in lower case: the audience of user tokens and the client of the
    /// on-behalf-of exchange.
    #[schemars(regex(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"), length(max = 36))]
    #[x_kube(validation = not_microsofts("!self.matches(PATTERN)"))]
    pub client_id: String,
    /// The cloud of Microsoft Entra ID; authority, Graph and the audience of the federated credential follow from it.
    #[serde(default)]
    pub cloud: Cloud,
    /// Audiences accepted besides `clientId` and `api://<clientId>`. Resources of Microsoft's own are refused.
    #[schemars(length(max = 8), inner(length(min = 1, max = 256)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(validation = not_microsofts("self.all(value, !value.matches(PATTERN))"))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub audiences: Vec<String>,
    /// Share this `clientId` and these `audiences` with other servers of the namespace that say so, too. Each of them
    /// then accepts the others' tokens: Entra puts every granted scope into a token, so scopes do not separate servers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared_client_id: bool,
    /// A user token carries at least one of these scopes of the app registration.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 120), regex(pattern = "^[A-Za-z0-9._:-]+$")))]
    #[serde(default = "default_required_scopes")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub required_scopes: Vec<String>,
    /// Client ids (`azp`) whose tokens are accepted, GUIDs in lower case. Empty: any that Entra lets.
    #[schemars(
        length(max = 64),
        inner(length(max = 36), regex(pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"))
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed_clients: Vec<String>,
    /// Versions of access tokens that are accepted. `V1` is for an app registration that other resources keep at
    /// `requestedAccessTokenVersion: 1`.
    #[schemars(length(min = 1, max = 2))]
    #[serde(default = "default_token_versions")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub token_versions: Vec<TokenVersion>,
    /// Where a user's groups are learnt: `Resolve` asks Graph where the token does not say, `InToken` takes an absent
    /// claim for no groups.
    #[serde(default)]
    pub groups: GroupsSource,
    /// Projection of the pod's service account token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub federation: Option<Federation>,
    /// Other addresses than the cloud's. Refused unless the operator's own configuration allows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
    /// CA certificates for outgoing TLS, besides the image's. Refused unless the operator's own configuration allows
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_bundle: Option<TrustBundle>,
}

/// Refuses resources of Microsoft's own, by the list that the server refuses them by at its start.
fn not_microsofts(rule: &str) -> Rule {
    Rule::new(rule.replace("PATTERN", &format!("r'{}'", microsofts_own_pattern()))).message(
        "a resource of Microsoft's own is no audience of this server, since tokens for it belong to somebody else: name the client id or App ID URI of an app registration of your own",
    )
}

fn default_required_scopes() -> Vec<String> {
    vec!["mcp.access".to_owned()]
}

fn default_token_versions() -> Vec<TokenVersion> {
    TokenVersion::by_default().into_iter().collect()
}

/// Projection of the pod's service account token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.injection != 'Webhook' || self.tokenExpirationSeconds >= 3600",
    "with injection: Webhook, tokenExpirationSeconds is at least 3600: azure-workload-identity takes no less"
))]
pub struct Federation {
    /// Component that projects the token into the pods.
    #[serde(default)]
    pub injection: Injection,
    /// A ServiceAccount of this namespace that the pods run under, if its annotation `mcp-entra.dev/allow-server` has
    /// the McpServer's name. It is never changed. Absent: the server gets one of its own.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// Life of the projected token in seconds; it is renewed at 80 % of it. With an existing ServiceAccount and
    /// `injection: Webhook`, that one's annotation decides instead.
    #[schemars(range(min = 600, max = 86400))]
    #[serde(default = "default_token_expiration_seconds")]
    pub token_expiration_seconds: i64,
}

/// A component that projects the service account token into the pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Injection {
    /// The operator, on every cluster.
    #[default]
    Operator,
    /// The webhook of azure-workload-identity, where it is installed.
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

/// Other addresses than the cloud's, both together: a token of one cloud is nothing to another's Graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// Base address of the authority: https, no path.
    #[schemars(regex(pattern = "^https://[A-Za-z0-9.-]+(:[0-9]+)?$"), length(max = 256))]
    pub authority: String,
    /// Base address of Microsoft Graph: https, no path.
    #[schemars(regex(pattern = "^https://[A-Za-z0-9.-]+(:[0-9]+)?$"), length(max = 256))]
    pub graph: String,
}

/// A ConfigMap of the same namespace with CA certificates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrustBundle {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key with the certificates in PEM.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    #[serde(default = "default_trust_bundle_key")]
    pub key: String,
}

fn default_trust_bundle_key() -> String {
    "ca.crt".to_owned()
}
