//! The audit log: one JSON line on standard output for every request that was judged, saying who asked for what, how
//! it was decided, by which rule, and how it ended.
//!
//! A line holds ids and names of rules, never a token, a claim of an unverified token, an argument or an answer. It is
//! written when the answer's body has ended, also when the client hung up or the time limit struck before there was an answer:
//! then without a status. What stands in it is in `line`, how lines are chained by hashes in [`chain`], and every reason in
//! `reasons`. Lines go through the queue of `writer`; most refusals without a principal are counted by
//! `anonymous`.

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

/// Longest short name of a client: a URL at the most.
const MAXIMUM_CLIENT: usize = 256;

/// The log that audit lines go to.
pub struct AuditLog {
    server: String,
    metrics: Arc<Metrics>,
    writer: Writer,
    /// Time of the last log line about the lack of room.
    full_logged: Mutex<Option<Instant>>,
}

/// The decision about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Any authenticated caller may do this.
    Open,
    /// The authorization server has done it, for this stable reason.
    Done(&'static str),
    /// A grant allows it.
    Granted(Rule),
    /// It was refused, for this stable reason.
    Refused(&'static str),
    /// It was refused for this stable reason by a deny, or by a grant whose requirements are not met.
    RefusedBy(&'static str, Rule),
}

/// Facts about one request that become known on its way through the stages; each is set once.
pub struct Trail {
    request_id: String,
    /// The client's address, if one is known: it counts requests, and stands in no line.
    address: OnceLock<IpAddr>,
    principal: OnceLock<Arc<Principal>>,
    /// Tenant and user of a session that the request is about, where no token says so.
    person: OnceLock<(String, String)>,
    /// Short name of the client, where it is one of the authorization server's.
    client: OnceLock<String>,
    asked: OnceLock<Asked>,
    outcome: OnceLock<Outcome>,
    /// The reason why a granted call was answered by a challenge, if it was.
    challenged: OnceLock<&'static str>,
}

struct Asked {
    method: &'static str,
    target: Option<Target>,
}

/// The recording of one request, to the end of its answer. Dropping it writes the line, so that no end of a request goes
/// unrecorded.
pub struct Recording {
    log: Arc<AuditLog>,
    trail: Arc<Trail>,
    started: Instant,
    /// The HTTP status, and the time until it was known.
    answered: Option<(u16, Duration)>,
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
        Ok(Self { server, metrics, writer, full_logged: Mutex::default() })
    }

    /// Begins the recording of a request, which waits while the queue of unwritten lines is full: what cannot be recorded is
    /// not done. Returns none if there is no room within this time, and counts the refusal.
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

    /// Tells once a minute that there is no room.
    fn log_full(&self) {
        let mut logged = self.full_logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|at| at.elapsed() >= anonymous::PERIOD) {
            *logged = Some(Instant::now());
            let reason = reasons::FULL;
            tracing::error!(reason, "requests are refused: the queue of unwritten audit lines is full");
        }
    }

    /// Says what keeps lines from being written, if something does: then requests wait.
    pub fn trouble(&self) -> Option<String> {
        self.writer.trouble()
    }

    /// Waits until requests have ended and their lines are written, for at most this time.
    pub async fn end(&self, patience: Duration) -> Result<(), Unfinished> {
        self.writer.end(patience).await
    }
}

impl Trail {
    /// The id of the request, as in the `x-request-id` of its answer.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Notes the address that the request comes from.
    pub fn came_from(&self, address: IpAddr) {
        let _ = self.address.set(address);
    }

    /// Notes the principal, once the token is verified.
    pub fn authenticated(&self, principal: Arc<Principal>) {
        let _ = self.principal.set(principal);
    }

    /// Notes the client of the authorization server, by its short name.
    pub fn client(&self, reference: &str) {
        let _ = self.client.set(reference.chars().take(MAXIMUM_CLIENT).collect());
    }

    /// Notes the person and the client of a session.
    pub fn concerns(&self, tenant_id: &str, object_id: &str, client: &str) {
        let _ = self.person.set((tenant_id.to_owned(), object_id.to_owned()));
        self.client(client);
    }

    /// Notes the method, once the body is understood, and what it names.
    pub fn understood(&self, method: &'static str, target: Option<Target>) {
        let _ = self.asked.set(Asked { method, target: target.map(Target::shortened) });
    }

    /// Notes the decision. The first one stands.
    pub fn decided(&self, outcome: Outcome) {
        let _ = self.outcome.set(outcome);
    }

    /// Notes that a granted call is answered by a challenge or 503, for this stable reason: Entra takes another sign-in of the
    /// user first, or the store of sessions does not answer.
    pub fn challenged(&self, reason: &'static str) {
        let _ = self.challenged.set(reason);
    }
}

impl Recording {
    /// The trail that the stages leave their findings in.
    pub fn trail(&self) -> Arc<Trail> {
        Arc::clone(&self.trail)
    }

    /// Notes the HTTP status of the answer, whose body may be yet to come.
    pub fn answered(&mut self, status: u16) {
        self.answered = Some((status, self.started.elapsed()));
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

    /// A standard output that answers the first questions to it as it is told, and then takes everything.
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
        /// While nobody answers, the output blocks.
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

        /// A request that is refused for this reason before it is known who asks.
        async fn refuse(&self, reason: &'static str) {
            let mut recording = self.begin().await;
            recording.trail().decided(Outcome::Refused(reason));
            recording.answered(400);
        }

        /// Lets everything be written, and returns it.
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
    async fn lines_whose_write_fails_half_way_are_told_of_tried_again_and_leave_the_chain_whole() {
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
    async fn the_end_tells_a_request_that_does_not_end_from_an_output_that_takes_nothing() {
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
    async fn what_has_waited_before_the_end_is_written_although_a_request_does_not_end() {
        let test = Test::new();
        test.refuse("expired").await;
        let _running = test.begin().await;
        drop(test.answers);
        assert_eq!(test.log.end(Duration::from_millis(500)).await, Err(Unfinished::Requests));
        assert!(String::from_utf8_lossy(&test.written.lock().unwrap()).contains("expired"));
    }
}
