//! Cookies of a [`Browser`](super::Browser): those that it keeps, and those that it sends (RFC 6265, and 6265bis for
//! the name prefixes and `SameSite`).

use reqwest::header::{HeaderMap, SET_COOKIE};
use url::Url;

/// Maximum size of a cookie's name and value, in bytes. A larger one is refused.
const SIZE_LIMIT: usize = 4096;
/// Maximum number of cookies. Beyond it, the oldest are removed.
const COOKIE_LIMIT: usize = 300;

/// A cookie that the browser keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// The name, prefix included.
    pub name: String,
    /// The exact value.
    pub value: String,
    /// Path prefix of the addresses that get it.
    pub path: String,
    /// Sent over HTTPS only.
    pub secure: bool,
    /// Hidden from scripts. The browser runs none, so this has no effect.
    pub http_only: bool,
    /// Navigations from another site that send the cookie.
    pub same_site: SameSite,
    /// `Max-Age` in seconds, if given. The browser forgets a cookie with 0 or less, and ignores all other lifetimes.
    pub max_age: Option<i64>,
}

/// The `SameSite` attribute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameSite {
    /// No navigation from another site.
    Strict,
    /// Only GET navigations. The default, as in Chrome.
    #[default]
    Lax,
    /// All navigations.
    None,
}

/// Relation of the page that starts a navigation to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Relation {
    /// No page starts it: the user typed the address.
    Typed,
    SameOrigin,
    SameSite,
    CrossSite,
}

impl Relation {
    /// Compares sites. Ports do not count. Registrable domains are not supported: hosts are equal or of different
    /// sites.
    pub(super) fn between(from: &Url, to: &Url) -> Self {
        if from.origin() == to.origin() {
            Self::SameOrigin
        } else if from.scheme() == to.scheme() && from.host() == to.host() {
            Self::SameSite
        } else {
            Self::CrossSite
        }
    }

    /// `Sec-Fetch-Site`
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Typed => "none",
            Self::SameOrigin => "same-origin",
            Self::SameSite => "same-site",
            Self::CrossSite => "cross-site",
        }
    }
}

/// All cookies of one browser, each with the origin that set it.
#[derive(Debug, Default)]
pub(super) struct Jar(Vec<(String, Cookie)>);

impl Jar {
    /// Keeps the cookies of an answer, except those that a browser refuses.
    pub(super) fn keep(&mut self, url: &Url, headers: &HeaderMap) {
        for value in headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok()) {
            self.set(url, value);
        }
    }

    /// Keeps one cookie in the format of `Set-Cookie`. Returns whether a browser would.
    pub(super) fn set(&mut self, url: &Url, written: &str) -> bool {
        let Some((cookie, ended)) = parse(url, written) else { return false };
        let origin = url.origin().ascii_serialization();
        self.0.retain(|(of, known)| !(*of == origin && known.name == cookie.name && known.path == cookie.path));
        if !ended {
            if self.0.len() == COOKIE_LIMIT {
                self.0.remove(0);
            }
            self.0.push((origin, cookie));
        }
        true
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The cookies of an address, those of longer paths first.
    pub(super) fn of(&self, url: &Url) -> Vec<Cookie> {
        let origin = url.origin().ascii_serialization();
        let fits = |cookie: &Cookie| path_matches(url.path(), &cookie.path) && (!cookie.secure || is_secure(url));
        let found = self.0.iter().filter(|(of, cookie)| *of == origin && fits(cookie));
        let mut found: Vec<_> = found.map(|(_, cookie)| cookie.clone()).collect();
        found.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        found
    }

    /// The `Cookie` header of a navigation, if there are cookies for it.
    pub(super) fn header(&self, url: &Url, relation: Relation, by_get: bool) -> Option<String> {
        let sent = |cookie: &Cookie| match cookie.same_site {
            SameSite::None => true,
            SameSite::Lax => by_get || relation != Relation::CrossSite,
            SameSite::Strict => relation != Relation::CrossSite,
        };
        let cookies = self.of(url).into_iter().filter(sent);
        let pairs: Vec<_> = cookies.map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }
}

fn is_secure(url: &Url) -> bool {
    url.scheme() == "https"
}

/// RFC 6265 §5.1.4
fn path_matches(path: &str, of_cookie: &str) -> bool {
    path.strip_prefix(of_cookie)
        .is_some_and(|rest| rest.is_empty() || of_cookie.ends_with('/') || rest.starts_with('/'))
}

fn default_path(url: &Url) -> String {
    match url.path().rsplit_once('/') {
        None | Some(("", _)) => "/".to_owned(),
        Some((folder, _)) => folder.to_owned(),
    }
}

/// Returns the cookie and whether it has expired; `None` if a browser refuses it.
fn parse(url: &Url, written: &str) -> Option<(Cookie, bool)> {
    let mut parts = written.split(';').map(str::trim);
    let (name, value) = parts.next()?.split_once('=')?;
    let mut cookie = Cookie {
        name: name.trim().to_owned(),
        value: value.trim().to_owned(),
        path: default_path(url),
        secure: false,
        http_only: false,
        same_site: SameSite::default(),
        max_age: None,
    };
    let (mut domain, mut root, mut expired) = (false, false, false);
    for part in parts {
        let (attribute, value) = part.split_once('=').unwrap_or((part, ""));
        match attribute.trim().to_ascii_lowercase().as_str() {
            "secure" => cookie.secure = true,
            "httponly" => cookie.http_only = true,
            "domain" => domain = true,
            "path" if value.starts_with('/') => {
                root = value == "/";
                value.clone_into(&mut cookie.path);
            }
            "max-age" => cookie.max_age = value.trim().parse().ok(),
            "expires" => expired = is_past(value),
            "samesite" => {
                cookie.same_site = match value.to_ascii_lowercase().as_str() {
                    "strict" => SameSite::Strict,
                    "none" => SameSite::None,
                    _ => SameSite::Lax,
                }
            }
            _ => {}
        }
    }
    let prefix_kept = match cookie.name.as_str() {
        name if name.starts_with("__Host-") => cookie.secure && root && !domain,
        name if name.starts_with("__Secure-") => cookie.secure,
        _ => true,
    };
    let kept = prefix_kept
        && !cookie.name.is_empty()
        && cookie.name.len() + cookie.value.len() <= SIZE_LIMIT
        && (!cookie.secure || is_secure(url))
        && (cookie.same_site != SameSite::None || cookie.secure);
    // `Max-Age` has precedence over `Expires`.
    let ended = cookie.max_age.map_or(expired, |seconds| seconds <= 0);
    kept.then_some((cookie, ended))
}

fn is_past(date: &str) -> bool {
    jiff::fmt::rfc2822::parse(date.trim()).is_ok_and(|time| time.timestamp() <= jiff::Timestamp::now())
}
