//! Session with a backend: finds the revision that the backend speaks, and sends requests in it.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::HeaderMap;
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::{BackendError, PeerError};
use super::held::{Budget, Held, Share};
use super::http::{Headers, Http};
use super::link::{Link, MODERN, assert_in, client_info, modern_meta, repeat};
use super::{Identity, OnNotice, listening, message};
use crate::backend_identity::Told;
use crate::raw_json::{RawObject, raw};

/// Revisions with a handshake, the newest first.
const WITH_HANDSHAKE: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

/// Time limit for an answer of the handshake or a page of a list. The program may have started just now.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit for the answer to a subscription.
const SUBSCRIPTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Methods whose requests repeat the name or URI in a header.
const NAMED: [&str; 3] = ["tools/call", "prompts/get", "resources/read"];

/// Request id of the stream about lists. Other requests have higher ids.
const LISTENING_ID: u64 = 1;
const FIRST_ID: u64 = 2;

const UNSUPPORTED_VERSION: i64 = -32022;
/// Maximum length of a backend's name or version, in characters.
const LONGEST_NAME: usize = 100;

/// Time limits for answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// Total time for the answer to a call.
    pub(super) call: Duration,
    /// Time for the answer to `server/discover`, which backends with a handshake may ignore.
    pub(super) discover: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { call: Duration::from_secs(300), discover: Duration::from_secs(20) }
    }
}

/// A session with a backend.
pub(super) struct Session {
    link: Arc<Link>,
    next_id: AtomicU64,
    peer: Peer,
    /// Memory for answers to the session's own requests.
    memory: Budget,
    timeouts: Timeouts,
    /// Guard of the stream about lists, if there is one. The stream ends with the session.
    _listening: Option<DropGuard>,
    /// Guard that cancels the token of the session's end.
    _end: DropGuard,
}

/// A backend's description of itself. Texts have a limited length and no control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Revision of the protocol that the backend speaks.
    pub protocol: String,
    /// True if it has tools.
    pub tools: bool,
    /// True if it has prompts.
    pub prompts: bool,
    /// True if it has resources.
    pub resources: bool,
    /// True if it completes arguments.
    pub completions: bool,
    /// True if it sends log messages to its client.
    pub logs: bool,
    /// True if it reports changes of its lists.
    pub tells_changes: bool,
    /// True if it reports updates of resources.
    pub updates_resources: bool,
}

/// A request to a backend.
pub(super) struct Asking<'a> {
    pub(super) method: &'a str,
    /// Params without `_meta`.
    pub(super) params: RawObject,
    /// Name of the tool or prompt, or URI of the resource, which headers repeat.
    pub(super) name: Option<&'a str>,
    /// Further headers that repeat arguments.
    pub(super) repeated: Vec<(String, String)>,
    /// Capabilities of the client, for a backend whose answers may require input of the client.
    pub(super) capabilities: Arc<Map<String, Value>>,
    pub(super) identity: Identity,
    /// Lowest severity of the log messages that the client accepts.
    pub(super) log_level: Option<&'a str>,
    pub(super) notices: Option<OnNotice>,
    /// Memory for the answer. If absent, the answer uses the memory of the session.
    pub(super) memory: Option<Budget>,
}

impl<'a> Asking<'a> {
    /// Returns a request without params.
    pub(super) fn new(method: &'a str) -> Self {
        Self {
            method,
            params: RawObject::default(),
            name: None,
            repeated: Vec::new(),
            capabilities: Arc::default(),
            identity: Identity::Nothing,
            log_level: None,
            notices: None,
            memory: None,
        }
    }
}

/// The era of the protocol that a backend speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Era {
    /// Each request is independent.
    Modern,
    /// A handshake comes first.
    Legacy,
}

