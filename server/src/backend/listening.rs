//! Streams of notifications of a backend without a handshake (`subscriptions/listen`, MCP 2026-07-28).

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use serde_json::{Map, Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::BackendError;
use super::http::Headers;
use super::link::{Link, MODERN, assert_in, modern_meta, repeat};
use super::{Identity, OnNotice, message};
use crate::raw_json::{RawObject, raw};

const METHOD: &str = "subscriptions/listen";
/// Pause before a stream that has ended is opened again.
pub(super) const PAUSE: Duration = Duration::from_secs(5);

/// Listens to changes of the lists until the guard is dropped.
pub(super) fn to_lists(link: &Arc<Link>, id: u64, identity: &Identity) -> DropGuard {
    let (stop, link, identity) = (CancellationToken::new(), Arc::clone(link), identity.clone());
    tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
        let wanted = json!({ "toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true });
        loop {
            let ended = listen(Arc::clone(&link), (id, wanted.clone()), identity.clone(), None).await;
            if let Err(BackendError::Answered(_) | BackendError::Unauthorized(_)) = ended {
                return;
            }
            if matches!(&*link, Link::Lines(lines) if !lines.is_alive()) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }));
    stop.drop_guard()
}

/// Listens to these notifications with a request of this id, until the backend ends the stream.
pub(super) async fn listen(
    link: Arc<Link>,
    (id, wanted): (u64, Value),
    identity: Identity,
    notices: Option<OnNotice>,
) -> Result<(), BackendError> {
    let told = identity.told(METHOD);
    let mut meta = modern_meta(&Map::new());
    assert_in(&mut meta, &link, &told);
    let mut params = RawObject::default();
    params.set("notifications", raw(&wanted));
    params.set("_meta", meta.into_raw());
    let text = message::request(id, METHOD, &params);
    match &*link {
        Link::Lines(lines) => lines.ask(id, text, notices).await.map(drop),
        Link::Http(http) => {
            let mut headers = Headers { repeated: HeaderMap::new(), told: &told };
            repeat(&mut headers.repeated, "mcp-protocol-version", MODERN);
            repeat(&mut headers.repeated, "mcp-method", METHOD);
            http.ask((id, text), headers, (notices, None)).await.map(drop)
        }
    }
}
