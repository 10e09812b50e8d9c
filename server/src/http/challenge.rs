//! Answers to a client without a sufficient token, with the `WWW-Authenticate` header of RFC 6750 and RFC 9728.

use std::collections::BTreeSet;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mcp_entra_policy::{EntraConfiguration, ServerConfiguration};
use serde_json::json;

use super::challenged::Challenged;
use super::metadata;
use crate::entra::SignIn;
use crate::token::Principal;
use crate::www_authenticate::{BearerChallenge, Parameter};

/// Tells clients where the metadata is and which scopes to ask Entra for.
pub struct Challenge {
    /// Absent for a server without a public URL: it has no address that a client could fetch metadata from, so that its
    /// clients must be told the tenant and scope by other means.
    resource_metadata: Option<String>,
    /// The required scopes, fully qualified.
    scopes: BTreeSet<String>,
    /// Qualifies a scope of this server.
    entra: EntraConfiguration,
    challenged: Challenged,
}

/// Content of a challenge besides the address of the metadata.
#[derive(Default)]
struct Details<'a> {
    error: Option<&'static str>,
    description: &'a str,
    /// Scopes of this server, besides those that every request needs.
    scopes: Option<&'a BTreeSet<String>>,
    /// A claims request, encoded.
    claims: Option<String>,
}

impl Challenge {
    /// The challenge of this server.
    pub fn new(configuration: &ServerConfiguration) -> Self {
        Self {
            resource_metadata: metadata::document_url(configuration),
            scopes: configuration.qualified_scopes().into_iter().collect(),
            entra: configuration.entra.clone(),
            challenged: Challenged::new(),
        }
    }

    /// 401 to a request without a token: no error code, for nothing went wrong (RFC 6750 section 3.1).
    pub fn token_missing(&self) -> Response {
        let description = "send an access token of Microsoft Entra ID for this server as Authorization: Bearer";
        self.response(StatusCode::UNAUTHORIZED, &Details { description, ..Details::default() })
    }

    /// 400 to an Authorization header that cannot be understood.
    pub fn invalid_request(&self, description: &str) -> Response {
        let error = Some("invalid_request");
        self.response(StatusCode::BAD_REQUEST, &Details { error, description, ..Details::default() })
    }

    /// 401 to a token that is not accepted.
    pub fn invalid_token(&self, description: &str) -> Response {
        let error = Some("invalid_token");
        self.response(StatusCode::UNAUTHORIZED, &Details { error, description, ..Details::default() })
    }

    /// 403 to a token that lacks a scope: the client can meet that by asking for it. All scopes that the operation needs
    /// are named at once, those of every request among them.
    pub fn insufficient_scope(&self, description: &str, scopes: &BTreeSet<String>) -> Response {
        let details =
            Details { error: Some("insufficient_scope"), description, scopes: Some(scopes), ..Details::default() };
        self.response(StatusCode::FORBIDDEN, &details)
    }

    /// 401 to a sign-in that no longer counts, or does not satisfy claims. `None`: the caller's client did not say that
    /// it can ask Entra for claims, and would take this for a token that has expired; or it was asked the same already.
    pub async fn sign_in(&self, principal: &Principal, sign_in: &SignIn, description: &str) -> Option<Response> {
        let (error, claims) = match sign_in {
            SignIn::Anew => ("invalid_token", None),
            SignIn::Satisfying(claims) if principal.accepts_claims_challenge() => {
                ("insufficient_claims", Some(claims.encode()))
            }
            SignIn::Satisfying(_) => return None,
        };
        let details = Details { error: Some(error), description, claims, ..Details::default() };
        let first = self.challenged.is_first(principal, sign_in).await;
        first.then(|| self.response(StatusCode::UNAUTHORIZED, &details))
    }

    fn response(&self, status: StatusCode, details: &Details<'_>) -> Response {
        let body = match details.error {
            None => json!({ "message": details.description }),
            Some(error) => json!({ "error": error, "error_description": details.description }),
        };
        let mut response = (status, Json(body)).into_response();
        response.headers_mut().insert(header::WWW_AUTHENTICATE, self.header(details));
        response
    }

    fn header(&self, details: &Details<'_>) -> HeaderValue {
        let mut challenge = BearerChallenge::default();
        if let Some(error) = details.error {
            challenge.push(Parameter::Error, error);
        }
        if let Some(claims) = &details.claims {
            challenge.push(Parameter::Claims, claims);
        }
        if let Some(url) = &self.resource_metadata {
            challenge.push(Parameter::ResourceMetadata, url);
        }
        let more = details.scopes.into_iter().flatten().map(|scope| self.entra.qualified_scope(scope));
        let scopes: BTreeSet<String> = self.scopes.iter().cloned().chain(more).collect();
        challenge.push(Parameter::Scope, Vec::from_iter(scopes).join(" "));
        if details.error.is_some() {
            challenge.push(Parameter::ErrorDescription, details.description);
        }
        challenge.header()
    }
}
