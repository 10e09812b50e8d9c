//! The form of a redirect URI, and the address that an answer goes to.
//!
//! A redirect URI is accepted only as a browser would write it itself. What has two readings (a backslash, a dot segment, a
//! host in capitals or as a decimal number, letters beyond ASCII) is therefore no redirect URI.

use url::{Host, Url};

/// Greatest length of a redirect URI, in bytes.
pub const MAXIMUM_LENGTH: usize = 512;

/// Hosts of the machine that the browser runs on, as they have to be written (RFC 8252 §7.3, and `localhost`).
const LOOPBACK_HOSTS: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// Schemes that run, show or send something where they are opened. Nobody can allow them.
const FORBIDDEN_SCHEMES: [&str; 14] = [
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
    "ws",
    "wss",
];

/// Parameters of an answer. A redirect URI that brought its own could pass one off as ours.
const ANSWER_PARAMETERS: [&str; 6] = ["code", "error", "error_description", "error_uri", "iss", "state"];

/// A redirect URI of sound form.
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

/// The place that an answer goes to, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// A program on the machine that the browser runs on.
    ThisComputer,
    /// A website, by its host, and its port if that is not 443. A name beyond ASCII is in its ASCII form.
    Website(&'a str),
    /// An app, by the scheme that opens it.
    App(&'a str),
}

/// The reason why something is no redirect URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedirectFault {
    /// It has more bytes than [`MAXIMUM_LENGTH`].
    #[error("it is longer than {MAXIMUM_LENGTH} bytes")]
    TooLong,
    /// It has spaces, control characters, backslashes or characters beyond ASCII.
    #[error("it has characters that a URI must encode")]
    Characters,
    /// It has an asterisk.
    #[error("it has a wildcard")]
    Wildcard,
    /// It has a fragment (RFC 6749 §3.1.2).
    #[error("it has a fragment")]
    Fragment,
    /// It is no absolute URI.
    #[error("it is no absolute URI")]
    NotAbsolute,
    /// Its scheme is dangerous to open.
    #[error("its scheme cannot take an answer")]
    Scheme,
    /// It has a user name or a password.
    #[error("it has a user name or a password")]
    UserInfo,
    /// It is plain http, but not on the browser's own machine.
    #[error("http is only for http://127.0.0.1, http://localhost and http://[::1], written like this")]
    PlainHttp,
    /// A browser would write it differently.
    #[error("a browser would write it differently (capitals, dot segments, a default port)")]
    NotNormal,
    /// Its query has a parameter that answers have.
    #[error("its query has a parameter of the answer, such as code or state")]
    AnswerParameter,
    /// It is sound, but not among those that this client may name.
    #[error("it is neither on this computer nor among the redirect URIs that this server allows")]
    NotAllowed,
}

impl RedirectUri {
    /// Reads a redirect URI of sound form. It may still be one that nobody may use.
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

    /// The redirect URI as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True if this is a redirect URI of the browser's own machine, whose port may be any.
    pub fn is_loopback(&self) -> bool {
        self.loopback.is_some()
    }

    /// Returns the place that an answer goes to, for people.
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

    /// True if a request that names this redirect URI means the registered one: the same to the letter, or on loopback
    /// the same but for the port (RFC 8252 §7.3).
    pub(super) fn means(&self, registered: &Self) -> bool {
        match (&self.loopback, &registered.loopback) {
            (Some(own), Some(registered)) => own == registered,
            _ => self.text == registered.text,
        }
    }

    /// True if this is a website of the same origin.
    pub(super) fn is_of_origin(&self, other: &Url) -> bool {
        self.url.scheme() == "https" && self.url.origin() == other.origin()
    }
}

impl Loopback {
    /// Takes the text apart itself: no parser's leniency about hosts gets a say.
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

/// True if a browser writes this URL with these letters, but for the slash after a lonely host.
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
