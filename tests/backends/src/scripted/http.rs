//! The backend over streamable HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{Stream, StreamExt, stream};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::backend::{Backend, Source};
use super::message::{self, Message};
use super::outlet::{Outlet, Output};
use super::{Answers, Era};

/// The path of the MCP endpoint.
pub(super) const PATH: &str = "/mcp";
const SESSION: &str = "mcp-session-id";
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
/// Maximum size of a request, in bytes.
const MOST: usize = 64 << 20;
/// Time for earlier messages to be sent before an exit.
const LEAVES: Duration = Duration::from_millis(100);

/// Serves until the backend ends.
pub(super) async fn serve(listener: TcpListener, backend: Arc<Backend>) {
    let end = backend.end.clone();
    let endpoint = post(receive).get(open).delete(close);
    let router = Router::new().route(PATH, endpoint).layer(DefaultBodyLimit::max(MOST)).with_state(backend);
    // It fails only if the listener is broken, which the clients notice.
    axum::serve(listener, router).with_graceful_shutdown(end.cancelled_owned()).await.ok();
}

async fn receive(State(backend): State<Arc<Backend>>, headers: HeaderMap, body: String) -> Response {
    let message = Message::parse(&body);
    let accepted = text(&headers, ACCEPT.as_str());
    if !accepted.contains(JSON) || !accepted.contains(EVENTS) {
        return StatusCode::NOT_ACCEPTABLE.into_response();
    }
    let method = message.as_ref().and_then(|message| message.method.as_deref());
    let is_request = message.as_ref().is_none_or(|message| message.id.is_some() && message.method.is_some());
    let opens = backend.options.era == Era::Legacy && !backend.options.stateless && method == Some("initialize");
    let checked = match (backend.options.era, &message) {
        (Era::Modern, Some(message)) if is_request => check_headers(&headers, message),
        (Era::Legacy, _) if !opens => check_session(&backend, &headers),
        _ => Ok(()),
    };
    if let Err(refused) = checked {
        return *refused;
    }
    let session = if opens { Some(Uuid::new_v4().to_string()) } else { session(&headers) };
    let (outlet, outputs) = Outlet::new();
    let pairs =
        headers.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()));
    backend.receive(body, Source { headers: pairs.collect(), session: session.clone() }, outlet).await;
    if !is_request {
        return StatusCode::ACCEPTED.into_response();
    }
    let mut response = respond(&backend, outputs).await;
    if let (true, Some(session)) = (opens, session.and_then(|id| HeaderValue::from_str(&id).ok())) {
        response.headers_mut().insert(SESSION, session);
    }
    response
}

/// Opens the stream of a session's notifications.
async fn open(State(backend): State<Arc<Backend>>, headers: HeaderMap) -> Response {
    if backend.options.get_405 || backend.options.stateless || backend.options.era == Era::Modern {
        return not_allowed();
    }
    if let Err(refused) = check_session(&backend, &headers) {
        return *refused;
    }
    let (outlet, outputs) = Outlet::new();
    outlet.send(Output::Bytes(b": open\n\n".to_vec())).await;
    backend.listen_in_session(&session(&headers).unwrap_or_default(), outlet);
    events(&backend, pieces(outputs))
}

/// Closes a session.
async fn close(State(backend): State<Arc<Backend>>, method: Method, headers: HeaderMap) -> Response {
    if method != Method::DELETE || backend.options.stateless || backend.options.era == Era::Modern {
        return not_allowed();
    }
    if let Err(refused) = check_session(&backend, &headers) {
        return *refused;
    }
    backend.close_session(&session(&headers).unwrap_or_default());
    StatusCode::OK.into_response()
}

