//! Assertions: signed statements of this server about who makes a call, each for one call of one backend.
//!
//! The key lives in this process alone. It is another one after each start, and in each pod.

use std::collections::BTreeSet;

use mcp_entra_policy::ServerReference;
use secrecy::SecretString;
use serde::Serialize;
use serde_json::Value;

use super::error::BackendIdentityError;
use crate::es256::{SigningError, SigningKey};
use crate::token::Principal;

/// Header member `typ` of an assertion. It keeps assertions apart from all other JWTs (RFC 8725 section 3.11).
pub const TOKEN_TYPE: &str = "mcp-entra-assertion+jwt";
/// Lifetime of an assertion, in seconds.
pub const LIFETIME: i64 = 60;

/// The assertions of one server about its callers.
pub(super) struct Assertions {
    key: SigningKey,
    issuer: String,
    audience: String,
}

/// Claims of an assertion. Names and mail addresses are none of them.
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
    roles: &'a BTreeSet<String>,
    target: &'a str,
}

impl Assertions {
    /// The assertions of this server, signed with a new key.
    pub(super) fn new(server: &ServerReference) -> Result<Self, SigningError> {
        let ServerReference { namespace, name } = server;
        Ok(Self {
            key: SigningKey::generate()?,
            issuer: format!("mcp-entra:{namespace}/{name}"),
            audience: format!("mcp-entra-backend:{namespace}/{name}"),
        })
    }

    /// A new assertion that this caller makes a call of this target.
    pub(super) fn issue(&self, principal: &Principal, target: &str) -> Result<SecretString, BackendIdentityError> {
        let idtyp = match principal {
            Principal::User(_) => "user",
            Principal::Application(_) => "app",
            // Whoever runs a server for others is no caller of it.
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

    /// The key that verifies them, as a JWK.
    pub(super) fn public_key(&self) -> &Value {
        self.key.public()
    }
}
