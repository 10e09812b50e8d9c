//! The audit log: one JSON line on standard output for every request that was judged, saying who asked for what, how
//! it was decided, by which rule, and how it ended.
//!
//! A line holds ids and names of rules, never a token, a claim of an unverified token, an argument or an answer. It is
//! written when the request ends, also when the client hung up or the time limit struck before there was an answer:
//! then without a status. What stands in it is in `line`, how lines are chained by hashes in [`chain`], and every reason in
//! `reasons`. Lines go through the queue of `writer`; requests without a token are counted by `tokenless`.

pub mod chain;
mod line;
mod reasons;
mod tokenless;
mod writer;

use std::io::Write;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mcp_entra_policy::{AuditConfiguration, ServerReference};

pub use line::{Rule, schema};

use crate::telemetry::Metrics;
use crate::token::Principal;
use chain::Chain;
use line::{Caller, Decision, Line};
use writer::{Place, Writer};

/// Tool names come from clients, and an unknown one is no reason for a long line.
const MAXIMUM_TOOL_NAME: usize = 64;

/// Where audit lines go.
pub struct AuditLog {
    server: String,
    metrics: Arc<Metrics>,
    writer: Writer,
}

/// How a request was decided.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Any authenticated caller may do this.
    Open,
    /// A grant allows it.
    Granted(Rule),
    /// It was refused, for this stable reason.
    Refused(&'static str),
    /// It was refused for this stable reason by a deny, or by a grant whose requirements are not met.
    RefusedBy(&'static str, Rule),
}

/// What becomes known about one request on its way through the layers; each part is set once.
pub struct Trail {
    request_id: String,
    /// The client's address, if one is known: it counts requests, and stands in no line.
    address: OnceLock<IpAddr>,
    principal: OnceLock<Arc<Principal>>,
    asked: OnceLock<Asked>,
    outcome: OnceLock<Outcome>,
    /// Why what was granted was answered by a challenge, if it was.
    challenged: OnceLock<&'static str>,
}

struct Asked {
    method: &'static str,
    tool: Option<String>,
}

/// The recording of one request. Dropping it writes the line, so that no end of a request goes unrecorded.
pub struct Recording {
    log: Arc<AuditLog>,
    trail: Arc<Trail>,
    started: Instant,
    status: Option<u16>,
    /// Taken when the line is queued.
    place: Option<Place>,
}

impl AuditLog {
    /// Starts a log of this server's requests, counted in these metrics. Fails where no thread can be started.
    pub fn start(
        server: &ServerReference,
        configuration: AuditConfiguration,
        metrics: Arc<Metrics>,
        lines: Box<dyn Write + Send>,
    ) -> std::io::Result<Self> {
        let server = format!("{}/{}", server.namespace, server.name);
        let chain = configuration.hash_chain.then(Chain::begin);
        let writer = Writer::start(server.clone(), lines, chain, Arc::clone(&metrics))?;
        Ok(Self { server, metrics, writer })
    }

    /// Begins the recording of a request, which waits while the queue of unwritten lines is full: what cannot be recorded is
    /// not done. Returns none if there is no room within this time.
    pub async fn begin(self: &Arc<Self>, request_id: String, patience: Duration) -> Option<Recording> {
        let place = self.writer.place(patience).await?;
        let trail = Trail {
            request_id,
            address: OnceLock::new(),
            principal: OnceLock::new(),
            asked: OnceLock::new(),
            outcome: OnceLock::new(),
            challenged: OnceLock::new(),
        };
        let (log, trail) = (Arc::clone(self), Arc::new(trail));
        Some(Recording { log, trail, started: Instant::now(), status: None, place: Some(place) })
    }

    /// Says whether the queue of unwritten lines is full, so that requests wait.
    pub fn is_full(&self) -> bool {
        self.writer.is_full()
    }

    /// Waits until requests have ended and their lines are written, for at most this time. Says whether they are.
    pub async fn end(&self, patience: Duration) -> bool {
        self.writer.end(patience).await
    }
}

impl Trail {
    /// The id of the request, as in the `x-request-id` of its answer.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Where the request comes from.
    pub fn came_from(&self, address: IpAddr) {
        let _ = self.address.set(address);
    }

    /// Whether it is known who asks.
    pub fn is_authenticated(&self) -> bool {
        self.principal.get().is_some()
    }

    /// Who asks, once the token is verified.
    pub fn authenticated(&self, principal: Arc<Principal>) {
        let _ = self.principal.set(principal);
    }

    /// What is asked, once the body is understood: a method, and the tool if it names one.
    pub fn understood(&self, method: &'static str, tool: Option<&str>) {
        let tool = tool.map(|tool| tool.chars().take(MAXIMUM_TOOL_NAME).collect());
        let _ = self.asked.set(Asked { method, tool });
    }

    /// How it was decided. The first decision stands.
    pub fn decided(&self, outcome: Outcome) {
        let _ = self.outcome.set(outcome);
    }

    /// What was granted is answered by a challenge, for this stable reason: Entra takes another sign-in of the user first.
    pub fn challenged(&self, reason: &'static str) {
        let _ = self.challenged.set(reason);
    }
}

impl Recording {
    /// For the layers to leave their findings in.
    pub fn trail(&self) -> Arc<Trail> {
        Arc::clone(&self.trail)
    }

    /// Ends the recording of a request that was answered with this HTTP status.
    pub fn answered(mut self, status: u16) {
        self.status = Some(status);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // Ended before anything was judged: nothing was let in or kept out.
        let (Some(outcome), Some(place)) = (self.trail.outcome.get(), self.place.take()) else { return };
        let asked = self.trail.asked.get();
        let principal = self.trail.principal.get();
        let (decision, reason, rule) = match (outcome, self.trail.challenged.get()) {
            (Outcome::Open, _) => (Decision::Allowed, "authenticated", None),
            (Outcome::Granted(rule), None) => (Decision::Allowed, "granted", Some(rule)),
            (Outcome::Refused(reason), _) => (Decision::Refused, *reason, None),
            (Outcome::Granted(rule), Some(reason)) | (Outcome::RefusedBy(reason, rule), _) => {
                (Decision::Refused, *reason, Some(rule))
            }
        };
        let method = asked.map(|asked| asked.method);
        let latency = self.started.elapsed();
        self.log.metrics.count(method.unwrap_or(""), decision.name(), reason, latency);
        let (request_id, server) = (&self.trail.request_id, &self.log.server);
        if reason == tokenless::REASON {
            let address = self.trail.address.get().copied();
            let (request_id, status) = (request_id.clone(), self.status);
            return self.log.writer.tokenless(tokenless::Request { request_id, address, status, latency }, place);
        }
        let line = Line {
            tenant_id: principal.map(|principal| principal.tenant_id()),
            object_id: principal.map(|principal| principal.object_id()),
            client_id: principal.map(|principal| principal.client_id()),
            caller: principal.map(|principal| Caller::of(principal)),
            method,
            tool: asked.and_then(|asked| asked.tool.as_deref()),
            decision,
            rule,
            ..Line::refused(request_id, server, reason, self.status, latency)
        };
        self.log.writer.line(&line, place);
    }
}
