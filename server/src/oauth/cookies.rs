//! Cookies that bind a sign-in to one browser. Their names begin with `__Host-`, so that no other host or path can
//! set them (RFC 6265bis section 4.1.3.2).

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cookie::{Cookie, SameSite};
use sha2::{Digest, Sha256};

/// Most bytes of cookies that are read.
const MAXIMUM_LENGTH: usize = 32 * 1024;

/// A cookie of this server, by the step that uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BrowserCookie {
    /// The consent page was shown in this browser.
    Consent,
    /// This browser was sent to Entra.
    SignIn,
    /// The person views their sessions in this browser.
    Sessions,
}

impl BrowserCookie {
    /// Returns the cookie's name for this id, which is not secret.
    fn name(self, id: &str) -> String {
        let step = match self {
            Self::Consent => "consent",
            Self::SignIn => "sign-in",
            Self::Sessions => "sessions",
        };
        let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(id));
        format!("__Host-mcp-{step}-{}", digest.get(..16).unwrap_or_default())
    }

    /// Returns the browser's value for this id.
    pub(super) fn read(self, id: &str, headers: &HeaderMap) -> Option<String> {
        let name = self.name(id);
        let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut cookies = values.filter(|value| value.len() <= MAXIMUM_LENGTH).flat_map(Cookie::split_parse).flatten();
        cookies.find(|cookie| cookie.name() == name).map(|cookie| cookie.value().to_owned())
    }

    /// Returns the header that sets the value for this many seconds; zero deletes the cookie.
    pub(super) fn set(self, id: &str, value: &str, seconds: i64) -> Option<HeaderValue> {
        let cookie = Cookie::build((self.name(id), value))
            .path("/")
            .secure(true)
            .http_only(true)
            // Entra returns the browser from another site. The browser would not send a SameSite=Strict cookie then.
            .same_site(SameSite::Lax)
            .max_age(cookie::time::Duration::seconds(seconds));
        HeaderValue::try_from(cookie.build().to_string()).ok()
    }
}

/// True if the value has this SHA-256. The comparison takes constant time for values of equal length.
pub(super) fn is_hash_of(hash: &str, value: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(hash.as_bytes(), self::hash(value).as_bytes()).is_ok()
}

/// Returns the SHA-256 of a value, in base64url.
pub(super) fn hash(value: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(value))
}
