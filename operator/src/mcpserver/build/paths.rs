//! The paths of a server on its host: everything that it publishes, whatever leads to it.

use crate::{mcpserver::validate::exposure::Exposed, ownership::Held};

/// The path of a host's metadata by RFC 9728 §3.1; a resource's path is appended to it.
const PROTECTED_RESOURCE_METADATA: &str = "/.well-known/oauth-protected-resource";

/// The path of an issuer's metadata by RFC 8414 §3.1; the issuer's path is appended to it.
const AUTHORIZATION_SERVER_METADATA: &str = "/.well-known/oauth-authorization-server";

/// A path on the host.
pub(super) enum Published {
    /// The path and everything below it.
    Below(String),
    /// Exactly the path.
    Exactly(String),
}

/// The MCP endpoint, below which an authorization server has its own, and the metadata of both. The protected resource
/// metadata at the host's root is its oldest server's.
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
