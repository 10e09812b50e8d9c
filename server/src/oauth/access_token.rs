//! Access tokens: signed JWTs (RFC 9068) of at most ten minutes, for this server alone.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use serde_json::json;

use super::addresses::Addresses;
use super::keys::{KeyRing, SigningError};
use super::session::Session;
use crate::token::{SessionClaims, TOKEN_TYPE};

/// Lifetime of an access token, in seconds.
pub(super) const LIFETIME: u64 = 600;
/// Most groups that a token lists. A person in more is looked up, as with Entra's own tokens.
const MAXIMUM_GROUPS: usize = 40;

/// A new access token of this session at this time, in seconds since 1970.
///
/// # Errors
/// If the key does not sign.
pub(super) fn issue(
    ring: &KeyRing,
    addresses: &Addresses,
    id: &str,
    session: &Session,
    now: i64,
) -> Result<SecretString, SigningError> {
    let claims = claims(addresses, id, session, now);
    let key = ring.signing(now);
    let header = json!({ "alg": "ES256", "typ": TOKEN_TYPE, "kid": key.key_id });
    let part = |value: String| URL_SAFE_NO_PAD.encode(value);
    let claims = serde_json::to_string(&claims).map_err(|_| SigningError)?;
    let message = format!("{}.{}", part(header.to_string()), part(claims));
    let signature = key.sign(message.as_bytes())?;
    Ok(SecretString::from(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))))
}

fn claims(addresses: &Addresses, id: &str, session: &Session, now: i64) -> SessionClaims {
    let start = u64::try_from(now).unwrap_or_default();
    let person = &session.person;
    SessionClaims {
        iss: addresses.issuer(),
        aud: addresses.resource().to_owned(),
        sub: person.object_id.clone(),
        client_id: session.client.reference.clone(),
        sid: id.to_owned(),
        jti: uuid::Uuid::new_v4().to_string(),
        iat: start,
        nbf: start,
        exp: start + LIFETIME,
        auth_time: session.began,
        tid: person.tenant_id.clone(),
        oid: person.object_id.clone(),
        // What the client asked for, and Entra granted: other clients may have brought other scopes.
        scp: Vec::from_iter(session.asked.server.intersection(&person.scopes).map(String::as_str)).join(" "),
        roles: person.roles.clone(),
        groups: person.groups.clone().filter(|groups| groups.len() <= MAXIMUM_GROUPS),
        acrs: person.contexts.clone(),
        guest: person.guest,
    }
}
