//! Redirect URIs that any client may register.
//!
//! A client that chooses its redirect URI freely gets the codes of everybody who approves it. So a client that
//! registers dynamically may only use its user's own machine, callbacks of well-known clients, and configured ones.
//! Others are dropped.

use std::collections::BTreeSet;

use url::Url;

use super::redirect_uri::{RedirectFault, RedirectUri};

/// Documented callbacks of well-known clients that cannot always use the loopback interface.
const WELL_KNOWN: [&str; 7] = [
    "cursor://anysphere.cursor-mcp/oauth/callback",
    "https://chatgpt.com/connector_platform_oauth_redirect",
    "https://claude.ai/api/mcp/auth_callback",
    "https://claude.com/api/mcp/auth_callback",
    "https://insiders.vscode.dev/redirect",
    "https://vscode.dev/redirect",
    "https://www.cursor.com/agents/mcp/oauth/callback",
];

/// The redirect URIs that any client may register.
#[derive(Clone, Debug)]
pub struct Redirects {
    /// Allowed by the configuration, compared exactly.
    allowed: BTreeSet<String>,
}

/// A client's allowed redirect URIs, and the reason for the first that is not allowed.
#[derive(Debug, Default)]
pub(super) struct Sifted {
    /// The allowed ones. Duplicates and loopback URIs that differ only in the port are removed.
    pub(super) kept: Vec<RedirectUri>,
    /// The first dropped one: its position from 0, and the reason.
    pub(super) dropped: Option<(usize, RedirectFault)>,
}

impl Redirects {
    /// Allows these exact URIs besides loopback and well-known ones.
    pub fn new(allowed: &[String]) -> Self {
        Self { allowed: allowed.iter().cloned().collect() }
    }

    /// Parses a redirect URI that any client may register.
    pub fn read(&self, text: &str) -> Result<RedirectUri, RedirectFault> {
        let uri = RedirectUri::read(text)?;
        if self.allow(&uri) { Ok(uri) } else { Err(RedirectFault::NotAllowed) }
    }

    /// Keeps those that any client may register, and https ones at `origin` if the client proves an origin.
    pub(super) fn sift<'a>(&self, texts: impl IntoIterator<Item = &'a str>, origin: Option<&Url>) -> Sifted {
        let mut sifted = Sifted::default();
        for (position, text) in texts.into_iter().enumerate() {
            let read = RedirectUri::read(text).and_then(|uri| {
                let is_own = origin.is_some_and(|origin| uri.is_of_origin(origin));
                if is_own || self.allow(&uri) { Ok(uri) } else { Err(RedirectFault::NotAllowed) }
            });
            match read {
                Ok(uri) => sifted.kept.push(uri),
                Err(fault) => {
                    sifted.dropped.get_or_insert((position, fault));
                }
            }
        }
        sifted
    }

    fn allow(&self, uri: &RedirectUri) -> bool {
        uri.is_loopback() || WELL_KNOWN.contains(&uri.as_str()) || self.allowed.contains(uri.as_str())
    }
}

/// Returns the URIs without later equivalents.
pub(super) fn distinct(uris: &[RedirectUri]) -> Vec<RedirectUri> {
    let mut distinct: Vec<RedirectUri> = Vec::new();
    for uri in uris {
        if !distinct.iter().any(|earlier| uri.means(earlier)) {
            distinct.push(uri.clone());
        }
    }
    distinct
}