/// Answers depending on the first piece: in JSON, by events, or without a message.
async fn respond(backend: &Backend, mut outputs: mpsc::Receiver<Output>) -> Response {
    let first = tokio::select! {
        first = outputs.recv() => first,
        () = backend.end.cancelled() => None,
    };
    let json = backend.options.answers == Answers::Json;
    match first {
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Some(Output::Status(status, header, body)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = (status, [(CONTENT_TYPE, JSON)], body).into_response();
            if let Some((name, value)) =
                header.and_then(|(name, value)| Some((name, HeaderValue::from_str(&value).ok()?)))
            {
                response.headers_mut().insert(name, value);
            }
            response
        }
        Some(Output::Answer(text)) if json => ([(CONTENT_TYPE, JSON)], text).into_response(),
        Some(first @ Output::Bytes(_)) if json => {
            let all = stream::iter([first]).chain(pieces(outputs));
            ([(CONTENT_TYPE, JSON)], body(backend, all, |text| text)).into_response()
        }
        Some(first) => events(backend, stream::iter([first]).chain(pieces(outputs))),
    }
}

fn events(backend: &Backend, outputs: impl Stream<Item = Output> + Send + 'static) -> Response {
    let body = body(backend, outputs, |text| format!("event: message\ndata: {text}\n\n"));
    ([(CONTENT_TYPE, EVENTS)], body).into_response()
}

fn pieces(mut outputs: mpsc::Receiver<Output>) -> impl Stream<Item = Output> + Send + 'static {
    stream::poll_fn(move |context| outputs.poll_recv(context))
}

/// Returns a body of these pieces, with their messages framed.
fn body(backend: &Backend, outputs: impl Stream<Item = Output> + Send + 'static, frame: fn(String) -> String) -> Body {
    let bytes = outputs.then(move |output| async move {
        let bytes = match output {
            Output::Message(text) | Output::Answer(text) => frame(text).into_bytes(),
            Output::Bytes(bytes) => bytes,
            Output::Events | Output::Status(..) => Vec::new(),
            Output::Exit(code) => {
                tokio::time::sleep(LEAVES).await;
                std::process::exit(code)
            }
        };
        Ok::<_, std::convert::Infallible>(Bytes::from(bytes))
    });
    Body::from_stream(bytes.take_until(backend.end.clone().cancelled_owned()))
}

/// Compares the headers of the modern era with the body.
fn check_headers(headers: &HeaderMap, message: &Message) -> Result<(), Box<Response>> {
    let named = match message.method.as_deref() {
        Some("tools/call" | "prompts/get") => message.text("name"),
        Some("resources/read") => message.text("uri"),
        _ => "",
    };
    let version = message.meta("io.modelcontextprotocol/protocolVersion").and_then(Value::as_str);
    let expected = [
        ("mcp-protocol-version", version.unwrap_or_default()),
        ("mcp-method", message.method.as_deref().unwrap_or_default()),
        ("mcp-name", named),
    ];
    for (name, value) in expected {
        if decoded(&text(headers, name)) != value {
            let error = format!("{name} does not match the body");
            return Err(refusal(StatusCode::BAD_REQUEST, message.id.as_deref(), -32020, &error));
        }
    }
    Ok(())
}

/// Returns a header's value, decoded if it is encoded.
pub(super) fn decoded(value: &str) -> String {
    let encoded = value.strip_prefix("=?base64?").and_then(|value| value.strip_suffix("?="));
    let bytes = encoded.and_then(|encoded| STANDARD.decode(encoded).ok());
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| value.to_owned())
}

fn check_session(backend: &Backend, headers: &HeaderMap) -> Result<(), Box<Response>> {
    match session(headers) {
        _ if backend.options.stateless => Ok(()),
        Some(session) if backend.knows_session(&session) => Ok(()),
        Some(_) => Err(refusal(StatusCode::NOT_FOUND, None, -32600, "Session not found")),
        None => Err(refusal(StatusCode::BAD_REQUEST, None, -32600, "Bad Request: Missing session ID")),
    }
}

fn refusal(status: StatusCode, id: Option<&str>, code: i32, text: &str) -> Box<Response> {
    let error = message::error(id.unwrap_or("null"), code, text, &Value::Null);
    Box::new((status, [(CONTENT_TYPE, JSON)], error).into_response())
}

fn not_allowed() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "POST")]).into_response()
}

fn session(headers: &HeaderMap) -> Option<String> {
    headers.get(SESSION).map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned())
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}
