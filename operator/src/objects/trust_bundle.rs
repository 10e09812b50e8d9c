//! The trust bundle of a server.

/// CA certificates that the server trusts in addition to the system's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trust {
    /// The name of the ConfigMap.
    pub(crate) config_map: String,
    /// The key with the certificates.
    pub(crate) key: String,
    /// The certificates in PEM. A change restarts the pods.
    pub(crate) certificates: String,
}
