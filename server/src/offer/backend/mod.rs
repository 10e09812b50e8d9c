//! Offer of a backend: another MCP server's tools, prompts and resources, for callers with a grant in the policy.
//!
//! [`entries`] converts the backend's lists into offered entries, and [`replies`] converts its answers into replies.
//! [`state`] seals the state of calls. [`probe`] regularly checks the backend for the pod's status.

mod entries;
mod probe;
mod replies;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use axum::http::HeaderMap;
use futures::stream::{self, Stream, StreamExt};
use mcp_entra_policy::{BackendConfiguration, BackendIdentity, BackendStatus};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::entries::Snapshots;
use self::probe::Probed;
use self::state::Seal;
use super::{
    About, Call, Change, Changes, Completion, CompletionReference, CompletionRequest, Failure, InputRequired,
    Listening, LogLevel, Notices, Offer, Offered, Operation, Progress, Reply, Unavailable, parameter_headers,
};
use crate::backend::{self, BackendError, Catalogue, Held, Identity, Notice, Peer, Place, Request, Sessions, Updates};
use crate::backend_identity::{BackendIdentities, BackendIdentityError, Told};
use crate::raw_json::{RawObject, raw};
use crate::strict_json;
use crate::token::Principal;

/// Maximum number of rounds in which a backend asks only for its state.
const MAXIMUM_ROUNDS: usize = 8;

/// Time in which several changes of the lists are reported as one.
const CHANGE_PAUSE: Duration = Duration::from_millis(600);

/// Instructions for models. The backend's own instructions may name tools that the caller does not see.
const INSTRUCTIONS: &str = "Each user sees the tools, prompts and resources that a role grants.";

/// The offer of one backend.
pub struct BackendOffer {
    sessions: Arc<Sessions>,
    snapshots: Snapshots,
    about: ArcSwap<About>,
    changes: Changes,
    probed: Probed,
    /// Seals the state of calls to the caller. Present if the backend cannot distinguish callers.
    seal: Option<Seal>,
    identities: Arc<BackendIdentities>,
    /// Addresses that this server listens on.
    own: Vec<SocketAddr>,
}

/// Parts of the server for a new offer.
pub struct Parts {
    /// Title of the server, for people.
    pub title: String,
    /// Address of the backend.
    pub place: Place,
    /// Identities of callers that the backend receives.
    pub identities: BackendIdentities,
    /// Addresses that this server listens on.
    pub own: Vec<SocketAddr>,
}

