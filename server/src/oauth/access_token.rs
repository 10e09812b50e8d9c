//! Access tokens of the authorization server: signed JWTs (RFC 9068) for this server, valid for at most ten minutes.

use secrecy::SecretString;

use super::addresses::Addresses;
use super::keys::KeyRing;
use super::session::Session;
use crate::es256::SigningError;
use crate::token::{SessionClaims, TOKEN_TYPE};

/// Lifetime of an access token, in seconds.
pub(super) const LIFETIME: u64 = 600;
/// Most groups in a token. If a person is in more, the groups are looked up, as with Entra's own tokens.
const MAXIMUM_GROUPS: usize = 40;

/// Returns a new access token of this session at this time, in seconds since 1970.
///
/// # Errors
/// If the key cannot sign.
pub(super) fn issue(
    ring: &KeyRing,
    addresses: &Addresses,
    id: &str,
    session: &Session,
    now: i64,
) -> Result<SecretString, SigningError> {
    ring.signing(now).jwt(TOKEN_TYPE, &claims(addresses, id, session, now))
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
        // Only scopes that this client requested and Entra granted; the session may carry scopes for other clients.
        scp: Vec::from_iter(session.asked.server.intersection(&person.scopes).map(String::as_str)).join(" "),
        roles: person.roles.clone(),
        groups: person.groups.clone().filter(|groups| groups.len() <= MAXIMUM_GROUPS),
        acrs: person.contexts.clone(),
        guest: person.guest,
    }
}
