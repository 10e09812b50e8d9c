//! Authorization server section of the configuration file, for clients that cannot sign in to Entra themselves.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ConfigurationError;

/// Pattern of a session store's URL: TLS, a host, and optionally a port and a database number. No user or password.
pub const STORE_URL_PATTERN: &str =
    r"^rediss://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[1-9][0-9]{0,4})?(/[0-9]{1,3})?$";

/// Pattern of a redirect URI of a web page, or of a program that listens on the user's machine (RFC 8252 §7.3).
pub const WEB_REDIRECT_PATTERN: &str = r#"^(https://[A-Za-z0-9.-]+(:[0-9]{1,5})?|http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?)(/[!"$-\[\]-~]*)?$"#;

/// Pattern of a redirect URI with a private-use scheme (RFC 8252 §7.1). [`REFUSED_SCHEMES_PATTERN`] lists exceptions.
pub const APP_REDIRECT_PATTERN: &str = r#"^[a-z][a-z0-9+.-]*:/[!"$-\[\]-~]*$"#;

/// Schemes that are not private to a program: browsers open or execute them, or other programs send something.
pub const REFUSED_SCHEMES_PATTERN: &str =
    "^(about|blob|data|file|filesystem|ftp|http|https|intent|javascript|mailto|sms|tel|vbscript|view-source|ws|wss):";

/// Pattern of a client id (RFC 6749 appendix A.1, without spaces).
pub const CLIENT_ID_PATTERN: &str = "^[!-~]+$";

/// Default port of a session store.
pub const STORE_PORT: u16 = 6379;

/// Returns whether a client may use the redirect URI. It must be https, http on the user's own machine, or a
/// private-use scheme, without a fragment.
pub fn is_redirect_uri(value: &str) -> bool {
    static PATTERNS: LazyLock<Option<[Regex; 3]>> = LazyLock::new(|| {
        let [web, app, refused] = [WEB_REDIRECT_PATTERN, APP_REDIRECT_PATTERN, REFUSED_SCHEMES_PATTERN]
            .map(|pattern| Regex::new(pattern).ok());
        Some([web?, app?, refused?])
    });
    PATTERNS
        .as_ref()
        .is_some_and(|[web, app, refused]| web.is_match(value) || (app.is_match(value) && !refused.is_match(value)))
}

fn is_store_url(value: &str) -> bool {
    static PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(STORE_URL_PATTERN).ok());
    PATTERN.as_ref().is_some_and(|pattern| pattern.is_match(value))
}

/// Authorization server between MCP clients and Entra. If absent, clients sign in to Entra directly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationServerConfiguration {
    /// Store of sessions and unfinished sign-ins.
    pub session_store: SessionStore,
    /// Numbers of the keys in use. Each key is a file in the folder that is an argument of the program.
    pub keys: KeyEpochs,
    /// Clients that may sign users in.
    #[serde(default)]
    pub client_registration: ClientRegistration,
    /// Clients with fixed ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<ListedClient>,
    /// Additional redirect URIs that any client may register. They must match exactly. URIs of the user's own machine
    /// and of well-known clients are always allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_redirects: Vec<String>,
    /// Hosts from which the server fetches client ID metadata documents. If empty, it fetches them from any public host,
    /// or from none if it uses a forward proxy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub client_metadata_hosts: Vec<String>,
    /// Delegated permissions of Microsoft Graph that each user is asked to consent to at sign-in, such as `User.Read`.
    /// A permission that needs an administrator's approval makes every sign-in fail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_consent_scopes: Vec<String>,
    /// Also accepts the host's origin as the name of this server in the parameter `resource` (RFC 8707). Defaults to
    /// false.
    #[serde(default)]
    pub serves_root: bool,
}

