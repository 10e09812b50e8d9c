//! Dynamic client registration (RFC 7591). The `client_id` is the sealed metadata, so that nothing is stored.

use http::StatusCode;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::client::{Client, ClientKind};
use super::fields::{self, FieldError};
use super::redirect_uri::{RedirectFault, RedirectUri};
use super::redirects::{Redirects, distinct};
use crate::oauth::seal::{Purpose, Sealer};
use crate::strict_json;

/// Longest request, in bytes.
pub const MAXIMUM_BODY: usize = 16 * 1024;
/// Most redirect URIs of a client. Loopback URIs that differ only in the port count once.
pub const MAXIMUM_REDIRECTS: usize = 10;
/// Longest sealed metadata, in bytes: every URL of a sign-in contains the `client_id`.
const MAXIMUM_SEALED: usize = 1_536;

/// The reason why a client is not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// The configuration allows only listed clients.
    #[error(
        "this server accepts no registrations; ask the platform team to list the client in spec.authorizationServer.clients, \
         and configure the client with its listed client_id"
    )]
    ListedOnly,
    /// The request is longer than [`MAXIMUM_BODY`].
    #[error("the request is longer than {MAXIMUM_BODY} bytes")]
    TooLong,
    /// The request is not a JSON object.
    #[error("the request is not a JSON object without duplicate members")]
    NotJson,
    /// A member is not usable.
    #[error("{0}")]
    Field(#[from] FieldError),
    /// `redirect_uris` is absent, empty, or not an array of strings.
    #[error("redirect_uris must be an array of at least one string")]
    NoRedirects,
    /// No redirect URI is allowed. Contains position and reason of the first.
    #[error(
        "no redirect URI is allowed; redirect_uris[{0}]: {1}; ask the platform team to add it to \
         spec.authorizationServer.allowedRedirects"
    )]
    Redirects(usize, RedirectFault),
    /// There are more than [`MAXIMUM_REDIRECTS`].
    #[error("more than {MAXIMUM_REDIRECTS} redirect URIs; register fewer")]
    TooMany,
    /// The metadata is too long for a `client_id`.
    #[error("the name and the redirect URIs together are too long; register fewer or shorter ones")]
    TooLarge,
    /// The metadata could not be sealed.
    #[error("the registration failed; try again")]
    Failed,
}

impl RegistrationError {
    /// Returns the `error` of the answer (RFC 7591 §3.2.2).
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoRedirects | Self::Redirects(..) | Self::TooMany => "invalid_redirect_uri",
            Self::Failed => "server_error",
            _ => "invalid_client_metadata",
        }
    }

    /// Returns the HTTP status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::ListedOnly => StatusCode::FORBIDDEN,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Registers a client and returns the body of the answer (RFC 7591 §3.2.1). `now` is in seconds since 1970.
pub(super) fn register(
    body: &[u8],
    redirects: &Redirects,
    sealer: &Sealer,
    now: i64,
) -> Result<Value, RegistrationError> {
    if body.len() > MAXIMUM_BODY {
        return Err(RegistrationError::TooLong);
    }
    let Ok(Value::Object(metadata)) = strict_json::from_slice(body) else { return Err(RegistrationError::NotJson) };
    fields::check_grants(&metadata)?;
    let name = fields::name(&metadata)?;
    let kept = kept_redirects(&metadata, redirects)?;
    let client_id = seal(&name, &distinct(&kept), sealer)?;
    let redirect_uris: Vec<&str> = kept.iter().map(RedirectUri::as_str).collect();
    Ok(json!({
        "client_id": client_id,
        "client_id_issued_at": now,
        "client_name": name,
        "redirect_uris": redirect_uris,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    }))
}

fn kept_redirects(metadata: &Map<String, Value>, redirects: &Redirects) -> Result<Vec<RedirectUri>, RegistrationError> {
    let texts = fields::redirect_uris(metadata).map_err(|_| RegistrationError::NoRedirects)?;
    let sifted = redirects.sift(texts, None);
    match sifted.dropped {
        _ if distinct(&sifted.kept).len() > MAXIMUM_REDIRECTS => Err(RegistrationError::TooMany),
        _ if !sifted.kept.is_empty() => Ok(sifted.kept),
        Some((position, fault)) => Err(RegistrationError::Redirects(position, fault)),
        None => Err(RegistrationError::NoRedirects),
    }
}

/// Seals the name and the redirect URIs, as one array of strings.
fn seal(name: &str, redirect_uris: &[RedirectUri], sealer: &Sealer) -> Result<String, RegistrationError> {
    let texts: Vec<&str> = std::iter::once(name).chain(redirect_uris.iter().map(RedirectUri::as_str)).collect();
    let plain = serde_json::to_vec(&texts).map_err(|_| RegistrationError::Failed)?;
    if plain.len() > MAXIMUM_SEALED {
        return Err(RegistrationError::TooLarge);
    }
    sealer.seal(Purpose::Client, "", &plain).map_err(|_| RegistrationError::Failed)
}

/// Returns the client of a registration, without redirect URIs that are no longer allowed. Returns `None` if the id
/// is not a registration of this server.
pub(super) fn open(client_id: &str, redirects: &Redirects, sealer: &Sealer) -> Option<Client> {
    let plain = sealer.open(Purpose::Client, "", client_id).ok()?;
    let texts: Vec<String> = serde_json::from_slice(&plain).ok()?;
    let (name, redirect_uris) = texts.split_first()?;
    let digest = Sha256::digest(client_id);
    let short = digest.first_chunk::<8>().map(hex::encode)?;
    Some(Client {
        id: client_id.to_owned(),
        reference: format!("registered:{short}"),
        name: name.clone(),
        kind: ClientKind::Registered,
        redirect_uris: redirects.sift(redirect_uris.iter().map(String::as_str), None).kept,
    })
}
