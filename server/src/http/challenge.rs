//! Answers to a client without a sufficient token, with the `WWW-Authenticate` header of RFC 6750 and RFC 9728.

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

/// Tells clients where the metadata is and which scopes to ask Entra for.
pub struct Challenge {
    /// Absent for a server without a public URL: it has no address that a client could fetch metadata from, so that its
    /// clients must be told the tenant and scope by other means.
    resource_metadata: Option<String>,
    /// Qualifies a scope of this server, as clients ask Entra for it.
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
    /// Scopes besides those that every request needs.
    scopes: Option<&'a BTreeSet<String>>,
    /// True if the token is one of Entra's, or the client has one already.
    of_entra: bool,
    /// A claims request, encoded.
    claims: Option<String>,
}

impl Challenge {
    /// The challenge of this server.
    pub fn new(configuration: &ServerConfiguration) -> Self {
        Self {
            resource_metadata: metadata::document_url(configuration),
            entra: configuration.entra.clone(),
            has_own_server: configuration.authorization_server.is_some(),
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
    /// are named at once, those of every request among them. Without a principal nothing is known of the token but that
    /// it is one of Entra's.
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

    /// 401 to a sign-in that no longer counts, or does not satisfy claims. `None`: the caller's client did not say that
    /// it can ask Entra for claims, and would take this for a token that has expired; or it was asked the same already.
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

    /// The same for a session of this server's own authorization server. A demand that a scope can say is met by a request
    /// for that scope. Any other ends the session, and is met at the next sign-in.
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

    /// 403 to a sign-in that does not satisfy an authentication context, where the client can ask for it by a scope. None
    /// if it cannot, or was asked the same already.
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
