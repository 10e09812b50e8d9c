//! Messages over streamable HTTP, to a backend that listens on this pod's loopback address.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::body::Bytes;
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use futures::{Stream, StreamExt, stream};
use reqwest::Response;
use secrecy::ExposeSecret;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;
use zeroize::Zeroizing;

use super::error::BackendError;
use super::events::Events;
use super::held::{Budget, Held, Reading};
use super::message::{self, Incoming, MAXIMUM_BYTES, MAXIMUM_MIB, Notification};
use super::{Change, Identity, Notice, OnChange, OnNotice};
use crate::backend_identity::Told;
use crate::raw_json::RawObject;

const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// Header with the assertion about the user.
pub(super) const ASSERTION: HeaderName = HeaderName::from_static("mcp-entra-assertion");

/// Targets of the assertions in requests without a message.
const LISTENING: &str = "GET";
const ENDING: &str = "DELETE";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time after which an unused connection is closed. Common servers close theirs after 5 s, and a request on a closing
/// connection would be lost.
const IDLE_CONNECTION: Duration = Duration::from_secs(2);
/// Maximum time between two parts of an answer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Time limit for the HTTP response to a message that needs no answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before a stream of notifications is opened again.
const PAUSE: Duration = Duration::from_secs(5);
/// Maximum time that a subscription waits for the stream of notifications.
const LISTENS_WITHIN: Duration = Duration::from_secs(2);
/// Maximum time that a stream takes to end after its answer. Otherwise its connection is closed.
const REST_WITHIN: Duration = Duration::from_secs(1);
/// Maximum length of a session id, in bytes.
const LONGEST_SESSION_ID: usize = 256;
/// Maximum length of a notification on a stream without an answer, in bytes.
const LONGEST_NOTICE: usize = 256 * 1024;
/// Maximum length of a stream, in bytes. It holds several messages.
const LONGEST_STREAM: usize = 4 * MAXIMUM_BYTES;

/// A backend over HTTP and its session. Dropping this ends the session.
pub(super) struct Http {
    endpoint: Arc<Endpoint>,
    listening: std::sync::OnceLock<(Identity, DropGuard)>,
}

/// The endpoint, with the state of one session.
struct Endpoint {
    client: reqwest::Client,
    url: Url,
    changes: OnChange,
    /// Maximum time between two parts of an answer.
    idle: Duration,
    session: ArcSwapOption<HeaderValue>,
    revision: ArcSwapOption<HeaderValue>,
    /// Cancelled when the session has ended.
    ended: CancellationToken,
    /// Cancelled when the stream of notifications opens for the first time.
    listens: CancellationToken,
    /// Cancelled when the backend has no such stream, or no longer has one.
    is_deaf: CancellationToken,
}

/// Headers that differ between requests.
pub(super) struct Headers<'a> {
    /// Headers that repeat parts of the message.
    pub(super) repeated: HeaderMap,
    /// The identity of the user.
    pub(super) told: &'a Told,
}

