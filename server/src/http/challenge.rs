//! Answers to a client without a sufficient token, with the header `WWW-Authenticate` of RFC 6750 and RFC 9728.

use std::collections::BTreeSet;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mcp_entra_policy::{EntraConfiguration, ServerConfiguration};
use serde_json::json;

use super::challenged::Challenged;
use super::metadata;
use crate::entra::{ClaimsChallenge, SignIn};
use crate::token::{Principal, SessionOfToken, context_scope, graph_scope};
use crate::www_authenticate::{BearerChallenge, Parameter};

/// The challenges of a server: the address of its metadata and the scopes to request from Entra.
pub struct Challenge {
    /// Absent for a server without a public URL. Clients have no address for its metadata and must learn tenant and
    /// scope elsewhere.
    resource_metadata: Option<String>,
    /// Qualifies this server's scopes for requests to Entra.
    entra: EntraConfiguration,
    /// True if clients sign in to this server's own authorization server.
    has_own_server: bool,
    challenged: Challenged,
}

/// Content of a challenge besides the address of the metadata.
#[derive(Default)]
struct Details<'a> {
    error: Option<&'static str>,
    description: &'a str,
    /// Scopes besides those of every request.
    scopes: Option<&'a BTreeSet<String>>,
    /// True if the token is Entra's, or the client already has one.
    of_entra: bool,
    /// A claims request, encoded.
    claims: Option<String>,
}

impl Challenge {
    /// Returns the challenges of this server.
    pub fn new(configuration: &ServerConfiguration) -> Self {
        Self {
            resource_metadata: metadata::document_url(configuration),
            entra: configuration.entra.clone(),
            has_own_server: configuration.authorization_server.is_some(),
            challenged: Challenged::new(),
        }
    }

    /// Returns 401 for a request without a token. It has no error code, because nothing went wrong (RFC 6750 section
    /// 3.1).
    pub fn token_missing(&self) -> Response {
        let description = "send an access token of Microsoft Entra ID for this server as Authorization: Bearer";
        self.response(StatusCode::UNAUTHORIZED, &Details { description, ..Details::default() })
    }

    /// Returns 400 for a malformed Authorization header.
    pub fn invalid_request(&self, description: &str) -> Response {
        let error = Some("invalid_request");
        self.response(StatusCode::BAD_REQUEST, &Details { error, description, ..Details::default() })
    }

    /// Returns 401 for a token that is not accepted.
    pub fn invalid_token(&self, description: &str) -> Response {
        let error = Some("invalid_token");
        self.response(StatusCode::UNAUTHORIZED, &Details { error, description, ..Details::default() })
    }

    /// Returns 403 for a token that lacks a scope, which the client can request. The challenge names all scopes of
    /// the operation and of every request. Without a principal, only the origin of the token (Entra) is known.
    pub fn insufficient_scope(
        &self,
        principal: Option<&Principal>,
        description: &str,
        scopes: &BTreeSet<String>,
    ) -> Response {
        let of_entra = principal.is_none_or(|principal| principal.session().is_none());
        let error = Some("insufficient_scope");
        let details = Details { error, description, scopes: Some(scopes), of_entra, ..Details::default() };
        self.response(StatusCode::FORBIDDEN, &details)
    }

    /// Returns 401 for a sign-in that is no longer valid or does not satisfy claims. Returns `None` if the client did
    /// not declare that it understands claims (it would take this for an expired token), or was already asked the
    /// same.
    pub async fn sign_in(&self, principal: &Principal, sign_in: &SignIn, description: &str) -> Option<Response> {
        if let Some(session) = principal.session() {
            return self.sign_in_of_session(principal, session, sign_in, description).await;
        }
        let (error, claims) = match sign_in {
            SignIn::Anew => ("invalid_token", None),
            SignIn::Satisfying(claims) if principal.accepts_claims_challenge() => {
                ("insufficient_claims", Some(claims.encode()))
            }
            SignIn::Satisfying(_) | SignIn::Consenting(_) => return None,
        };
        let details = Details { error: Some(error), description, claims, of_entra: true, ..Details::default() };
        let first = self.challenged.is_first(principal, sign_in).await;
        first.then(|| self.response(StatusCode::UNAUTHORIZED, &details))
    }

    /// Same for a session of this server's own authorization server. If a scope can express the requirement, the
    /// client requests that scope. Otherwise the session ends, and the next sign-in satisfies the requirement.
    async fn sign_in_of_session(
        &self,
        principal: &Principal,
        session: &SessionOfToken,
        sign_in: &SignIn,
        description: &str,
    ) -> Option<Response> {
        if !self.challenged.is_first(principal, sign_in).await {
            return None;
        }
        let claims = match sign_in {
            SignIn::Consenting(permissions) => {
                let scopes = permissions.iter().map(|permission| graph_scope(permission)).collect();
                session.expect_step_up().await;
                return Some(self.insufficient_scope(Some(principal), description, &scopes));
            }
            SignIn::Anew => None,
            SignIn::Satisfying(claims) => Some(claims.as_json()),
        };
        let ended = session.end_until_sign_in(claims).await;
        ended.ok().map(|()| self.invalid_token(description))
    }

    /// Returns 403 for a sign-in without an authentication context that the client can request with a scope. Returns
    /// `None` if it cannot, or was already asked the same.
    pub async fn authentication_context(
        &self,
        principal: &Principal,
        context: &str,
        description: &str,
    ) -> Option<Response> {
        let sign_in = SignIn::Satisfying(ClaimsChallenge::authentication_context(context));
        let Some(session) = principal.session() else {
            return self.sign_in(principal, &sign_in, description).await;
        };
        if !self.challenged.is_first(principal, &sign_in).await {
            return None;
        }
        session.expect_step_up().await;
        let scopes = BTreeSet::from([context_scope(context)]);
        Some(self.insufficient_scope(Some(principal), description, &scopes))
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
        let by_bare_name = self.has_own_server && !details.of_entra;
        let all = self.entra.required_scopes.iter().chain(details.scopes.into_iter().flatten());
        let named = all.map(|scope| if by_bare_name { scope.clone() } else { self.entra.qualified_scope(scope) });
        let scopes: BTreeSet<String> = named.collect();
        challenge.push(Parameter::Scope, Vec::from_iter(scopes).join(" "));
        if details.error.is_some() {
            challenge.push(Parameter::ErrorDescription, details.description);
        }
        challenge.header()
    }
}
