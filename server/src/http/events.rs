//! Event streams (text/event-stream): messages as events, and comments that keep a silent stream alive.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures::{Stream, StreamExt, stream};
use tokio::time::{Instant, sleep_until};

/// Time without an event after which a comment is sent. Proxies close streams that are silent for a minute.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// Tells nginx and its like to pass on each event as it comes.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// An answer of these messages, each an event of its own.
pub(super) fn answer(messages: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    of(events(messages))
}

/// The same where the first message takes a while: a comment goes before it.
pub(super) fn slow_answer(messages: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    of(stream::iter([COMMENT]).chain(events(messages)))
}

fn events(messages: impl Stream<Item = Bytes> + Send + 'static) -> impl Stream<Item = Bytes> + Send + 'static {
    stream::unfold(Box::pin(messages), async |mut messages| {
        let silent = sleep_until(Instant::now() + KEEP_ALIVE);
        tokio::select! {
            biased;
            message = messages.next() => message.map(|message| (event(&message), messages)),
            () = silent => Some((COMMENT, messages)),
        }
    })
}

fn of(events: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let mut response = Response::new(Body::from_stream(events.map(Ok::<_, Infallible>)));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(BUFFERING, HeaderValue::from_static("no"));
    response
}

/// A message as an event. Messages are written without line breaks.
fn event(message: &Bytes) -> Bytes {
    Bytes::from([b"data: ".as_slice(), message, b"\n\n"].concat())
}
