//! The trust bundle of a server.

/// CA certificates that the server trusts besides the system's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trust {
    /// Name of the ConfigMap.
    pub(crate) config_map: String,
    /// Key with the certificates.
    pub(crate) key: String,
    /// The certificates in PEM: a change restarts the pods.
    pub(crate) certificates: String,
}
