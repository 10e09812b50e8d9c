//! The authorization server of a server: the part of the configuration file for clients that cannot sign in to Entra
//! themselves.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ConfigurationError;

/// The form of a session store's URL: TLS, a host, perhaps a port and the number of a database; no user, no password.
pub const STORE_URL_PATTERN: &str =
    r"^rediss://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[1-9][0-9]{0,4})?(/[0-9]{1,3})?$";

/// The form of a redirect URI of a web page, or of a program that listens on this machine (RFC 8252 §7.3).
pub const WEB_REDIRECT_PATTERN: &str = r#"^(https://[A-Za-z0-9.-]+(:[0-9]{1,5})?|http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?)(/[!"$-\[\]-~]*)?$"#;

/// The form of a redirect URI in a scheme of a program's own (RFC 8252 §7.1), unless it begins as
/// [`REFUSED_SCHEMES_PATTERN`] says.
pub const APP_REDIRECT_PATTERN: &str = r#"^[a-z][a-z0-9+.-]*:/[!"$-\[\]-~]*$"#;

/// Schemes that are no program's own: a browser opens or runs what they name.
pub const REFUSED_SCHEMES_PATTERN: &str =
    "^(about|blob|data|file|filesystem|ftp|http|https|javascript|vbscript|view-source|ws|wss):";

/// The form of a client's id (RFC 6749 appendix A.1, without spaces).
pub const CLIENT_ID_PATTERN: &str = "^[!-~]+$";

/// The port of a session store whose URL names none.
pub const STORE_PORT: u16 = 6379;

/// Returns true for a redirect URI that a client may have: https, this machine, or a scheme of its own; no fragment.
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

/// The authorization server between MCP clients and Entra. Absent: clients sign in to Entra directly, and to nothing
/// else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationServerConfiguration {
    /// Place where sessions and sign-ins that are under way are kept.
    pub session_store: SessionStore,
    /// Numbers of the keys that are in use. Each is a file in the folder that the program is started with.
    pub keys: KeyEpochs,
    /// Clients that may sign people in.
    #[serde(default)]
    pub client_registration: ClientRegistration,
    /// Clients that are known beforehand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<ListedClient>,
    /// Redirect URIs that any client may register, to the letter, besides those of this machine and of well-known clients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_redirects: Vec<String>,
    /// Hosts that client ID metadata documents are fetched from where a forward proxy stands between. Empty: any public
    /// host where none does, and no host where one does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub client_metadata_hosts: Vec<String>,
    /// Delegated permissions of Microsoft Graph that a sign-in asks the person's consent for, as `User.Read`. One that an
    /// administrator has to approve stops every sign-in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_consent_scopes: Vec<String>,
    /// True if the host's root metadata documents are this server's, so that its origin names this server, too.
    #[serde(default)]
    pub serves_root: bool,
}

impl AuthorizationServerConfiguration {
    /// Refuses contradictions that the types cannot exclude, naming the field. `graph_scopes` are those of the file.
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
                "write a host's name, as client.example",
            ));
        }
        match self.user_consent_scopes.iter().find(|scope| !graph_scopes.contains(scope)) {
            Some(scope) => Err(refused("authorizationServer.userConsentScopes", scope, "add it to graph.scopes, too")),
            None => Ok(()),
        }
    }
}

const CLIENT_ID: &str = "write printable ASCII characters, and each client's id once";
const REDIRECT_URI: &str = "write https, http of this machine, or a scheme of the program's own, and no fragment";

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
    /// Each number stands there once, in the order of the times, and the registration's is one of them.
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
            false => {
                Err(refused(field, &self.registration.to_string(), "list the registration's epoch among the epochs"))
            }
        }
    }
}

/// A place where sessions are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SessionStore {
    /// The memory of the one pod: a restart signs everybody out.
    Memory {},
    /// A Valkey or Redis server, which all pods share.
    Valkey(ValkeyStore),
}

/// A Valkey or Redis server. The password is a file that the program is started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValkeyStore {
    /// `rediss://host[:port][/database]`: TLS, without a user or password.
    pub url: String,
    /// The ACL user. Absent: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Prefix of this server's keys: other servers may share the database.
    pub key_prefix: String,
}

/// Numbers of keys. A key is an epoch: a random secret from which the keys of each purpose are derived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyEpochs {
    /// The epoch that registrations of clients are sealed with. It outlives all others: clients keep their ids.
    pub registration: u32,
    /// The epochs that are accepted, the newest last; at least one. The last whose time has come signs and seals.
    pub epochs: Vec<KeyEpoch>,
    /// Name of the last compromise that these keys were made after, as the compiled policy names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_compromise: Option<String>,
}

/// A key epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyEpoch {
    /// Its number, and the name of its file.
    pub number: u32,
    /// Time from which it signs and seals, in seconds since 1970: later than its key has reached every pod.
    #[serde(default)]
    pub used_from: i64,
}

/// Clients that may sign people in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientRegistration {
    /// Any: clients register themselves (RFC 7591), or publish a client ID metadata document. Each sign-in asks the person.
    #[default]
    Dynamic,
    /// Those in `clients` alone.
    Listed,
}

/// A client that is known beforehand. It is a public client: it has no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListedClient {
    /// Its `client_id`.
    pub client_id: String,
    /// Its name, for people.
    pub name: String,
    /// Its redirect URIs, each to the letter, but for the port of this machine.
    pub redirect_uris: BTreeSet<String>,
}
