//! The audit log: one JSON line on standard output for every judged request. A line has the caller, the request, the
//! decision, the deciding rule and the outcome.
//!
//! A line holds ids and names of rules, never a token, a claim of an unverified token, an argument or an answer. It
//! is written when the answer's body ends. If the client hangs up or the time limit passes first, the line has no
//! status.
//!
//! [`mod@line`] has the format, [`chain`] the hash chain, `reasons` every reason, `writer` the queue of lines.
//! `anonymous` counts most refusals without a principal.

mod anonymous;
pub mod chain;
mod line;
mod queue;
mod reasons;
mod target;
mod writer;

use std::io::Write;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use mcp_entra_policy::{AuditConfiguration, ServerReference};

pub use line::{Rule, schema};
pub use target::Target;
pub use writer::Unfinished;

use crate::telemetry::Metrics;
use crate::token::Principal;
use chain::Chain;
use line::{Caller, Decision, Line};
use writer::{Place, Writer};

/// Longest short name of a client, in bytes. The longest is a URL.
const MAXIMUM_CLIENT: usize = 256;

/// The audit log.
pub struct AuditLog {
    server: String,
    metrics: Arc<Metrics>,
    writer: Writer,
    /// Time of the last log line about a full queue.
    full_logged: Mutex<Option<Instant>>,
}

