//! Redirect URIs that clients may name themselves.
//!
//! Whoever may choose a redirect URI gets the codes of everybody who approves. So a client that registers itself may name
//! its user's own machine, callbacks of well-known clients, and what the configuration allows; all else is dropped.

use std::collections::BTreeSet;

use url::Url;

use super::redirect_uri::{RedirectFault, RedirectUri};

/// Callbacks of clients that cannot use the loopback interface, or not always, as their makers document them.
const WELL_KNOWN: [&str; 7] = [
    "cursor://anysphere.cursor-mcp/oauth/callback",
    "https://chatgpt.com/connector_platform_oauth_redirect",
    "https://claude.ai/api/mcp/auth_callback",
    "https://claude.com/api/mcp/auth_callback",
    "https://insiders.vscode.dev/redirect",
    "https://vscode.dev/redirect",
    "https://www.cursor.com/agents/mcp/oauth/callback",
];

/// The redirect URIs that clients may name themselves.
#[derive(Clone, Debug)]
pub struct Redirects {
    /// From the configuration, to the letter.
    allowed: BTreeSet<String>,
}

/// The redirect URIs of a client that it may use, and the first reason why it may not use another.
#[derive(Debug, Default)]
pub(super) struct Sifted {
    /// Each at its first place, also where others differ in nothing but the port.
    pub(super) kept: Vec<RedirectUri>,
    /// The first that was dropped: its position from 0, and the reason.
    pub(super) dropped: Option<(usize, RedirectFault)>,
}

impl Redirects {
    /// Allows these, to the letter, besides loopback and the well-known.
    pub fn new(allowed: &[String]) -> Self {
        Self { allowed: allowed.iter().cloned().collect() }
    }

    /// Reads a redirect URI that any client may register.
    pub fn read(&self, text: &str) -> Result<RedirectUri, RedirectFault> {
        let uri = RedirectUri::read(text)?;
        if self.allow(&uri) { Ok(uri) } else { Err(RedirectFault::NotAllowed) }
    }

    /// Keeps those that any client may register and, where a client proves its `origin`, the https ones of that origin.
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

/// Returns those of which no earlier one means the same.
pub(super) fn distinct(uris: &[RedirectUri]) -> Vec<RedirectUri> {
    let mut distinct: Vec<RedirectUri> = Vec::new();
    for uri in uris {
        if !distinct.iter().any(|earlier| uri.means(earlier)) {
            distinct.push(uri.clone());
        }
    }
    distinct
}