impl AuthorizationServerConfiguration {
    /// Returns an error that names the field if values contradict each other. `graph_scopes` are those of the file.
    pub(crate) fn validate(&self, graph_scopes: &[String]) -> Result<(), ConfigurationError> {
        self.session_store.validate()?;
        self.keys.validate()?;
        if self.client_registration == ClientRegistration::Listed && self.clients.is_empty() {
            return Err(ConfigurationError::Empty { field: "authorizationServer.clients" });
        }
        let mut ids = BTreeSet::new();
        for client in &self.clients {
            let is_id = !client.client_id.is_empty() && client.client_id.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_id || !ids.insert(&client.client_id) {
                return Err(refused("authorizationServer.clients.clientId", &client.client_id, CLIENT_ID));
            }
            if client.redirect_uris.is_empty() {
                return Err(ConfigurationError::Empty { field: "authorizationServer.clients.redirectUris" });
            }
            if let Some(uri) = client.redirect_uris.iter().find(|uri| !is_redirect_uri(uri)) {
                return Err(refused("authorizationServer.clients.redirectUris", uri, REDIRECT_URI));
            }
        }
        if let Some(uri) = self.allowed_redirects.iter().find(|uri| !is_redirect_uri(uri)) {
            return Err(refused("authorizationServer.allowedRedirects", uri, REDIRECT_URI));
        }
        let is_host = |host: &String| !host.is_empty() && !host.contains(['/', ':', '@', ' ', '*']);
        if let Some(host) = self.client_metadata_hosts.iter().find(|host| !is_host(host)) {
            return Err(refused(
                "authorizationServer.clientMetadataHosts",
                host,
                "write a host name such as client.example",
            ));
        }
        match self.user_consent_scopes.iter().find(|scope| !graph_scopes.contains(scope)) {
            Some(scope) => Err(refused("authorizationServer.userConsentScopes", scope, "add it to graph.scopes")),
            None => Ok(()),
        }
    }
}

const CLIENT_ID: &str = "use printable ASCII characters, and a different id for each client";
const REDIRECT_URI: &str = "use https, http on this machine, or a private-use scheme, without a fragment";

fn refused(field: &'static str, value: &str, next: &'static str) -> ConfigurationError {
    ConfigurationError::AuthorizationServer { field, value: value.to_owned(), next }
}

impl SessionStore {
    fn validate(&self) -> Result<(), ConfigurationError> {
        let Self::Valkey(ValkeyStore { url, key_prefix, .. }) = self else { return Ok(()) };
        if !is_store_url(url) {
            return Err(refused(
                "authorizationServer.sessionStore.valkey.url",
                url,
                "write rediss://host[:port][/database]",
            ));
        }
        match key_prefix.is_empty() {
            true => Err(ConfigurationError::Empty { field: "authorizationServer.sessionStore.valkey.keyPrefix" }),
            false => Ok(()),
        }
    }
}

impl KeyEpochs {
    /// Returns an error unless the numbers and times increase and the registration's epoch is in the list.
    fn validate(&self) -> Result<(), ConfigurationError> {
        let field = "authorizationServer.keys";
        if self.epochs.is_empty() {
            return Err(ConfigurationError::Empty { field });
        }
        let is_ordered =
            self.epochs.is_sorted_by(|one, next| one.number < next.number && one.used_from <= next.used_from);
        if !is_ordered {
            return Err(refused(field, "epochs", "list each once, the newest last"));
        }
        match self.epochs.iter().any(|epoch| epoch.number == self.registration) {
            true => Ok(()),
            false => Err(refused(field, &self.registration.to_string(), "add the registration's epoch to the epochs")),
        }
    }
}

/// Store of sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SessionStore {
    /// Memory of the only pod. A restart signs out all users.
    Memory {},
    /// Valkey or Redis server, which all pods share.
    Valkey(ValkeyStore),
}

/// Valkey or Redis server. An argument of the program names the file with the password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValkeyStore {
    /// URL of the primary, `rediss://host[:port][/database]`. TLS is required. No user or password.
    pub url: String,
    /// User name of the ACL user. Defaults to `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Prefix of this server's keys, since other servers may use the same database.
    pub key_prefix: String,
}

/// Numbers of key epochs. An epoch is a random secret from which the keys of each purpose are derived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyEpochs {
    /// Epoch that seals client registrations. It is kept longest, so that clients keep their ids.
    pub registration: u32,
    /// Epochs that are accepted, the newest last. At least one. The last one whose `usedFrom` has passed signs and
    /// seals.
    pub epochs: Vec<KeyEpoch>,
    /// Name of the last key compromise before these keys were created, as in the compiled policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_compromise: Option<String>,
}

/// Key epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyEpoch {
    /// Number of the epoch, and name of its file.
    pub number: u32,
    /// Time from which the epoch signs and seals, in seconds since 1970. Every pod has the key before this time.
    #[serde(default)]
    pub used_from: i64,
}

/// Clients that may sign users in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientRegistration {
    /// Any client that registers itself (RFC 7591) or publishes a client ID metadata document. Each sign-in asks the
    /// user.
    #[default]
    Dynamic,
    /// Only the clients in `clients`.
    Listed,
}

/// Client with a fixed id. It is a public client and has no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListedClient {
    /// Client id (OAuth `client_id`).
    pub client_id: String,
    /// Name of the client, which users see.
    pub name: String,
    /// Redirect URIs of the client. They must match exactly, except for the port of a URI on the user's own machine.
    pub redirect_uris: BTreeSet<String>,
}
