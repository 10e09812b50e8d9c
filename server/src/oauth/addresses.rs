//! Addresses of the authorization server: issuer and endpoints, all below the public URL.

/// Path of the metadata (RFC 8414 section 3.1); the issuer's own path is appended to it.
const WELL_KNOWN: &str = "/.well-known/oauth-authorization-server";

/// An endpoint of the authorization server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Start of a sign-in, for browsers.
    Authorize,
    /// The person's decision, from the page of a sign-in.
    Consent,
    /// The return from Entra.
    Callback,
    /// Tokens, for clients.
    Token,
    /// Registration of clients (RFC 7591).
    Register,
    /// Revocation (RFC 7009).
    Revoke,
    /// The public keys of access tokens.
    Keys,
    /// The page with instructions for connecting clients.
    Connect,
    /// The page of a person's own sessions.
    Sessions,
}

impl Endpoint {
    /// Path below the public URL.
    pub fn path(self) -> &'static str {
        match self {
            Self::Authorize => "/authorize",
            Self::Consent => "/consent",
            Self::Callback => "/callback",
            Self::Token => "/token",
            Self::Register => "/register",
            Self::Revoke => "/revoke",
            Self::Keys => "/jwks",
            Self::Connect => "/connect",
            Self::Sessions => "/sessions",
        }
    }
}

/// Addresses of the authorization server for one public URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    resource: String,
    origin: String,
    /// Without a trailing slash; empty for a server at the root of its host.
    path: String,
    serves_root: bool,
}

impl Addresses {
    /// Returns the addresses of the server at this URL with this path. `serves_root` is true if the origin also names
    /// this server. Returns none if the URL does not end with the path.
    pub fn new(public_url: &str, path: &str, serves_root: bool) -> Option<Self> {
        let origin = public_url.strip_suffix(path)?;
        Some(Self {
            resource: public_url.to_owned(),
            origin: origin.to_owned(),
            path: path.trim_end_matches('/').to_owned(),
            serves_root,
        })
    }

    /// Returns the issuer.
    pub fn issuer(&self) -> String {
        format!("{}{}", self.origin, self.path)
    }

    /// Returns the server's canonical URL: the audience of every token.
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// Returns the URL of an endpoint.
    pub fn url(&self, endpoint: Endpoint) -> String {
        format!("{}{}", self.issuer(), endpoint.path())
    }

    /// Returns the path of an endpoint on the host.
    pub fn path(&self, endpoint: Endpoint) -> String {
        format!("{}{}", self.path, endpoint.path())
    }

    /// Returns the path of the metadata on the host.
    pub fn metadata_path(&self) -> String {
        format!("{WELL_KNOWN}{}", self.path)
    }

    /// Returns the origin in the form that browsers send.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// True if a `resource` parameter (RFC 8707) names this server: the canonical URL, with or without a trailing
    /// slash, or the origin if it belongs to this server.
    pub fn is_resource(&self, asked: &str) -> bool {
        let asked = asked.strip_suffix('/').unwrap_or(asked);
        asked == self.issuer() || (self.serves_root && asked == self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_lies_below_the_public_url_but_for_the_metadata() {
        let addresses = Addresses::new("https://h.example/a/mcp", "/a/mcp", false).unwrap();
        assert_eq!(addresses.issuer(), "https://h.example/a/mcp");
        assert_eq!(addresses.url(Endpoint::Token), "https://h.example/a/mcp/token");
        assert_eq!(addresses.path(Endpoint::Callback), "/a/mcp/callback");
        assert_eq!(addresses.metadata_path(), "/.well-known/oauth-authorization-server/a/mcp");
        let root = Addresses::new("https://h.example/", "/", true).unwrap();
        assert_eq!((root.issuer().as_str(), root.resource()), ("https://h.example", "https://h.example/"));
        assert_eq!(root.path(Endpoint::Authorize), "/authorize");
        assert_eq!(root.metadata_path(), WELL_KNOWN);
        assert_eq!(Addresses::new("https://h.example/mcp", "/other", false), None);
    }

    #[test]
    fn a_resource_is_the_canonical_url_with_or_without_a_slash_or_an_origin_that_is_ours() {
        let addresses = |serves_root| Addresses::new("https://h.example/mcp", "/mcp", serves_root).unwrap();
        for ours in ["https://h.example/mcp", "https://h.example/mcp/"] {
            assert!(addresses(false).is_resource(ours), "{ours}");
        }
        for origin in ["https://h.example", "https://h.example/"] {
            assert!(addresses(true).is_resource(origin) && !addresses(false).is_resource(origin), "{origin}");
        }
        for foreign in [
            "",
            "/",
            "https://h.example/mcp//",
            "https://h.example/other",
            "https://H.example/mcp",
            "http://h.example/mcp",
            "https://h.example/mcp?x",
            "https://h.example.evil/mcp",
            "https://evil.example",
        ] {
            assert!(!addresses(true).is_resource(foreign), "{foreign}");
        }
    }
}