impl BackendOffer {
    /// Returns the offer of this backend. Probes the backend until `stop` is cancelled.
    ///
    /// # Errors
    /// If the HTTP client cannot be made.
    pub fn start(
        Parts { title, place, identities, own }: Parts,
        configuration: &BackendConfiguration,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, reqwest::Error> {
        let changes = Changes::new();
        let on_list_change = Arc::new(told_seldom(changes.clone()));
        // Until the backend has answered, it may have any capability.
        let about =
            About { prompts: true, resources: true, completions: true, updates_resources: true, ..described(title) };
        let seal = matches!(configuration.identity, BackendIdentity::None).then(Seal::random);
        let offer = Arc::new(Self {
            sessions: Arc::new(Sessions::new(place, configuration.sessions, on_list_change)?),
            snapshots: Snapshots::new(configuration.pin.clone()),
            about: ArcSwap::from_pointee(about),
            changes,
            probed: Probed::default(),
            seal,
            identities: Arc::new(identities),
            own,
        });
        tokio::spawn(stop.run_until_cancelled_owned(probe::run(Arc::clone(&offer))));
        Ok(offer)
    }

    /// Returns the state of the backend at the last probe.
    pub fn status(&self) -> BackendStatus {
        self.probed.status()
    }

    /// Updates the description of the offer from the backend's description of itself.
    fn describe(&self, peer: &Peer) {
        let known = self.about.load();
        let Peer { prompts, resources, completions, logs, updates_resources, .. } = *peer;
        let about = About { prompts, resources, completions, logs, updates_resources, ..About::clone(&known) };
        if about != **known {
            self.about.store(Arc::new(about));
            self.changes.tell(Change::Offered);
        }
    }

    /// Sends a request to the backend on behalf of the caller. If the backend requires further claims in the token,
    /// the token is exchanged again, once. A sign-in that Entra then requires is passed on to the user. Another
    /// challenge of the backend is not.
    async fn ask(&self, principal: &Arc<Principal>, request: Request<'_>) -> Result<(RawObject, Held), NoAnswer> {
        let (caller, told) = (key(principal), self.told(principal).await?);
        match self.sessions.ask(&caller, &request, &self.identity(principal, &told)).await {
            Err(BackendError::Unauthorized(headers)) => match self.told_anew(principal, &told, &headers).await? {
                Some(anew) => Ok(self.sessions.ask(&caller, &request, &self.identity(principal, &anew)).await?),
                None => Err(BackendError::Unauthorized(headers).into()),
            },
            answer => Ok(answer?),
        }
    }

    /// Returns the backend's lists for this caller.
    async fn catalogue(&self, principal: &Arc<Principal>) -> Result<Arc<Catalogue>, NoAnswer> {
        let (caller, told) = (key(principal), self.told(principal).await?);
        match self.sessions.catalogue(&caller, &self.identity(principal, &told)).await {
            Err(BackendError::Unauthorized(headers)) => match self.told_anew(principal, &told, &headers).await? {
                Some(anew) => Ok(self.sessions.catalogue(&caller, &self.identity(principal, &anew)).await?.0),
                None => Err(BackendError::Unauthorized(headers).into()),
            },
            read => Ok(read?.0),
        }
    }

    /// Returns the identity that the backend receives with this caller's requests.
    async fn told(&self, principal: &Principal) -> Result<Told, NoAnswer> {
        Ok(self.identities.tell(principal, "initialize").await?)
    }

    /// Returns another identity after the backend has refused the first one and asked for claims.
    async fn told_anew(
        &self,
        principal: &Principal,
        refused: &Told,
        headers: &HeaderMap,
    ) -> Result<Option<Told>, NoAnswer> {
        match self.identities.sign_in(headers) {
            Some(_) => Ok(self.identities.tell_anew(principal, refused, headers).await?),
            None => Ok(None),
        }
    }

    /// Returns the identity for requests. An assertion is new for each request.
    fn identity(&self, principal: &Arc<Principal>, told: &Told) -> Identity {
        match told {
            Told::Nothing => Identity::Nothing,
            Told::Token(token) => Identity::Token(token.clone()),
            Told::Assertion(_) => {
                let (identities, principal) = (Arc::clone(&self.identities), Arc::clone(principal));
                Identity::Asserted(Arc::new(move |target| identities.assert(&principal, target)))
            }
        }
    }

    async fn forward(&self, call: Call) -> Result<Reply, NoAnswer> {
        let Call { operation, principal, offered, mut input, client, .. } = call;
        let caller = key(&principal);
        if let (Some(seal), Some(state)) = (&self.seal, &input.state) {
            let Some(state) = seal.open(&caller, &operation, state) else {
                return Ok(Reply::Failed(Failure::invalid(state::FOREIGN)));
            };
            input.state = Some(state);
        }
        for _ in 0..MAXIMUM_ROUNDS {
            let mut params = replies::params(&operation);
            if !input.responses.is_empty() {
                params.set("inputResponses", raw(&json!(input.responses)));
            }
            if let Some(state) = &input.state {
                params.set("requestState", raw(&json!(state)));
            }
            let request = Request {
                method: replies::method(&operation),
                params,
                name: Some(operation.name()),
                repeated: repeated(&operation, &offered),
                capabilities: Arc::clone(&client.capabilities),
                log_level: client.log_level.and_then(name),
                notices: heard(&client.notices),
            };
            match replies::reply(&operation, self.ask(&principal, request).await?) {
                // The backend requires no input of the client, only its state.
                Reply::InputRequired(InputRequired { requests, state: Some(state) }) if requests.is_empty() => {
                    input.state = Some(state);
                    input.responses.clear();
                }
                Reply::InputRequired(required) => {
                    let state = match (&self.seal, required.state) {
                        (Some(seal), Some(state)) => seal.seal(&caller, &operation, &state),
                        (_, state) => state,
                    };
                    return Ok(Reply::InputRequired(InputRequired { state, ..required }));
                }
                reply => return Ok(reply),
            }
        }
        Ok(replies::in_words(&operation, "the backend requests its own state again and again; try again later"))
    }
}

#[async_trait]
impl Offer for BackendOffer {
    fn about(&self) -> Arc<About> {
        self.about.load_full()
    }

    async fn snapshot(&self, principal: &Arc<Principal>) -> Result<Arc<Offered>, Unavailable> {
        Ok(self.snapshots.of(&self.catalogue(principal).await?))
    }

    async fn call(&self, call: Call) -> Reply {
        let operation = call.operation.clone();
        self.forward(call).await.unwrap_or_else(|no_answer| match no_answer {
            NoAnswer::Caller(error) => replies::unknown_caller(&operation, &error),
            NoAnswer::Backend(error) => replies::failure(&operation, error),
        })
    }

