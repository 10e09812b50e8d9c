//! Paths that a server publishes on its host, for all kinds of routes.

use crate::{mcpserver::validate::exposure::Exposed, ownership::Held};

/// The path of a host's metadata by RFC 9728 §3.1. The path of a resource is appended to it.
const PROTECTED_RESOURCE_METADATA: &str = "/.well-known/oauth-protected-resource";

/// The path of an issuer's metadata by RFC 8414 §3.1. The path of the issuer is appended to it.
const AUTHORIZATION_SERVER_METADATA: &str = "/.well-known/oauth-authorization-server";

/// A path on the host.
pub(super) enum Published {
    /// The path and everything below it.
    Below(String),
    /// Only the path itself.
    Exactly(String),
}

/// Returns the MCP endpoint, the endpoints of an authorization server below it, and the metadata of both. The oldest
/// server of a host also publishes the metadata at its root.
pub(super) fn published(exposed: &Exposed, held: &Held) -> Vec<Published> {
    let mut paths = vec![
        Published::Below(exposed.path.clone()),
        Published::Exactly(format!("{PROTECTED_RESOURCE_METADATA}{}", exposed.path)),
    ];
    if exposed.signs_in {
        paths.push(Published::Exactly(format!("{AUTHORIZATION_SERVER_METADATA}{}", exposed.path)));
    }
    if held.root {
        paths.push(Published::Exactly(PROTECTED_RESOURCE_METADATA.to_owned()));
    }
    paths
}
