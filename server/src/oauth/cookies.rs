//! Cookies that tie a sign-in to the browser that it began in. Their names begin with `__Host-`, so that no other host or
//! path can set them (RFC 6265bis section 4.1.3.2).

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cookie::{Cookie, SameSite};
use sha2::{Digest, Sha256};

/// Most bytes of cookies that are read.
const MAXIMUM_LENGTH: usize = 32 * 1024;

/// A cookie of this server, by the step that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BrowserCookie {
    /// The page of consent was shown to this browser.
    Consent,
    /// This browser was sent to Entra.
    SignIn,
    /// The person of this browser looks at their own sessions.
    Sessions,
}

impl BrowserCookie {
    /// The name for this id, which is no secret.
    fn name(self, id: &str) -> String {
        let step = match self {
            Self::Consent => "consent",
            Self::SignIn => "sign-in",
            Self::Sessions => "sessions",
        };
        let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(id));
        format!("__Host-mcp-{step}-{}", digest.get(..16).unwrap_or_default())
    }

    /// The value that the browser sends for this id.
    pub(super) fn read(self, id: &str, headers: &HeaderMap) -> Option<String> {
        let name = self.name(id);
        let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut cookies = values.filter(|value| value.len() <= MAXIMUM_LENGTH).flat_map(Cookie::split_parse).flatten();
        cookies.find(|cookie| cookie.name() == name).map(|cookie| cookie.value().to_owned())
    }

    /// The header that sets the value for this many seconds; none at all takes it away.
    pub(super) fn set(self, id: &str, value: &str, seconds: i64) -> Option<HeaderValue> {
        let cookie = Cookie::build((self.name(id), value))
            .path("/")
            .secure(true)
            .http_only(true)
            // Entra sends the browser back from another site: SameSite=Strict would keep the cookie away from that.
            .same_site(SameSite::Lax)
            .max_age(cookie::time::Duration::seconds(seconds));
        HeaderValue::try_from(cookie.build().to_string()).ok()
    }
}

/// True if this is the value whose SHA-256 that is. Takes as long for every value of that length.
pub(super) fn is_hash_of(hash: &str, value: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(hash.as_bytes(), self::hash(value).as_bytes()).is_ok()
}

/// SHA-256 of a value, in base64url.
pub(super) fn hash(value: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(value))
}
