//! The routes of the authorization server, with audit recording and limits.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Limited};
use tower::{Layer, service_fn};

use super::AuthorizationServer;
use super::addresses::Endpoint;
use super::answer::{self, ClientError};
use super::browser::{Browser, Stop};
use super::limits::Refused;
use super::pages::{Connect, Language, Problem, Visit};
use crate::audit::{Outcome, Trail};
use crate::http::client_address::{self, ClientAddress};
use crate::http::origin::FOREIGN_HOST;
use crate::http::{cors, trace};

/// Largest request body, in bytes.
const MAXIMUM_BODY: usize = 64 * 1024;
/// Longest time until an answer, including Entra.
const TIME_LIMIT: Duration = Duration::from_secs(40);

/// A request to an endpoint.
struct Asked {
    endpoint: Endpoint,
    address: ClientAddress,
    parts: Parts,
    body: Bytes,
}

impl Asked {
    /// Returns the form. Adds the client's id if the client sends it in a Basic header without a secret, as some
    /// libraries do (RFC 6749 section 2.3.1).
    fn form(&self) -> Vec<u8> {
        let value = self.parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let basic = value.and_then(|value| value.strip_prefix("Basic ")).and_then(|basic| STANDARD.decode(basic).ok());
        let basic = basic.and_then(|basic| String::from_utf8(basic).ok());
        let in_body = url::form_urlencoded::parse(&self.body).any(|(name, _)| name == "client_id");
        match basic.as_deref().and_then(|basic| basic.strip_suffix(':')) {
            // The id is already form-encoded.
            Some(client_id) if !in_body => [&self.body, b"&client_id=".as_slice(), client_id.as_bytes()].concat(),
            _ => self.body.to_vec(),
        }
    }
}

impl Endpoint {
    /// All endpoints.
    const ALL: [Self; 9] = [
        Self::Authorize,
        Self::Consent,
        Self::Callback,
        Self::Token,
        Self::Register,
        Self::Revoke,
        Self::Keys,
        Self::Connect,
        Self::Sessions,
    ];

    /// Returns the supported methods in the form of `Allow` (RFC 9110 section 10.2.1).
    fn methods(self) -> &'static str {
        match self {
            Self::Authorize | Self::Callback | Self::Keys | Self::Connect => "GET",
            Self::Consent | Self::Token | Self::Register | Self::Revoke => "POST",
            Self::Sessions => "GET, POST",
        }
    }

    fn takes(self, method: &Method) -> bool {
        self.methods().split(", ").any(|taken| method == taken)
    }

    /// True for endpoints that clients call, from any page and without cookies; false for browser pages.
    fn is_for_clients(self) -> bool {
        matches!(self, Self::Token | Self::Register | Self::Revoke | Self::Keys)
    }

    /// Returns the method name for the audit log.
    fn audit_name(self) -> &'static str {
        match self {
            Self::Authorize => "oauth/authorize",
            Self::Consent => "oauth/consent",
            Self::Callback => "oauth/callback",
            Self::Token => "oauth/token",
            Self::Register => "oauth/register",
            Self::Revoke => "oauth/revoke",
            Self::Keys => "oauth/jwks",
            Self::Connect => "oauth/connect",
            Self::Sessions => "oauth/sessions",
        }
    }
}

/// Returns the routes of the endpoints and the metadata.
pub fn router(server: Arc<AuthorizationServer>) -> Router {
    let metadata = server.metadata.clone();
    let document = get(move || async move { answer::public(&metadata) }).layer(cors::public(Method::GET));
    let router = Router::new().route(&server.addresses.metadata_path(), document);
    Endpoint::ALL.into_iter().fold(router, |router, endpoint| {
        let path = server.addresses.path(endpoint);
        let server = Arc::clone(&server);
        let service = service_fn(move |request| {
            let server = Arc::clone(&server);
            async move { Ok::<_, Infallible>(serve(&server, endpoint, request).await) }
        });
        match endpoint {
            Endpoint::Keys => router.route_service(&path, cors::public(Method::GET).layer(service)),
            _ if endpoint.is_for_clients() => router.route_service(&path, cors::public(Method::POST).layer(service)),
            _ => router.route_service(&path, service),
        }
    })
}

async fn serve(server: &AuthorizationServer, endpoint: Endpoint, request: Request) -> Response {
    let answering = |request, trail: Arc<Trail>| async move {
        // Boxed, so that the compiler handles each endpoint separately.
        let answering = Box::pin(answer(server, endpoint, request, &trail));
        let late =
            |_| ClientError::later("the request took too long; try again later", "entra_unavailable").into_response();
        tokio::time::timeout(TIME_LIMIT, answering).await.unwrap_or_else(late)
    };
    trace::stage(&server.audit, request, answering).await
}

