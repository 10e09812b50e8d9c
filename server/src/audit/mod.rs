//! The audit log: one JSON line on standard output for every request that was judged, saying who asked for what, how
//! it was decided, by which rule, and how it ended.
//!
//! A line holds ids and names of rules, never a token, a claim of an unverified token, an argument or an answer. It is
//! written when the request ends, also when the client hung up or the time limit struck before there was an answer:
//! then without a status. What stands in it is in `line`, how lines are chained by hashes in [`chain`], and every reason in `reasons`.

pub mod chain;
mod line;
mod reasons;

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use mcp_entra_policy::{AuditConfiguration, ServerReference};

pub use line::{Rule, schema};

use crate::telemetry::Metrics;
use crate::token::Principal;
use chain::Chain;
use line::{Caller, Decision, Line};

/// Tool names come from clients, and an unknown one is no reason for a long line.
const MAXIMUM_TOOL_NAME: usize = 64;

/// Where audit lines go.
pub struct AuditLog {
    server: String,
    metrics: Arc<Metrics>,
    output: Mutex<Output>,
}

struct Output {
    lines: Box<dyn Write + Send>,
    chain: Option<Chain>,
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
}

impl AuditLog {
    /// A log of this server's requests, counted in these metrics.
    pub fn new(
        server: &ServerReference,
        configuration: AuditConfiguration,
        metrics: Arc<Metrics>,
        lines: Box<dyn Write + Send>,
    ) -> Self {
        let server = format!("{}/{}", server.namespace, server.name);
        let chain = configuration.hash_chain.then(Chain::begin);
        Self { server, metrics, output: Mutex::new(Output { lines, chain }) }
    }

    /// Begins the recording of a request.
    pub fn begin(self: &Arc<Self>, request_id: String) -> Recording {
        let trail = Trail {
            request_id,
            principal: OnceLock::new(),
            asked: OnceLock::new(),
            outcome: OnceLock::new(),
            challenged: OnceLock::new(),
        };
        Recording { log: Arc::clone(self), trail: Arc::new(trail), started: Instant::now(), status: None }
    }

    /// Blocks while the reader of standard output is slow: an action that cannot be recorded has to wait.
    fn write(&self, line: &Line<'_>) {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let Output { lines, chain } = &mut *output;
        let text = serde_json::to_string(line).map_err(std::io::Error::from);
        let written = text.and_then(|text| {
            let text = chain.as_mut().map_or(text.clone(), |chain| chain.append(&text));
            lines.write_all(format!("{text}\n").as_bytes())?;
            lines.flush()
        });
        if let Err(error) = written {
            tracing::error!(%error, request_id = line.request_id, "audit line not written");
        }
    }
}

impl Trail {
    /// The id of the request, as in the `x-request-id` of its answer.
    pub fn request_id(&self) -> &str {
        &self.request_id
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
        let Some(outcome) = self.trail.outcome.get() else { return };
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
        self.log.write(&Line {
            schema: line::SCHEMA,
            time: jiff::Timestamp::now().to_string(),
            request_id: &self.trail.request_id,
            server: &self.log.server,
            tenant_id: principal.map(|principal| principal.tenant_id()),
            object_id: principal.map(|principal| principal.object_id()),
            client_id: principal.map(|principal| principal.client_id()),
            caller: principal.map(|principal| Caller::of(principal)),
            method,
            tool: asked.and_then(|asked| asked.tool.as_deref()),
            decision,
            reason,
            rule,
            status: self.status,
            latency_ms: u64::try_from(latency.as_millis()).unwrap_or(u64::MAX),
        });
    }
}
