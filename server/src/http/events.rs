//! Event streams (text/event-stream): messages as events, and comments that keep a silent stream open.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures::{Stream, StreamExt, stream};
use tokio::time::{Instant, sleep_until};

/// Silence after which a comment is sent. Proxies close streams after a minute of silence.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// Makes nginx and similar proxies forward each event at once.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Returns an answer that sends each message as an event.
pub(super) fn answer(messages: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    of(events(messages))
}

/// Same for a slow first message: a comment precedes it.
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

/// Formats a message as an event. Messages contain no line breaks.
fn event(message: &Bytes) -> Bytes {
    Bytes::from([b"data: ".as_slice(), message, b"\n\n"].concat())
}
