//! A session with a backend: the revision that it speaks, and requests in that revision.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::HeaderMap;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::{BackendError, PeerError};
use super::held::{Budget, Held, Share};
use super::http::{Headers, Http};
use super::link::{Link, MODERN, assert_in, client_info, modern_meta, repeat};
use super::{Identity, OnNotice, listening, message};
use crate::backend_identity::Told;
use crate::raw_json::{RawObject, raw};

/// The revisions with a handshake, the newest first.
const WITH_HANDSHAKE: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

/// Time for an answer of the handshake or a page of a list: the program may have just been started.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for the answer to a subscription.
const SUBSCRIPTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Methods whose requests repeat in a header what they name.
const NAMED: [&str; 3] = ["tools/call", "prompts/get", "resources/read"];

/// The id of the stream about lists. Other requests have the ids after it.
const LISTENING_ID: u64 = 1;
const FIRST_ID: u64 = 2;

const UNSUPPORTED_VERSION: i64 = -32022;
/// The longest name or version that is taken of a backend, in characters.
const LONGEST_NAME: usize = 100;

/// Times that answers may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// That to a call, in all.
    pub(super) call: Duration,
    /// That to the question that backends with a handshake need not answer.
    pub(super) discover: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { call: Duration::from_secs(300), discover: Duration::from_secs(20) }
    }
}

/// A session.
pub(super) struct Session {
    link: Arc<Link>,
    next_id: AtomicU64,
    peer: Peer,
    /// Memory of what this session asks for itself.
    memory: Budget,
    timeouts: Timeouts,
    /// Ends with the session, as far as there is anything to listen to.
    _listening: Option<DropGuard>,
    /// Tells that the session has ended when this is dropped.
    _end: DropGuard,
}

/// A backend as it describes itself. Its words are cut to a length and free of control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The revision of the protocol that it speaks.
    pub protocol: String,
    /// True if it has tools.
    pub tools: bool,
    /// True if it has prompts.
    pub prompts: bool,
    /// True if it has resources.
    pub resources: bool,
    /// True if it completes arguments.
    pub completions: bool,
    /// True if it writes to its client's log.
    pub logs: bool,
    /// True if it tells of changes of its lists.
    pub tells_changes: bool,
    /// True if it tells of updates of resources.
    pub updates_resources: bool,
}

/// A request to a backend.
pub(super) struct Asking<'a> {
    pub(super) method: &'a str,
    /// The params, without `_meta`.
    pub(super) params: RawObject,
    /// The name of the tool or prompt, or the URI of the resource, that headers repeat.
    pub(super) name: Option<&'a str>,
    /// Further headers that repeat arguments.
    pub(super) repeated: Vec<(String, String)>,
    /// Capabilities of the client, for a backend whose answers may require its input.
    pub(super) capabilities: Value,
    pub(super) identity: Identity,
    /// The least severe log messages that the client takes.
    pub(super) log_level: Option<&'a str>,
    pub(super) notices: Option<OnNotice>,
    /// Memory of the answer; absent for that of the session.
    pub(super) memory: Option<Budget>,
}

impl<'a> Asking<'a> {
    /// A request without params.
    pub(super) fn new(method: &'a str) -> Self {
        Self {
            method,
            params: RawObject::default(),
            name: None,
            repeated: Vec::new(),
            capabilities: json!({}),
            identity: Identity::Nothing,
            log_level: None,
            notices: None,
            memory: None,
        }
    }
}

/// The manner of a backend with revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Era {
    /// Every request stands alone.
    Modern,
    /// A handshake comes first.
    Legacy,
}

impl Session {
    /// Begins a session over this link. The era is found by asking, if it is not known.
    pub(super) async fn begin(
        link: Link,
        (memory, timeouts): (Share, Timeouts),
        (era, identity): (Option<Era>, &Identity),
    ) -> Result<Self, BackendError> {
        let memory = Budget { caller: Some(Share::of_caller()), all: memory };
        let (_end, next_id) = (link.ended().clone().drop_guard(), AtomicU64::new(FIRST_ID));
        let (link, peer) = (Arc::new(link), Peer::default());
        let mut session = Self { link, next_id, peer, memory, timeouts, _listening: None, _end };
        if era != Some(Era::Legacy) {
            match session.discover(identity).await {
                Ok(peer) => {
                    let _listening =
                        peer.tells_changes.then(|| listening::to_lists(&session.link, LISTENING_ID, identity));
                    return Ok(Self { peer, _listening, ..session });
                }
                Err(error) if is_of_legacy(&error) => {}
                Err(error) => return Err(error),
            }
        }
        session.peer = session.shake_hands(identity).await?;
        Ok(session)
    }