/// Returns the client for backends in this pod, without a proxy and without redirects.
pub(super) fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .user_agent(concat!("mcp-entra-server/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_CONNECTION)
        .build()
}

impl Http {
    pub(super) fn new(client: reqwest::Client, url: Url, changes: OnChange) -> Self {
        Self::within(IDLE_TIMEOUT, client, url, changes)
    }

    /// Returns a session with this maximum time between two parts of an answer.
    pub(super) fn within(idle: Duration, client: reqwest::Client, url: Url, changes: OnChange) -> Self {
        let (session, revision) = (ArcSwapOption::empty(), ArcSwapOption::empty());
        let [ended, listens, is_deaf] = std::array::from_fn(|_| CancellationToken::new());
        let endpoint = Arc::new(Endpoint { client, url, changes, idle, session, revision, ended, listens, is_deaf });
        Self { endpoint, listening: std::sync::OnceLock::new() }
    }

    /// Sends a request and returns its answer, which uses this memory. Without memory, the answer is a stream of
    /// notifications.
    pub(super) async fn ask(
        &self,
        (id, request): (u64, String),
        headers: Headers<'_>,
        (notices, memory): (Option<OnNotice>, Option<Budget>),
    ) -> Result<(RawObject, Held), BackendError> {
        let told = headers.told;
        let idle = self.endpoint.idle;
        let response = timeout(idle, self.endpoint.post(request, headers).send()).await;
        let response = response.map_err(|_| silent(idle))?.map_err(away)?;
        if self.endpoint.session.load().is_none() {
            let issued = response.headers().get(SESSION_ID).filter(|id| id.len() <= LONGEST_SESSION_ID);
            self.endpoint.session.store(issued.map(|id| Arc::new(id.clone())));
        }
        self.endpoint.answer((id, told), response, (notices, memory)).await
    }

    /// Sends a message that needs no answer.
    pub(super) async fn send(&self, message: String, told: &Told) -> Result<(), BackendError> {
        self.endpoint.send(message, told).await
    }

    /// Sends a message that needs no answer, and does not wait.
    pub(super) fn send_later(&self, message: String, told: Told) {
        let endpoint = Arc::clone(&self.endpoint);
        tokio::spawn(async move { endpoint.send(message, &told).await });
    }

    /// Records the revision of the handshake. Each further request names it.
    pub(super) fn agreed(&self, revision: &str) {
        self.endpoint.revision.store(HeaderValue::from_str(revision).ok().map(Arc::new));
    }

    /// Listens to notifications outside of answers until this is dropped. A backend may have no such stream.
    pub(super) fn listen(&self, identity: Identity) {
        let (endpoint, stop) = (Arc::clone(&self.endpoint), CancellationToken::new());
        self.listening.get_or_init(|| {
            let own = identity.clone();
            tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
                while endpoint.listen(&identity).await {
                    tokio::time::sleep(PAUSE).await;
                }
                endpoint.is_deaf.cancel();
            }));
            (own, stop.drop_guard())
        });
    }

    /// Waits a limited time until the stream of notifications is open, because earlier notifications may be lost.
    /// Returns false if the backend has no such stream.
    pub(super) async fn listens(&self) -> bool {
        let Endpoint { listens, is_deaf, .. } = &*self.endpoint;
        let decided = async {
            tokio::select! { () = listens.cancelled() => {}, () = is_deaf.cancelled() => {} }
        };
        _ = timeout(LISTENS_WITHIN, decided).await;
        !is_deaf.is_cancelled()
    }

    /// Returns the token that is cancelled when the session has ended.
    pub(super) fn ended(&self) -> &CancellationToken {
        &self.endpoint.ended
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        let endpoint = Arc::clone(&self.endpoint);
        if endpoint.session.load().is_none() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let request = endpoint.with_session(endpoint.client.delete(endpoint.url.clone())).timeout(SEND_TIMEOUT);
            let told = self.listening.get().map_or(Told::Nothing, |(identity, _)| identity.told(ENDING));
            let request = with_identity(request, &told);
            runtime.spawn(async move { request.send().await });
        }
    }
}

impl Endpoint {
    fn post(&self, message: String, headers: Headers<'_>) -> reqwest::RequestBuilder {
        let mut request = self.with_session(self.client.post(self.url.clone()));
        request = request.headers(headers.repeated).header(CONTENT_TYPE, "application/json");
        request = request.header(ACCEPT, "application/json, text/event-stream");
        with_identity(request, headers.told).body(message)
    }

    fn with_session(&self, mut request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        for (name, value) in [(SESSION_ID, self.session.load()), (PROTOCOL_VERSION, self.revision.load())] {
            if let Some(value) = &*value {
                request = request.header(name, HeaderValue::clone(value));
            }
        }
        request
    }