impl Session {
    /// Begins a session over this link. Finds the era by a request, if it is unknown.
    pub(super) async fn begin(
        link: Link,
        (memory, timeouts): (Share, Timeouts),
        (era, identity): (Option<Era>, &Identity),
    ) -> Result<Self, BackendError> {
        let memory = Budget { caller: Some(Share::of_caller()), all: memory };
        let (_end, next_id) = (link.ended().clone().drop_guard(), AtomicU64::new(FIRST_ID));
        let (link, peer) = (Arc::new(link), Peer::default());
        let mut session = Self { link, next_id, peer, memory, timeouts, _listening: None, _end };
        let mut discovered = None;
        if era != Some(Era::Legacy) {
            match session.discover(identity).await {
                Ok(peer) => {
                    let _listening =
                        peer.tells_changes.then(|| listening::to_lists(&session.link, LISTENING_ID, identity));
                    return Ok(Self { peer, _listening, ..session });
                }
                Err(error) if is_of_legacy(&error) => discovered = Some(error),
                Err(error) => return Err(error),
            }
        }
        session.peer = session.shake_hands(identity).await.map_err(|error| match (error, discovered) {
            // The backend has no handshake either, and the first error says more.
            (BackendError::Answered(_), Some(first @ BackendError::Malformed(_))) => first,
            (error, _) => error,
        })?;
        Ok(session)
    }

    /// Returns the backend's description of itself.
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Returns the era of the backend.
    pub(super) fn era(&self) -> Era {
        if self.peer.protocol == MODERN { Era::Modern } else { Era::Legacy }
    }

    /// Returns true as long as the backend may answer requests.
    pub(super) fn is_alive(&self) -> bool {
        match &*self.link {
            Link::Lines(lines) => lines.is_alive(),
            Link::Http(_) => true,
        }
    }

    /// Returns the token that is cancelled when the session has ended.
    pub(super) fn ended(&self) -> CancellationToken {
        self.link.ended().clone()
    }

    /// Subscribes to this URI, or unsubscribes from it, in a session with a handshake.
    pub(super) async fn subscribe(
        &self,
        (uri, subscribes): (&str, bool),
        identity: Identity,
    ) -> Result<(), BackendError> {
        if let Link::Http(http) = &*self.link
            && !http.listens().await
        {
            return Err(BackendError::Malformed("it has no stream of notifications".to_owned()));
        }
        let method = if subscribes { "resources/subscribe" } else { "resources/unsubscribe" };
        let mut asking = Asking { name: Some(uri), identity, ..Asking::new(method) };
        asking.params.set("uri", raw(&json!(uri)));
        self.ask_within(SUBSCRIPTION_TIMEOUT, Era::Legacy, asking).await.map(drop)
    }

    /// Listens to updates of these resources of a backend without a handshake, until it ends the stream or this
    /// future is dropped. The future does not keep the session alive.
    pub(super) fn listen(
        &self,
        uris: &BTreeSet<Arc<str>>,
        identity: Identity,
        notices: OnNotice,
    ) -> impl Future<Output = Result<(), BackendError>> + Send + 'static {
        let (link, id) = (Arc::clone(&self.link), self.next_id.fetch_add(1, Ordering::Relaxed));
        let wanted = json!({ "resourceSubscriptions": Vec::from_iter(uris.iter().map(|uri| &**uri)) });
        listening::listen(link, (id, wanted), identity, Some(notices))
    }

    /// Sends a request and returns its result. Dropping this future cancels the request.
    pub(super) async fn ask(&self, asking: Asking<'_>) -> Result<(RawObject, Held), BackendError> {
        self.ask_within(self.timeouts.call, self.era(), asking).await
    }

    /// Sends a request and returns its result, with a shorter time limit.
    pub(super) async fn ask_soon(&self, asking: Asking<'_>) -> Result<RawObject, BackendError> {
        Ok(self.ask_within(HANDSHAKE_TIMEOUT, self.era(), asking).await?.0)
    }

    async fn discover(&self, identity: &Identity) -> Result<Peer, BackendError> {
        let asking = Asking { identity: identity.clone(), ..Asking::new("server/discover") };
        let (mut found, _) = self.ask_within(self.timeouts.discover, Era::Modern, asking).await?;
        let versions: Vec<String> = found.read("supportedVersions").unwrap_or_default();
        if !versions.iter().any(|version| version == MODERN) {
            let named = short(&versions.join(", "));
            return Err(BackendError::Malformed(format!("server/discover names no known revision, but {named:?}")));
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
                    if !matches!(answer, Err(BackendError::Silent(_))) {
                        given_up.http = None;
                    }
                    answer
                }
            }
        };
        timeout(limit, asked).await.unwrap_or(Err(BackendError::Silent(limit.as_secs())))
    }
}

/// Cancels a request when this is dropped. A backend with a handshake ignores the end of a connection.
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

/// Returns true if an error is the answer of a backend that requires a handshake.
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

/// Returns a text of a backend with a limited length and without control characters.
pub(super) fn short(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(LONGEST_NAME).collect()
}
