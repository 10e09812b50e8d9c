//! The stages of an HTTP request. `pass` lists them in order. Each stage uses the results of earlier ones and passes
//! the request on or refuses it.
//!
//! The stages answer 401, 403, 429 and 503 before the protocol runs. Besides them there are the public documents
//! ([`metadata`]), the form of refusals ([`answer`], [`challenge`]), and the [`listener`].

mod accept;
mod answer;
mod authorize;
mod bearer;
mod calls;
pub mod challenge;
mod challenged;
pub mod client_address;
mod connections;
pub mod cors;
pub mod endpoint;
mod events;
#[cfg(test)]
mod fixture;
mod held;
mod limits;
pub mod listener;
mod message;
mod metadata;
mod needs;
pub mod origin;
mod places;
mod principal;
pub mod rate_limit;
mod revision;
mod subscriptions;
pub(crate) mod trace;

use std::pin::Pin;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use mcp_entra_policy::ServerConfiguration;
use tokio_util::sync::CancellationToken;
use tower_http::cors::CorsLayer;

use crate::audit::{AuditLog, Trail};
use crate::groups::GroupDirectory;
use crate::offer::Offer;
use crate::policy::PolicyStore;
use crate::protocol::Protocol;
use crate::token::{Principal, TokenValidator};
use answer::Refusal;
use challenge::Challenge;
use origin::Accepted;
use places::Places;
use rate_limit::RateLimits;

/// Everything that the stages need.
pub struct Gate {
    /// The server's configuration.
    pub configuration: ServerConfiguration,
    /// Issuer of the authorization server that gives clients their tokens.
    pub authorization_server: String,
    /// The hosts and origins that requests may name.
    pub accepted: Accepted,
    /// CORS for the allowed origins, if there are any.
    pub cors: Option<CorsLayer>,
    /// Verifies bearer tokens.
    pub tokens: TokenValidator,
    /// The policy in force.
    pub policy: Arc<PolicyStore>,
    /// Looks up groups that tokens do not list. Absent if only the token counts.
    pub groups: Option<GroupDirectory>,
    /// The source of the offer.
    pub offer: Arc<dyn Offer>,
    /// The MCP protocol for that offer.
    pub protocol: Protocol,
    /// The rate limits of all callers.
    pub rate_limits: RateLimits,
    /// Records every verdict.
    pub audit: Arc<AuditLog>,
    /// Makes challenges.
    pub challenge: Challenge,
    /// Cancelled when the server is asked to stop.
    pub draining: CancellationToken,
    /// State of answers that are streams.
    pub answers: Arc<Answers>,
}

/// State of answers that outlive the handling of their request.
pub struct Answers {
    pending: needs::Pending,
    streams: Arc<Places>,
    detached: calls::Detached,
}

impl Answers {
    /// Ends detached calls. Their messages are no longer sent.
    pub async fn end(&self) {
        self.detached.end().await;
    }
}

impl Default for Answers {
    fn default() -> Self {
        let streams = Places::new(subscriptions::MAXIMUM_STREAMS, subscriptions::MAXIMUM_OF_CALLER);
        Self { pending: needs::Pending::new(), streams, detached: calls::Detached::default() }
    }
}

/// Answers a request, with recording and limits.
async fn answer_request(gate: &Arc<Gate>, request: Request) -> Response {
    trace::stage(&gate.audit, request, |request, trail| limits::in_time(judge_and_answer(gate, request, trail))).await
}

async fn judge_and_answer(gate: &Arc<Gate>, request: Request, trail: Arc<Trail>) -> Response {
    let mut headers = HeaderMap::new();
    // Boxed, so that the large future of all stages moves as a pointer and stays opaque to the compiler.
    let passing: Passing<'_> = Box::pin(pass(gate, &trail, request, &mut headers));
    let mut answer = passing.await.unwrap_or_else(|refusal| refusal.recorded(&trail));
    add(answer.headers_mut(), headers);
    answer
}

/// Adds headers to those of an answer. Each replaces one with its name, except for `Vary`, where all values count.
fn add(answer: &mut HeaderMap, mut headers: HeaderMap) {
    if let Some(vary) = headers.remove(header::VARY) {
        answer.append(header::VARY, vary);
    }
    answer.extend(headers);
}

/// The future of a request that passes the stages.
type Passing<'a> = Pin<Box<dyn Future<Output = Result<Response, Refusal>> + Send + 'a>>;

/// Runs the stages in order. `headers` receives further headers for the answer, even for a refusal.
async fn pass(gate: &Arc<Gate>, trail: &Trail, request: Request, headers: &mut HeaderMap) -> Result<Response, Refusal> {
    let (policy, (mut parts, body)) = (gate.policy.in_force(), request.into_parts());
    let principal = match caller(gate, trail, &mut parts, headers).await {
        Ok(principal) => principal,
        Err(refusal) => {
            message::pass_over(body).await;
            return Err(refusal);
        }
    };
    let message = message::stage(gate, trail, &parts, body).await?;
    let accepted = accept::stage(&message, &parts)?;
    let revision = revision::stage(&message, &parts)?;
    let (exchange, outcome) = authorize::stage(gate, trail, &principal, &message, revision).await?;
    principal::still_in_session(gate, &policy, &exchange)?;
    revision::parameters(&message, &parts, &exchange)?;
    calls::stage(gate, trail, accepted, message, (exchange, outcome)).await
}

/// Runs the stages before the body is read. They find the caller.
async fn caller(
    gate: &Arc<Gate>,
    trail: &Trail,
    parts: &mut Parts,
    headers: &mut HeaderMap,
) -> Result<Arc<Principal>, Refusal> {
    let address = client_address::stage(gate, trail, parts);
    origin::stage(gate, &parts.headers)?;
    *headers = cors::stage(gate, parts).await?;
    let token = bearer::stage(gate, parts)?;
    rate_limit::by_address(gate, address, &token).await?;
    let principal = principal::stage(gate, trail, address, token).await?;
    rate_limit::by_principal(gate, &principal)?;
    Ok(principal)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::http::HeaderValue;

    use super::*;

    #[tokio::test]
    async fn a_refused_request_is_answered_once_its_body_was_read() {
        let gate = Arc::new(fixture::gate(Arc::new(fixture::OfferAway), Arc::default(), fixture::Lines::default()));
        let was_read = Arc::new(AtomicBool::new(false));
        let reads = Arc::clone(&was_read);
        let body = futures::stream::once(async move {
            reads.store(true, Ordering::SeqCst);
            Ok::<_, Infallible>("{}")
        });
        let request = Request::post("/mcp").body(axum::body::Body::from_stream(body)).unwrap();
        let answer = answer_request(&gate, request).await;
        assert!(answer.status().is_client_error(), "{answer:?}");
        assert!(was_read.load(Ordering::SeqCst), "the connection would be closed without a word");
    }

    #[test]
    fn added_headers_replace_those_of_an_answer_but_for_vary() {
        let map = |headers: [(header::HeaderName, &'static str); 2]| -> HeaderMap {
            headers.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect()
        };
        let mut answer = map([(header::VARY, "accept"), (header::ACCESS_CONTROL_ALLOW_ORIGIN, "a")]);
        add(&mut answer, map([(header::VARY, "origin"), (header::ACCESS_CONTROL_ALLOW_ORIGIN, "b")]));
        let values = |name| Vec::from_iter(answer.get_all(name));
        assert_eq!(values(header::VARY), ["accept", "origin"]);
        assert_eq!(values(header::ACCESS_CONTROL_ALLOW_ORIGIN), ["b"]);
    }
}
