//! The authorization server of a server: the part of the configuration file for clients that cannot sign in to Entra
//! themselves.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