async fn answer(server: &AuthorizationServer, endpoint: Endpoint, request: Request, trail: &Trail) -> Response {
    trail.understood(endpoint.audit_name(), None);
    let (parts, body) = request.into_parts();
    if !server.accepted.accepts_host(&parts.headers) {
        trail.decided(Outcome::Refused("host_not_accepted"));
        return (StatusCode::MISDIRECTED_REQUEST, FOREIGN_HOST).into_response();
    }
    if !endpoint.takes(&parts.method) {
        return not_taken(server, endpoint, &parts, trail);
    }
    if !server.sessions.keys_are_sound() && !matches!(endpoint, Endpoint::Keys | Endpoint::Connect) {
        trail.decided(Outcome::Refused("keys_compromised"));
        let text = "the keys of this server are being replaced; try again in a minute";
        return ClientError::later(text, "keys_compromised").into_response();
    }
    let address = client_address::of_request(&server.configuration.trusted_proxies, trail, &parts);
    let drawn = server.limits.draw(endpoint, address);
    let Ok(body) = read(body).await else {
        trail.decided(Outcome::Refused("body_too_large"));
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let asked = Asked { endpoint, address, parts, body };
    match endpoint.is_for_clients() {
        true => for_client(server, &asked, trail, drawn).await,
        false => for_browser(server, &asked, trail, drawn).await,
    }
}

/// Returns the answer to an unsupported method.
fn not_taken(server: &AuthorizationServer, endpoint: Endpoint, parts: &Parts, trail: &Trail) -> Response {
    trail.decided(Outcome::Refused("method_not_allowed"));
    let mut response = match endpoint.is_for_clients() {
        true => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        false => Problem::NoPage.show(&visit(server, parts, trail)),
    };
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(endpoint.methods()));
    response
}

/// Returns the properties of a browser's request for the pages.
fn visit<'a>(server: &'a AuthorizationServer, parts: &Parts, trail: &'a Trail) -> Visit<'a> {
    Visit {
        language: Language::of(&parts.headers),
        server: &server.configuration.server.name,
        correlation_id: trail.request_id(),
        back: None,
    }
}

async fn read(body: Body) -> Result<Bytes, ()> {
    Limited::new(body, MAXIMUM_BODY).collect().await.map(http_body_util::Collected::to_bytes).map_err(|_| ())
}

async fn for_client(
    server: &AuthorizationServer,
    asked: &Asked,
    trail: &Trail,
    drawn: Result<(), Refused>,
) -> Response {
    let answered = match (drawn, asked.endpoint) {
        (Err(_), _) => Err(ClientError::too_many("too many requests come from this address; wait a minute")),
        (Ok(()), Endpoint::Token) => server.tokens(trail, &asked.form()).await,
        (Ok(()), Endpoint::Register) => server.register(trail, &asked.body),
        (Ok(()), Endpoint::Revoke) => server.revoke(trail, &asked.form()).await,
        (Ok(()), _) => Ok(answer::public(&server.ring.jwks())),
    };
    answered.unwrap_or_else(|error| {
        trail.decided(Outcome::Refused(error.reason));
        error.into_response()
    })
}

async fn for_browser(
    server: &AuthorizationServer,
    asked: &Asked,
    trail: &Trail,
    drawn: Result<(), Refused>,
) -> Response {
    let Asked { endpoint, address, parts, body } = asked;
    let visit = visit(server, parts, trail);
    let browser = Browser { headers: &parts.headers, visit, trail, address: *address };
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    let shown: Result<Response, Stop> = match (drawn, endpoint) {
        (Err(Refused { wait }), _) => Err(browser.stop(&Problem::TooManyRequests { retry_after: wait })),
        (Ok(()), Endpoint::Authorize) => server.authorize(&browser, query).await,
        (Ok(()), Endpoint::Consent) => server.consent(&browser, body).await,
        (Ok(()), Endpoint::Callback) => server.callback(&browser, query).await,
        (Ok(()), Endpoint::Sessions) if parts.method == Method::POST => server.end_own_sessions(&browser, body).await,
        (Ok(()), Endpoint::Sessions) => server.own_sessions(&browser).await,
        (Ok(()), _) => {
            let sessions = server.addresses.url(Endpoint::Sessions);
            let (name, url) = (&server.configuration.server.name, server.addresses.resource());
            Ok(Connect { name, url, sessions: &sessions }.show(&visit))
        }
    };
    shown.unwrap_or_else(Response::from)
}