    async fn send(&self, message: String, told: &Told) -> Result<(), BackendError> {
        let headers = Headers { repeated: HeaderMap::new(), told };
        let response = self.post(message, headers).timeout(SEND_TIMEOUT).send().await.map_err(away)?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(BackendError::Status(status.as_u16())),
        }
    }

    async fn answer(
        &self,
        (id, told): (u64, &Told),
        response: Response,
        (notices, memory): (Option<OnNotice>, Option<Budget>),
    ) -> Result<(RawObject, Held), BackendError> {
        let status = response.status();
        match status {
            StatusCode::UNAUTHORIZED => {
                return Err(BackendError::Unauthorized(Box::new(response.headers().clone())));
            }
            StatusCode::FORBIDDEN => return Err(BackendError::Forbidden),
            _ => {}
        }
        if status.is_success() && is_event_stream(&response) {
            return self.streamed_answer((id, told), events(response, memory, self.idle), notices).await;
        }
        let (body, held) = read(response, memory, self.idle).await?;
        match Incoming::parse(&body) {
            Ok(Incoming::Answer { id: answered, outcome: Err(error) }) => match (status, answered) {
                // Refusals of the transport answer no request, so nothing has run.
                (StatusCode::NOT_FOUND, _) | (StatusCode::BAD_REQUEST, None) if self.session.load().is_some() => {
                    Err(BackendError::SessionLost)
                }
                _ => Err(BackendError::Answered(error)),
            },
            Ok(Incoming::Answer { id: Some(answered), outcome: Ok(result) })
                if status.is_success() && answered == id =>
            {
                Ok((result, held))
            }
            _ if status == StatusCode::NOT_FOUND && self.session.load().is_some() => Err(BackendError::SessionLost),
            _ if !status.is_success() => Err(BackendError::Status(status.as_u16())),
            Err(error) => Err(error),
            Ok(_) => Err(BackendError::Malformed("it belongs to another request".to_owned())),
        }
    }

    async fn streamed_answer(
        &self,
        (id, told): (u64, &Told),
        mut events: impl Stream<Item = Result<(Vec<u8>, Held), BackendError>> + Unpin + Send + 'static,
        notices: Option<OnNotice>,
    ) -> Result<(RawObject, Held), BackendError> {
        while let Some(event) = events.next().await {
            let (data, held) = event?;
            match Incoming::parse(&data) {
                Ok(Incoming::Answer { id: Some(answered), outcome }) if answered == id => {
                    // The connection serves another request only after the end of the stream.
                    tokio::spawn(timeout(REST_WITHIN, events.for_each(|_| std::future::ready(()))));
                    return Ok((outcome.map_err(BackendError::Answered)?, held));
                }
                Ok(Incoming::Answer { .. }) => tracing::debug!("no request waits for an answer of the backend"),
                // The call can succeed even if the backend does not accept this refusal.
                Ok(Incoming::Request { id, method }) => drop(self.send(message::refusal(&id, &method), told).await),
                Ok(Incoming::Notification(notification)) => self.hear(notification, Some(id), notices.as_ref()),
                Err(error) if Incoming::id_of_malformed(&data) == Some(id) => return Err(error),
                Err(_) => tracing::debug!("the backend sends an event that is not a message"),
            }
        }
        Err(BackendError::Ended)
    }

    /// Listens once. Returns false if another attempt is useless.
    async fn listen(&self, identity: &Identity) -> bool {
        let told = &identity.told(LISTENING);
        let request = self.with_session(self.client.get(self.url.clone())).header(ACCEPT, "text/event-stream");
        let request = with_identity(request, told);
        let Ok(Ok(response)) = timeout(self.idle, request.send()).await else { return true };
        let was_open = self.listens.is_cancelled();
        if !response.status().is_success() || !is_event_stream(&response) {
            // The backend has forgotten the session, or no longer accepts its first token. The next session opens a
            // new stream.
            if was_open && self.session.load().is_some() {
                self.ended.cancel();
            }
            return false;
        }
        self.listens.cancel();
        if was_open {
            (self.changes)(Change::Missed);
        }
        let mut events = events(response, None, self.idle);
        while let Some(Ok((data, _))) = events.next().await {
            match Incoming::parse(&data) {
                Ok(Incoming::Notification(notification)) => self.hear(notification, None, None),
                Ok(Incoming::Request { id, method }) => drop(self.send(message::refusal(&id, &method), told).await),
                Ok(Incoming::Answer { .. }) | Err(_) => {}
            }
        }
        true
    }

    fn hear(&self, notification: Notification, id: Option<u64>, notices: Option<&OnNotice>) {
        match (notification, notices) {
            (Notification::Progress { token, notice }, Some(notices)) if Some(token) == id => notices(notice),
            (Notification::Log(notice), Some(notices)) => notices(notice),
            (Notification::Acknowledged { id: stream, uris }, Some(notices)) if Some(stream) == id => {
                notices(Notice::Acknowledged(uris));
            }
            (Notification::ListChanged, _) => (self.changes)(Change::Lists),
            (Notification::Updated(uri), _) => (self.changes)(Change::Resource(uri)),
            (
                Notification::Progress { .. }
                | Notification::Log(_)
                | Notification::Acknowledged { .. }
                | Notification::Other,
                _,
            ) => {}
        }
    }
}

