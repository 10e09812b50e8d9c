//! The form of redirect URIs, and the addresses of answers.
//!
//! A redirect URI must be in the normal form that browsers use. Ambiguous forms are refused: backslashes, dot
//! segments, hosts in capitals or as decimal numbers, and characters beyond ASCII.

use url::{Host, Url};

/// Longest redirect URI, in bytes.
pub const MAXIMUM_LENGTH: usize = 512;

/// Hosts of the browser's own machine, in their required spelling (RFC 8252 §7.3, and `localhost`).
const LOOPBACK_HOSTS: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// Schemes that run, show or send something when they are opened. No configuration can allow them: the pattern of the
/// configuration file refuses the same ones.
pub(super) const FORBIDDEN_SCHEMES: [&str; 15] = [
    "about",
    "blob",
    "data",
    "file",
    "filesystem",
    "ftp",
    "intent",
    "javascript",
    "mailto",
    "sms",
    "tel",
    "vbscript",
    "view-source",
    "ws",
    "wss",
];

/// Parameters of an answer. A redirect URI with one of them could fake a part of the answer.
const ANSWER_PARAMETERS: [&str; 6] = ["code", "error", "error_description", "error_uri", "iss", "state"];

/// A well-formed redirect URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectUri {
    text: String,
    url: Url,
    loopback: Option<Loopback>,
}

/// A redirect URI of the browser's own machine, without its port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Loopback {
    host: &'static str,
    /// Path and query.
    target: String,
}

/// The destination of an answer, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// A program on the browser's machine.
    ThisComputer,
    /// A website: its host, with the port if it is not 443. Names beyond ASCII are in their ASCII form.
    Website(&'a str),
    /// An app: the scheme that opens it.
    App(&'a str),
}

/// The reason why a text is not a valid redirect URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedirectFault {
    /// Longer than [`MAXIMUM_LENGTH`].
    #[error("it is longer than {MAXIMUM_LENGTH} bytes")]
    TooLong,
    /// Spaces, control characters, backslashes or characters beyond ASCII.
    #[error("it has characters that a URI must encode")]
    Characters,
    /// An asterisk.
    #[error("it has a wildcard")]
    Wildcard,
    /// A fragment (RFC 6749 §3.1.2).
    #[error("it has a fragment")]
    Fragment,
    /// Not an absolute URI.
    #[error("it is not an absolute URI")]
    NotAbsolute,
    /// A dangerous scheme.
    #[error("its scheme cannot receive an answer")]
    Scheme,
    /// A user name or a password.
    #[error("it has a user name or a password")]
    UserInfo,
    /// Plain http outside the browser's own machine.
    #[error("http is only for http://127.0.0.1, http://localhost and http://[::1], written like this")]
    PlainHttp,
    /// Not in the normal form that browsers use.
    #[error("it is not in normal form (it has capitals, dot segments or a default port)")]
    NotNormal,
    /// A query parameter that answers use.
    #[error("its query has a parameter of the answer, such as code or state")]
    AnswerParameter,
    /// Well-formed, but not allowed for this client.
    #[error("it is neither on this computer nor among the redirect URIs that this server allows")]
    NotAllowed,
}

impl RedirectUri {
    /// Parses a well-formed redirect URI. It may still be one that is never allowed.
    pub fn read(text: &str) -> Result<Self, RedirectFault> {
        check_characters(text)?;
        let url = Url::parse(text).map_err(|_| RedirectFault::NotAbsolute)?;
        if FORBIDDEN_SCHEMES.contains(&url.scheme()) {
            return Err(RedirectFault::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(RedirectFault::UserInfo);
        }
        let loopback = match url.scheme() {
            "http" => Some(Loopback::read(text, &url)?),
            _ if is_normal(text, &url) => None,
            _ => return Err(RedirectFault::NotNormal),
        };
        if url.query_pairs().any(|(name, _)| ANSWER_PARAMETERS.contains(&&*name)) {
            return Err(RedirectFault::AnswerParameter);
        }
        Ok(Self { text: text.to_owned(), url, loopback })
    }

    /// Returns the redirect URI as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True for the browser's own machine, where any port is allowed.
    pub fn is_loopback(&self) -> bool {
        self.loopback.is_some()
    }

    /// Returns the destination of an answer, for people.
    pub fn shown(&self) -> Destination<'_> {
        match self.url.scheme() {
            _ if self.is_loopback() => Destination::ThisComputer,
            "https" => Destination::Website(self.url.authority()),
            scheme => Destination::App(scheme),
        }
    }

    /// Returns the address of an answer: this redirect URI with parameters after those of its own query.
    pub fn with(&self, parameters: &[(&str, &str)]) -> Url {
        let mut url = self.url.clone();
        url.query_pairs_mut().extend_pairs(parameters);
        url
    }

    /// True if this redirect URI of a request matches the registered one: exactly, or on loopback with any port (RFC
    /// 8252 §7.3).
    pub(super) fn means(&self, registered: &Self) -> bool {
        match (&self.loopback, &registered.loopback) {
            (Some(own), Some(registered)) => own == registered,
            _ => self.text == registered.text,
        }
    }

    /// True for a website of the same origin.
    pub(super) fn is_of_origin(&self, other: &Url) -> bool {
        self.url.scheme() == "https" && self.url.origin() == other.origin()
    }
}

impl Loopback {
    /// Splits the text itself, because parsers are lenient about hosts.
    fn read(text: &str, url: &Url) -> Result<Self, RedirectFault> {
        let after_scheme = text.strip_prefix("http://").ok_or(RedirectFault::PlainHttp)?;
        let (host, rest) = LOOPBACK_HOSTS
            .iter()
            .find_map(|host| Some((*host, after_scheme.strip_prefix(host)?)))
            .ok_or(RedirectFault::PlainHttp)?;
        let target = match rest.strip_prefix(':') {
            Some(port_and_target) => {
                let target = port_and_target.trim_start_matches(|character: char| character.is_ascii_digit());
                let port = port_and_target.strip_suffix(target).unwrap_or_default();
                if port.starts_with('0') || port.parse::<u16>().is_err() {
                    return Err(RedirectFault::NotNormal);
                }
                target
            }
            None => rest,
        };
        if !(target.is_empty() || target.starts_with(['/', '?'])) || url.host_str() != Some(host) {
            return Err(RedirectFault::PlainHttp);
        }
        let normal = path_and_query(url);
        let slash = if target.starts_with('/') { "" } else { "/" };
        if format!("{slash}{target}") != normal {
            return Err(RedirectFault::NotNormal);
        }
        Ok(Self { host, target: normal })
    }
}

fn check_characters(text: &str) -> Result<(), RedirectFault> {
    if text.len() > MAXIMUM_LENGTH {
        return Err(RedirectFault::TooLong);
    }
    if text.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'\\') {
        return Err(RedirectFault::Characters);
    }
    if text.contains('*') {
        return Err(RedirectFault::Wildcard);
    }
    if text.contains('#') {
        return Err(RedirectFault::Fragment);
    }
    Ok(())
}

/// True if this URL is in the normal form of browsers, except for the slash after a host without a path.
pub(super) fn is_normal(text: &str, url: &Url) -> bool {
    let is_full_name = match url.host() {
        Some(Host::Domain(name)) => !name.ends_with('.'),
        _ => true,
    };
    let lonely = url.path() == "/" && url.query().is_none();
    is_full_name && (url.as_str() == text || (lonely && url.as_str().strip_suffix('/') == Some(text)))
}

fn path_and_query(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}
