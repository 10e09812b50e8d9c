//! Assertions: signed statements about the caller of a call. Each is for one call of one backend.
//!
//! The key exists only in this process. Each pod has its own key, and a new one after each start.

use mcp_entra_policy::ServerReference;
use secrecy::SecretString;
use serde::Serialize;
use serde_json::Value;

use super::error::BackendIdentityError;
use crate::es256::{SigningError, SigningKey};
use crate::token::Principal;

/// Header member `typ` of an assertion. It distinguishes assertions from other JWTs (RFC 8725 section 3.11).
pub const TOKEN_TYPE: &str = "mcp-entra-assertion+jwt";
/// Lifetime of an assertion, in seconds.
pub const LIFETIME: i64 = 60;

/// Issuer of the assertions of one server.
pub(super) struct Assertions {
    key: SigningKey,
    issuer: String,
    audience: String,
}

/// Claims of an assertion. They contain no names or mail addresses.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: String,
    tid: &'a str,
    oid: &'a str,
    idtyp: &'static str,
    azp: &'a str,
    roles: &'a [Box<str>],
    target: &'a str,
}

impl Assertions {
    /// Returns an issuer for this server with a new key.
    pub(super) fn new(server: &ServerReference) -> Result<Self, SigningError> {
        let ServerReference { namespace, name } = server;
        Ok(Self {
            key: SigningKey::generate()?,
            issuer: format!("mcp-entra:{namespace}/{name}"),
            audience: format!("mcp-entra-backend:{namespace}/{name}"),
        })
    }

    /// Returns a new assertion that this caller calls this target.
    pub(super) fn issue(&self, principal: &Principal, target: &str) -> Result<SecretString, BackendIdentityError> {
        let idtyp = match principal {
            Principal::User(_) => "user",
            Principal::Application(_) => "app",
            // A local user runs the server and is never its remote caller.
            Principal::LocalUser(_) => return Err(BackendIdentityError::NoUser),
        };
        let now = jiff::Timestamp::now().as_second();
        let claims = Claims {
            iss: &self.issuer,
            aud: &self.audience,
            sub: principal.object_id(),
            iat: now,
            nbf: now,
            exp: now + LIFETIME,
            jti: uuid::Uuid::new_v4().to_string(),
            tid: principal.tenant_id(),
            oid: principal.object_id(),
            idtyp,
            azp: principal.client_id(),
            roles: &principal.caller().roles,
            target,
        };
        Ok(self.key.jwt(TOKEN_TYPE, &claims)?)
    }

    /// Returns the public key for verification, as a JWK.
    pub(super) fn public_key(&self) -> &Value {
        self.key.public()
    }
}