/// Adds the identity of the user to a request.
fn with_identity(request: reqwest::RequestBuilder, told: &Told) -> reqwest::RequestBuilder {
    match header(told) {
        Some((name, value)) => request.header(name, value),
        None => request,
    }
}

/// Returns the header with the identity of the user.
fn header(told: &Told) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = match told {
        Told::Nothing => return None,
        Told::Assertion(assertion) => (ASSERTION, Zeroizing::new(assertion.expose_secret().to_owned())),
        Told::Token(token) => (AUTHORIZATION, Zeroizing::new(format!("Bearer {}", token.expose_secret()))),
    };
    let mut value = HeaderValue::from_str(&value).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

fn away(error: reqwest::Error) -> BackendError {
    match error.is_connect() {
        true => BackendError::Away("nothing listens at its port yet".to_owned()),
        false => BackendError::Ended,
    }
}

fn silent(limit: Duration) -> BackendError {
    BackendError::Silent(limit.as_secs())
}

fn is_event_stream(response: &Response) -> bool {
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

async fn read(mut response: Response, memory: Option<Budget>, idle: Duration) -> Result<(Vec<u8>, Held), BackendError> {
    let (mut body, longest) = (Vec::new(), longest(memory.is_some()));
    let mut reading = memory.map(Reading::new);
    while let Some(chunk) = timeout(idle, response.chunk()).await.map_err(|_| silent(idle))?.map_err(away)? {
        let bytes = body.len() + chunk.len();
        if bytes > longest {
            return Err(BackendError::TooLarge(MAXIMUM_MIB));
        }
        if let Some(reading) = &mut reading {
            reading.grow(bytes).await?;
        }
        body.extend_from_slice(&chunk);
    }
    let held = reading.map(|mut reading| reading.end(body.len())).unwrap_or_default();
    Ok((body, held))
}

/// Returns the maximum length of a message, in bytes. Without memory for answers, only notifications are read.
fn longest(has_memory: bool) -> usize {
    if has_memory { MAXIMUM_BYTES } else { LONGEST_NOTICE }
}

/// Returns the data of the events in a body of at most [`LONGEST_STREAM`] bytes, each with its memory. Events without
/// data are skipped. Without memory for answers, the body is a stream of notifications, which may be silent for any
/// time.
fn events(
    response: Response,
    memory: Option<Budget>,
    idle: Duration,
) -> impl Stream<Item = Result<(Vec<u8>, Held), BackendError>> + Unpin + Send {
    let events = Events::new(longest(memory.is_some()));
    let idle = memory.as_ref().map(|_| idle);
    let begin = (response, Bytes::new(), (events, memory.map(Reading::new)), 0_usize);
    Box::pin(stream::try_unfold(
        begin,
        move |(mut response, mut piece, (mut events, mut reading), mut read)| async move {
            loop {
                let (taken, data) = events.take(&piece)?;
                drop(piece.split_to(taken));
                if let Some(data) = data {
                    let held = reading.as_mut().map(|reading| reading.end(data.len())).unwrap_or_default();
                    return Ok(Some(((data, held), (response, piece, (events, reading), read))));
                }
                if let Some(reading) = &mut reading {
                    reading.grow(events.len()).await?;
                }
                let next = match idle {
                    Some(idle) => timeout(idle, response.chunk()).await.map_err(|_| silent(idle))?,
                    None => response.chunk().await,
                };
                match next.map_err(|_| BackendError::Ended)? {
                    Some(next) => piece = next,
                    None => return Ok(None),
                }
                read = read.saturating_add(piece.len());
                if read > LONGEST_STREAM {
                    return Err(BackendError::TooLarge(MAXIMUM_MIB));
                }
            }
        },
    ))
}
