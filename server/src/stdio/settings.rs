//! Settings of local mode: validated arguments, bounded by the policy of the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::store::StoreKind;

/// Settings of local mode.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The tenant: a GUID or a domain, in lower case; never `common`, `organizations` or `consumers`.
    pub tenant: String,
    /// The app registration: a GUID in lower case.
    pub client_id: String,
    /// Entra's address without a trailing slash, as `https://login.microsoftonline.com`.
    pub authority: String,
    /// Graph's address without a trailing slash, as `https://graph.microsoft.com`.
    pub graph_url: String,
    /// Delegated permissions of Graph to ask for, by name.
    pub scopes: BTreeSet<String>,
    /// Tools to offer, by name: all that only read, and those that write and were allowed.
    pub tools: BTreeSet<String>,
    /// Further names of tools, each with the tool that it stands for.
    pub aliases: BTreeMap<String, String>,
    /// The place in which tokens are kept.
    pub store: StoreKind,
    /// True if the person signs in by a device code, on whatever device has a browser.
    pub device_code: bool,
    /// CA certificates (PEM) to trust besides the system's.
    pub trust_bundle: Option<PathBuf>,
    /// The file that logs go to; absent: standard error.
    pub log_file: Option<PathBuf>,
    /// The file that audit lines go to; absent: standard error.
    pub audit_file: Option<PathBuf>,
}