    /// The backend as it described itself.
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The era that was found.
    pub(super) fn era(&self) -> Era {
        if self.peer.protocol == MODERN { Era::Modern } else { Era::Legacy }
    }

    /// True as long as requests may be answered.
    pub(super) fn is_alive(&self) -> bool {
        match &*self.link {
            Link::Lines(lines) => lines.is_alive(),
            Link::Http(_) => true,
        }
    }

    /// Cancelled when the session has ended.
    pub(super) fn ended(&self) -> CancellationToken {
        self.link.ended().clone()
    }

    /// Asks for a subscription to this URI, or for its end, in a session with a handshake.
    pub(super) async fn ask_about(&self, method: &str, uri: &str, identity: Identity) -> Result<(), BackendError> {
        if let Link::Http(http) = &*self.link
            && !http.listens().await
        {
            return Err(BackendError::Malformed("it has no stream of notifications".to_owned()));
        }
        let mut asking = Asking { name: Some(uri), identity, ..Asking::new(method) };
        asking.params.set("uri", raw(&json!(uri)));
        self.ask_within(SUBSCRIPTION_TIMEOUT, Era::Legacy, asking).await.map(drop)
    }

    /// Listens to these notifications of a backend without handshake, until it ends the stream or this future is dropped. The
    /// future does not keep the session.
    pub(super) fn listen(
        &self,
        wanted: &Value,
        identity: Identity,
        notices: OnNotice,
    ) -> impl Future<Output = Result<(), BackendError>> + Send + 'static {
        let (link, id) = (Arc::clone(&self.link), self.next_id.fetch_add(1, Ordering::Relaxed));
        listening::listen(link, (id, wanted.clone()), identity, Some(notices))
    }

    /// Asks, and waits for the result. The request is given up when this future is dropped.
    pub(super) async fn ask(&self, asking: Asking<'_>) -> Result<(RawObject, Held), BackendError> {
        self.ask_within(self.timeouts.call, self.era(), asking).await
    }

    /// The same for what must be answered soon.
    pub(super) async fn ask_soon(&self, asking: Asking<'_>) -> Result<RawObject, BackendError> {
        Ok(self.ask_within(HANDSHAKE_TIMEOUT, self.era(), asking).await?.0)
    }

    async fn discover(&self, identity: &Identity) -> Result<Peer, BackendError> {
        let asking = Asking { identity: identity.clone(), ..Asking::new("server/discover") };
        let (mut found, _) = self.ask_within(self.timeouts.discover, Era::Modern, asking).await?;
        let versions: Vec<String> = found.read("supportedVersions").unwrap_or_default();
        if !versions.iter().any(|version| version == MODERN) {
            return Err(BackendError::Malformed("server/discover names no revision that is known here".to_owned()));
        }
        let meta: RawObject = found.read("_meta").unwrap_or_default();
        if let Some(info) = meta.get("io.modelcontextprotocol/serverInfo") {
            found.set("serverInfo", info.to_owned());
        }
        Ok(peer(&found, MODERN))
    }

    async fn shake_hands(&self, identity: &Identity) -> Result<Peer, BackendError> {
        let mut params = RawObject::default();
        params.set("protocolVersion", raw(&json!(WITH_HANDSHAKE[0])));
        params.set("capabilities", raw(&json!({})));
        params.set("clientInfo", raw(&client_info()));
        let asking = Asking { params, identity: identity.clone(), ..Asking::new("initialize") };
        let (initialized, _) = self.ask_within(HANDSHAKE_TIMEOUT, Era::Legacy, asking).await?;
        let agreed: String = initialized.read("protocolVersion").unwrap_or_default();
        if !WITH_HANDSHAKE.contains(&agreed.as_str()) {
            return Err(BackendError::Malformed(format!("it agrees on revision {:?}", short(&agreed))));
        }
        let done = message::notification("notifications/initialized", &json!({}));
        match &*self.link {
            Link::Lines(lines) => lines.send(done).await?,
            Link::Http(http) => {
                http.agreed(&agreed);
                http.send(done, &identity.told("notifications/initialized")).await?;
                http.listen(identity.clone());
            }
        }
        Ok(peer(&initialized, &agreed))
    }

    async fn ask_within(
        &self,
        limit: Duration,
        era: Era,
        asking: Asking<'_>,
    ) -> Result<(RawObject, Held), BackendError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let Asking { method, mut params, name, repeated, capabilities, identity, log_level, notices, memory } = asking;
        let mut meta = match era {
            Era::Modern => modern_meta(&capabilities),
            Era::Legacy => RawObject::default(),
        };
        if let (Era::Modern, Some(level)) = (era, log_level) {
            meta.set("io.modelcontextprotocol/logLevel", raw(&json!(level)));
        }
        if notices.is_some() {
            meta.set("progressToken", raw(&json!(id)));
        }
        let told = identity.told(name.unwrap_or(method));
        assert_in(&mut meta, &self.link, &told);
        if !meta.is_empty() {
            params.set("_meta", meta.into_raw());
        }
        let text = message::request(id, method, &params);
        let asked = async {
            match &*self.link {
                Link::Lines(lines) => lines.ask(id, text, notices).await,
                Link::Http(http) => {
                    let mut headers = Headers { repeated: HeaderMap::new(), told: &told };
                    let memory = memory.unwrap_or_else(|| self.memory.clone());
                    if era == Era::Modern {
                        repeat(&mut headers.repeated, "mcp-protocol-version", MODERN);
                        repeat(&mut headers.repeated, "mcp-method", method);
                        let name = name.filter(|_| NAMED.contains(&method));
                        name.into_iter().for_each(|name| repeat(&mut headers.repeated, "mcp-name", name));
                        repeated.iter().for_each(|(header, value)| repeat(&mut headers.repeated, header, value));
                    }
                    let mut given_up = GivenUp { id, told: &told, http: Some(http).filter(|_| era == Era::Legacy) };
                    let answer = http.ask((id, text), headers, (notices, Some(memory))).await;
                    given_up.http = None;
                    answer
                }
            }
        };
        timeout(limit, asked).await.unwrap_or(Err(BackendError::Silent(limit.as_secs())))
    }
}