/// The decision about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Any authenticated caller may do this.
    Open,
    /// The authorization server did it, for this stable reason.
    Done(&'static str),
    /// A grant allows it.
    Granted(Rule),
    /// The request was refused, for this stable reason.
    Refused(&'static str),
    /// A deny refused the request, or a grant whose requirements are not met, for this stable reason.
    RefusedBy(&'static str, Rule),
}

/// Facts about one request. The stages of the request add them, and each is set once.
pub struct Trail {
    request_id: String,
    /// The client's address, if known. It is only for counting and never appears in a line.
    address: OnceLock<IpAddr>,
    principal: OnceLock<Arc<Principal>>,
    /// Tenant and user of the session that the request concerns, if no token names them.
    person: OnceLock<(String, String)>,
    /// Short name of the client, if it is one of the authorization server's.
    client: OnceLock<String>,
    asked: OnceLock<Asked>,
    outcome: OnceLock<Outcome>,
    /// The reason why a granted call was answered with a challenge, if it was.
    challenged: OnceLock<&'static str>,
}

struct Asked {
    method: &'static str,
    target: Option<Target>,
}

/// The recording of one request, until its answer ends. Dropping it writes the line, so that every request is
/// recorded however it ends.
pub struct Recording {
    log: Arc<AuditLog>,
    trail: Arc<Trail>,
    started: Instant,
    /// The HTTP status, and the time from the request until then.
    answered: Option<(u16, Duration)>,
    /// Taken when the line enters the queue.
    place: Option<Place>,
}

impl AuditLog {
    /// Starts the audit log of this server and counts its requests in these metrics. Fails if no thread can be
    /// started.
    pub fn start(
        server: &ServerReference,
        configuration: AuditConfiguration,
        metrics: Arc<Metrics>,
        lines: Box<dyn Write + Send>,
    ) -> std::io::Result<Self> {
        let server = format!("{}/{}", server.namespace, server.name);
        let chain = configuration.hash_chain.then(Chain::begin);
        let writer = Writer::start(server.clone(), lines, chain, Arc::clone(&metrics))?;
        Ok(Self { server, metrics, writer, full_logged: Mutex::default() })
    }

    /// Begins the recording of a request. Waits while the queue is full: a request that cannot be recorded must not
    /// run. Returns none and counts the refusal if there is no room within this time.
    pub async fn begin(self: &Arc<Self>, request_id: String, patience: Duration) -> Option<Recording> {
        let Some(place) = self.writer.place(patience).await else {
            self.metrics.count("", Decision::Refused.name(), reasons::FULL, patience);
            self.log_full();
            return None;
        };
        let trail = Trail {
            request_id,
            address: OnceLock::new(),
            principal: OnceLock::new(),
            person: OnceLock::new(),
            client: OnceLock::new(),
            asked: OnceLock::new(),
            outcome: OnceLock::new(),
            challenged: OnceLock::new(),
        };
        let (log, trail) = (Arc::clone(self), Arc::new(trail));
        Some(Recording { log, trail, started: Instant::now(), answered: None, place: Some(place) })
    }

    /// Logs a full queue, at most once a minute.
    fn log_full(&self) {
        let mut logged = self.full_logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|at| at.elapsed() >= anonymous::PERIOD) {
            *logged = Some(Instant::now());
            let reason = reasons::FULL;
            tracing::error!(reason, "refusing requests: the queue of unwritten audit lines is full");
        }
    }

    /// Returns the reason why lines cannot be written, if any. Requests wait meanwhile.
    pub fn trouble(&self) -> Option<String> {
        self.writer.trouble()
    }

    /// Waits until requests end and their lines are written, for at most this time.
    pub async fn end(&self, patience: Duration) -> Result<(), Unfinished> {
        self.writer.end(patience).await
    }
}

impl Trail {
    /// Returns the id of the request: the `x-request-id` of its answer.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Sets the address that the request comes from.
    pub fn came_from(&self, address: IpAddr) {
        let _ = self.address.set(address);
    }

    /// Sets the principal, once the token is verified.
    pub fn authenticated(&self, principal: Arc<Principal>) {
        let _ = self.principal.set(principal);
    }

    /// Sets the short name of the authorization server's client.
    pub fn client(&self, reference: &str) {
        let _ = self.client.set(reference.chars().take(MAXIMUM_CLIENT).collect());
    }

    /// Sets the person and the client of a session.
    pub fn concerns(&self, tenant_id: &str, object_id: &str, client: &str) {
        let _ = self.person.set((tenant_id.to_owned(), object_id.to_owned()));
        self.client(client);
    }

    /// Sets the method and its target, once the body is understood.
    pub fn understood(&self, method: &'static str, target: Option<Target>) {
        let _ = self.asked.set(Asked { method, target: target.map(Target::shortened) });
    }

    /// Sets the decision. The first one counts.
    pub fn decided(&self, outcome: Outcome) {
        let _ = self.outcome.set(outcome);
    }

    /// Sets the stable reason why a granted call is answered with a challenge or 503: Entra needs another sign-in
    /// first, or the session store does not answer.
    pub fn challenged(&self, reason: &'static str) {
        let _ = self.challenged.set(reason);
    }
}

impl Recording {
    /// Returns the trail, to which the stages add facts.
    pub fn trail(&self) -> Arc<Trail> {
        Arc::clone(&self.trail)
    }

    /// Sets the HTTP status of the answer. Its body may still follow.
    pub fn answered(&mut self, status: u16) {
        self.answered = Some((status, self.started.elapsed()));
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // The request ended before it was judged: nothing was allowed or refused.
        let (Some(outcome), Some(place)) = (self.trail.outcome.get(), self.place.take()) else { return };
        let asked = self.trail.asked.get();
        let principal = self.trail.principal.get();
        let (decision, reason, rule) = match (outcome, self.trail.challenged.get()) {
            (Outcome::Open, _) => (Decision::Allowed, "authenticated", None),
            (Outcome::Done(reason), _) => (Decision::Allowed, *reason, None),
            (Outcome::Granted(rule), None) => (Decision::Allowed, "granted", Some(rule)),
            (Outcome::Refused(reason), _) => (Decision::Refused, *reason, None),
            (Outcome::Granted(rule), Some(reason)) | (Outcome::RefusedBy(reason, rule), _) => {
                (Decision::Refused, *reason, Some(rule))
            }
        };
        let method = asked.map(|asked| asked.method);
        let target = asked.and_then(|asked| asked.target.as_ref());
        let (status, latency) = match self.answered {
            Some((status, latency)) => (Some(status), latency),
            None => (None, self.started.elapsed()),
        };
        self.log.metrics.count(method.unwrap_or(""), decision.name(), reason, latency);
        let (request_id, server) = (&self.trail.request_id, &self.log.server);
        let request = || anonymous::Request {
            request_id: request_id.clone(),
            decision,
            address: self.trail.address.get().copied(),
            status,
            latency,
        };
        let person = self.trail.person.get();
        if principal.is_none() && person.is_none() && !self.log.writer.has_own_line(reason, request) {
            return;
        }
        let line = Line {
            tenant_id: principal
                .map(|principal| principal.tenant_id())
                .filter(|id| !id.is_empty())
                .or(person.map(|(tenant, _)| tenant.as_str())),
            object_id: principal
                .map(|principal| principal.object_id())
                .filter(|id| !id.is_empty())
                .or(person.map(|(_, user)| user.as_str())),
            client_id: self.trail.client.get().map(String::as_str).or(principal.map(|principal| principal.client_id())),
            caller: principal.map(|principal| Caller::of(principal)),
            method,
            tool: target.and_then(Target::as_tool),
            prompt: target.and_then(Target::as_prompt),
            resource: target.and_then(Target::uri),
            decision,
            rule,
            ..Line::refused(request_id, server, reason, status, latency)
        };
        self.log.writer.line(&line, place);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use chain::{Runs, Verified, verify};

    const SOON: Duration = Duration::from_secs(30);

    /// A standard output whose first answers the test chooses. Then it accepts everything.
    struct Output {
        answers: Receiver<std::io::Result<usize>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let taken = self.answers.recv().unwrap_or(Ok(bytes.len()))?.min(bytes.len());
            self.written.lock().unwrap().extend(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    struct Test {
        log: Arc<AuditLog>,
        /// The output blocks until it receives an answer.
        answers: Sender<std::io::Result<usize>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Test {
        fn new() -> Self {
            let (answers, questions) = channel();
            let written = Arc::<Mutex<Vec<u8>>>::default();
            let output = Output { answers: questions, written: Arc::clone(&written) };
            let server = ServerReference { namespace: "productivity".into(), name: "graph".into() };
            let configuration = AuditConfiguration { hash_chain: true };
            let log = AuditLog::start(&server, configuration, Arc::default(), Box::new(output)).unwrap();
            Self { log: Arc::new(log), answers, written }
        }

        async fn begin(&self) -> Recording {
            self.log.begin("id".to_owned(), SOON).await.expect("a place in the queue")
        }

        /// Begins and refuses a request for this reason, without a principal.
        async fn refuse(&self, reason: &'static str) {
            let mut recording = self.begin().await;
            recording.trail().decided(Outcome::Refused(reason));
            recording.answered(400);
        }

        /// Waits until everything is written, and returns it.
        async fn end(self) -> String {
            drop(self.answers);
            self.log.end(SOON).await.unwrap();
            let written = self.written.lock().unwrap().clone();
            String::from_utf8(written).unwrap()
        }
    }

    #[tokio::test]
    async fn a_flood_of_refusals_without_a_principal_fills_no_queue_and_each_is_counted() {
        let reasons = ["token_missing", "malformed_authorization", "host_not_accepted", "address_rate_limited"];
        let test = Test::new();
        for _ in 0..2_000 {
            for reason in reasons {
                test.refuse(reason).await;
            }
        }
        assert_eq!(test.log.trouble(), None);
        let log = test.end().await;
        let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for reason in reasons {
            let (counted, own): (Vec<_>, Vec<_>) =
                lines.iter().filter(|line| line["reason"] == reason).partition(|line| line["count"].is_u64());
            assert_eq!(own.len(), if reason == "token_missing" { 0 } else { 20 }, "{reason}");
            assert_eq!(counted.len(), 1, "{reason}");
            assert_eq!(counted[0]["count"], 2_000 - own.len(), "{reason}");
        }
    }

    #[tokio::test]
    async fn a_partial_write_is_reported_and_retried_and_keeps_the_chain_valid() {
        let test = Test::new();
        test.answers.send(Ok(10)).unwrap();
        test.answers.send(Err(std::io::ErrorKind::StorageFull.into())).unwrap();
        test.refuse("expired").await;
        let told = tokio::time::timeout(SOON, async {
            loop {
                match test.log.trouble() {
                    Some(told) => break told,
                    None => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        let told = told.await.expect("the failure is told");
        assert!(told.contains("the last write to standard output failed: no storage space"), "{told}");
        test.refuse("expired").await;
        let log = Arc::clone(&test.log);
        let text = test.end().await;
        assert_eq!((log.trouble(), text.lines().count()), (None, 2), "{text}");
        let verified = verify(&mut text.as_bytes(), &Runs::new(), &mut std::io::sink()).unwrap();
        assert_eq!(verified, Verified::Whole, "{text}");
    }

    #[tokio::test]
    async fn the_end_distinguishes_an_endless_request_from_a_blocked_output() {
        let patience = Duration::from_millis(500);
        let test = Test::new();
        let running = test.begin().await;
        drop(test.answers);
        assert_eq!(test.log.end(patience).await, Err(Unfinished::Requests));
        drop(running);

        let test = Test::new();
        test.refuse("expired").await;
        assert_eq!(test.log.end(patience).await, Err(Unfinished::Lines));
    }

    #[tokio::test]
    async fn waiting_lines_are_written_at_the_end_even_if_a_request_does_not_finish() {
        let test = Test::new();
        test.refuse("expired").await;
        let _running = test.begin().await;
        drop(test.answers);
        assert_eq!(test.log.end(Duration::from_millis(500)).await, Err(Unfinished::Requests));
        assert!(String::from_utf8_lossy(&test.written.lock().unwrap()).contains("expired"));
    }
}