    async fn complete(&self, request: CompletionRequest, principal: &Arc<Principal>) -> Result<Completion, Failure> {
        let CompletionRequest { reference, argument, value, context } = request;
        let (reference, name) = match &reference {
            CompletionReference::Prompt(name) => (json!({ "type": "ref/prompt", "name": name }), name),
            CompletionReference::Template(uri) => (json!({ "type": "ref/resource", "uri": uri }), uri),
        };
        let mut params = RawObject::default();
        params.set("ref", raw(&reference));
        params.set("argument", raw(&json!({ "name": argument, "value": value })));
        if !context.is_empty() {
            params.set("context", raw(&json!({ "arguments": context })));
        }
        let request = Request {
            method: "completion/complete",
            params,
            name: Some(name),
            repeated: Vec::new(),
            capabilities: Arc::default(),
            log_level: None,
            notices: None,
        };
        let (result, _) = self.ask(principal, request).await.map_err(|no_answer| match no_answer {
            NoAnswer::Caller(error) => Failure::internal(error.told()),
            NoAnswer::Backend(error) => replies::error(error),
        })?;
        let completion = result.get("completion").filter(|completion| completion.get().len() <= replies::LONGEST);
        let completion = completion.and_then(|completion| RawObject::parse(completion.get())).unwrap_or_default();
        Ok(Completion { values: completion.read("values").unwrap_or_default() })
    }

    /// Listens to these resources. Reports no updates of a resource if the backend refuses it or does not answer.
    async fn listen(&self, principal: &Arc<Principal>, uris: Vec<String>) -> Listening {
        let nothing = || Listening::to_changes(Vec::new());
        let Ok(told) = self.told(principal).await else { return nothing() };
        let identity = self.identity(principal, &told);
        match self.sessions.listen(&key(principal), &uris, &identity).await {
            Ok(Some((uris, updates))) => Listening { uris, updates: each(updates).boxed() },
            Ok(None) | Err(_) => nothing(),
        }
    }

    fn changes(&self) -> Changes {
        self.changes.clone()
    }
}

/// Returns the updates one by one.
fn each(updates: Updates) -> impl Stream<Item = String> + Send + 'static {
    let batches = stream::unfold(updates, |mut updates| async { Some((updates.next().await, updates)) });
    batches.flat_map(stream::iter)
}

/// The reason why a caller gets no answer from the backend.
enum NoAnswer {
    /// There is no identity of the caller for the backend.
    Caller(BackendIdentityError),
    /// The backend does not answer.
    Backend(BackendError),
}

impl From<BackendIdentityError> for NoAnswer {
    fn from(error: BackendIdentityError) -> Self {
        Self::Caller(error)
    }
}

impl From<BackendError> for NoAnswer {
    fn from(error: BackendError) -> Self {
        Self::Backend(error)
    }
}

impl From<NoAnswer> for Unavailable {
    fn from(no_answer: NoAnswer) -> Self {
        match no_answer {
            NoAnswer::Caller(error) => Self { text: error.to_string(), sign_in: error.sign_in() },
            NoAnswer::Backend(error) => Self { text: error.to_string(), sign_in: None },
        }
    }
}

/// Returns a function that reports a change of the offer. It merges several calls into one report after a delay. A
/// backend may report changes all the time, and each report makes all listeners read the offer again.
fn told_seldom(changes: Changes) -> impl Fn() + Send + Sync {
    let is_pending = Arc::new(AtomicBool::new(false));
    move || {
        if is_pending.swap(true, Ordering::AcqRel) {
            return;
        }
        let (is_pending, changes) = (Arc::clone(&is_pending), changes.clone());
        tokio::spawn(async move {
            tokio::time::sleep(CHANGE_PAUSE).await;
            is_pending.store(false, Ordering::Release);
            changes.tell(Change::Offered);
        });
    }
}

fn described(title: String) -> About {
    About { title, instructions: INSTRUCTIONS.to_owned(), ..About::default() }
}

/// Returns the key of a caller's session. No other caller has this key.
fn key(principal: &Principal) -> String {
    format!("{}/{}", principal.tenant_id(), principal.object_id())
}

/// Returns the headers that repeat arguments, if the schema of the offered tool requires them.
fn repeated(operation: &Operation, offered: &Offered) -> Vec<(String, String)> {
    let Operation::Tool { name, arguments } = operation else { return Vec::new() };
    let Some(tool) = offered.tool(name) else { return Vec::new() };
    let headers = parameter_headers(&tool.input_schema, arguments).into_iter();
    headers.filter_map(|(header, argument)| Some((header, argument?))).collect()
}

/// Returns the name of a severity, as MCP writes it.
fn name(level: LogLevel) -> Option<String> {
    json!(level).as_str().map(str::to_owned)
}

/// Returns a callback that passes on the backend's notices about a request, if the client wants them.
fn heard(notices: &Notices) -> Option<backend::OnNotice> {
    let notices = notices.is_heard().then(|| notices.clone())?;
    Some(Arc::new(move |notice| match notice {
        Notice::Progress { done, total, message } => {
            notices.report(Progress { done: Some(done), total, message });
        }
        Notice::Log { level, data } => {
            let data = strict_json::from_slice(data.get().as_bytes());
            if let (Ok(level), Ok(data)) = (serde_json::from_value(json!(level)), data) {
                notices.log(level, data);
            }
        }
        // Only streams are acknowledged.
        Notice::Acknowledged(_) => {}
    }))
}