/// Tells a backend with a handshake that a request is given up: the end of a connection means nothing to it.
struct GivenUp<'a> {
    id: u64,
    told: &'a Told,
    http: Option<&'a Http>,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if let Some(http) = self.http {
            http.send_later(message::cancelled(self.id), self.told.clone());
        }
    }
}

/// Returns whether an error is the answer of a backend that wants a handshake first.
fn is_of_legacy(error: &BackendError) -> bool {
    match error {
        BackendError::Answered(PeerError { code: UNSUPPORTED_VERSION, .. }) => false,
        BackendError::Answered(_) | BackendError::Malformed(_) | BackendError::SessionLost => true,
        BackendError::Status(status) => (400..500).contains(status),
        BackendError::Away(_)
        | BackendError::Resting { .. }
        | BackendError::Busy(..)
        | BackendError::Crowded(_)
        | BackendError::Ended
        | BackendError::Silent(_)
        | BackendError::TooLarge(_)
        | BackendError::Forbidden
        | BackendError::Unauthorized(_) => false,
    }
}

fn peer(described: &RawObject, protocol: &str) -> Peer {
    let info: RawObject = described.read("serverInfo").unwrap_or_default();
    let capabilities: RawObject = described.read("capabilities").unwrap_or_default();
    let text = |name: &str| short(&info.read::<String>(name).unwrap_or_default());
    let has = |name: &str| capabilities.get(name).is_some();
    let does = |list: &str, what: &str| {
        let capability: Option<RawObject> = capabilities.read(list);
        capability.and_then(|capability| capability.read(what)).unwrap_or(false)
    };
    Peer {
        name: text("name"),
        version: text("version"),
        protocol: protocol.to_owned(),
        tools: has("tools"),
        prompts: has("prompts"),
        resources: has("resources"),
        completions: has("completions"),
        logs: has("logging"),
        tells_changes: ["tools", "prompts", "resources"].into_iter().any(|list| does(list, "listChanged")),
        updates_resources: does("resources", "subscribe"),
    }
}

/// A text of a backend, cut to a length and free of control characters.
pub(super) fn short(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(LONGEST_NAME).collect()
}
