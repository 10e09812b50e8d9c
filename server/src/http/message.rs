//! What is asked? The body is parsed once, strictly; what is decided about is that message, and that very message,
//! serialised anew, is what the rmcp service receives. Two readers cannot understand it differently.
//!
//! A request has exactly one JSON-RPC message of a method that is known here, with params that fit it. Whatever is added
//! to the protocol is refused until somebody has decided who may use it. Notifications want no answer, so that an unknown
//! one is accepted and dropped.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method as HttpMethod, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use rmcp::model::{CallToolRequest, DiscoverRequest, InitializeRequest, ListToolsRequest, PingRequest};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answer::{self, code};
use super::limits;
use crate::audit::{Outcome, Trail};
use crate::strict_json;

const PROTOCOL_VERSION: &str = "mcp-protocol-version";

/// One JSON-RPC message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The request's id, a string or an integer; absent for a notification.
    pub id: Option<Value>,
    /// What is asked.
    pub method: Method,
}

/// The methods that are known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// `initialize`: the handshake of revisions before 2026-07-28.
    Initialize,
    /// `server/discover`: what stands in its place since.
    Discover,
    /// `ping`.
    Ping,
    /// `tools/list`.
    ListTools,
    /// `tools/call`.
    CallTool {
        /// `params.name`.
        tool: String,
    },
    /// A notification of a client, by name.
    Notification(&'static str),
    /// A notification that is not known here, nor will be.
    UnknownNotification,
}

/// Why a body is refused.
#[derive(Debug)]
struct Malformed {
    reason: &'static str,
    status: StatusCode,
    id: Value,
    code: i32,
    message: String,
}

impl Method {
    /// The method's name in the protocol.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Initialize => "initialize",
            Self::Discover => "server/discover",
            Self::Ping => "ping",
            Self::ListTools => "tools/list",
            Self::CallTool { .. } => "tools/call",
            Self::Notification(name) => name,
            Self::UnknownNotification => "notifications/*",
        }
    }

    /// The tool that is asked for, if any.
    pub fn tool(&self) -> Option<&str> {
        match self {
            Self::CallTool { tool } => Some(tool),
            _ => None,
        }
    }
}

/// Lets POSTs of one well-formed message in: the request carries `Arc<Message>` from here on.
pub(super) async fn layer(Extension(trail): Extension<Arc<Trail>>, request: Request, next: Next) -> Response {
    if request.method() != HttpMethod::POST {
        trail.decided(Outcome::Refused("method_not_allowed"));
        let message = "POST a JSON-RPC message; this server has neither sessions to DELETE nor a stream to GET";
        let mut response = answer::problem(StatusCode::METHOD_NOT_ALLOWED, message);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let (mut parts, body) = request.into_parts();
    let (message, body) = match receive(body).await {
        Ok(received) => received,
        Err(malformed) => {
            trail.decided(Outcome::Refused(malformed.reason));
            return answer::json_rpc_error(malformed.status, &malformed.id, malformed.code, &malformed.message, None);
        }
    };
    trail.understood(message.method.name(), message.method.tool());
    match message.method {
        Method::UnknownNotification => {
            trail.decided(Outcome::Refused("unknown_notification"));
            return StatusCode::ACCEPTED.into_response();
        }
        // What the handshake is about stands in the body; rmcp refuses a header that differs.
        Method::Initialize => _ = parts.headers.remove(PROTOCOL_VERSION),
        _ => {}
    }
    parts.extensions.insert(Arc::new(message));
    parts.headers.remove(header::CONTENT_LENGTH);
    next.run(Request::from_parts(parts, body)).await
}

/// The message in this body, and the same message as the body for rmcp. What was read and parsed on the way ends here:
/// kept while the request is answered, it would add up over all requests.
async fn receive(body: Body) -> Result<(Message, Body), Malformed> {
    let malformed = |reason, status, code, message| Malformed { reason, status, id: Value::Null, code, message };
    let body = Limited::new(body, limits::MAXIMUM_BODY_BYTES).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let limit = limits::MAXIMUM_BODY_BYTES / 1024;
            let message = format!("the body is larger than {limit} KiB; send less in one message");
            malformed("body_too_large", StatusCode::PAYLOAD_TOO_LARGE, code::INVALID_REQUEST, message)
        } else {
            let message = "the body ended early; send it again".to_owned();
            malformed("body_incomplete", StatusCode::BAD_REQUEST, code::PARSE_ERROR, message)
        }
    })?;
    let (message, body) = parse(&body.to_bytes())?;
    Ok((message, Body::from(body)))
}

/// The message in these bytes, and the same message serialised anew.
fn parse(body: &[u8]) -> Result<(Message, String), Malformed> {
    let value = strict_json::from_slice(body).map_err(|error| Malformed {
        reason: "invalid_json",
        status: StatusCode::BAD_REQUEST,
        id: Value::Null,
        code: code::PARSE_ERROR,
        message: format!("the body is not acceptable JSON: {error}"),
    })?;
    let invalid = |reason, message: &str| Malformed {
        reason,
        status: StatusCode::BAD_REQUEST,
        id: Value::Null,
        code: code::INVALID_REQUEST,
        message: message.to_owned(),
    };
    if value.is_array() {
        return Err(invalid("batch", "batches are not accepted; send one message a request"));
    }
    let jsonrpc = value.get("jsonrpc").and_then(Value::as_str) == Some("2.0");
    let Some(method) = value.get("method").and_then(Value::as_str).filter(|_| jsonrpc) else {
        let message =
            "the body is no JSON-RPC 2.0 request or notification; send an object with jsonrpc \"2.0\" and a method";
        return Err(invalid("invalid_message", message));
    };
    let id = match value.get("id") {
        None => None,
        Some(id) if id.is_string() || id.is_i64() || id.is_u64() => Some(id.clone()),
        Some(_) => return Err(invalid("invalid_message", "the id of a request is a string or an integer")),
    };
    let params = value.get("params");
    if params.is_some_and(|params| !params.is_object()) {
        return Err(invalid("invalid_message", "params is an object, or absent"));
    }
    let method = match (&id, request_method(method, &value)) {
        (Some(id), request) => request.map_err(|refused| refused.answer(id.clone(), params))?,
        (None, Err(RefusedMethod::Unknown(_))) => notification(method),
        (None, _) => return Err(invalid("invalid_message", &format!("{method} is a request; send it with an id"))),
    };
    Ok((Message { id, method }, value.to_string()))
}

/// Why a method is refused.
enum RefusedMethod {
    Unknown(String),
    Params(String),
}

/// The method of a request whose params fit it. rmcp would take one whose params do not for an unknown method.
fn request_method(method: &str, request: &Value) -> Result<Method, RefusedMethod> {
    match method {
        // Since 2026-07-28 there is no handshake.
        "initialize" if names_revision(request.get("params")) => Err(RefusedMethod::Unknown(method.to_owned())),
        "initialize" => read::<InitializeRequest>(request).map(|_| Method::Initialize),
        "server/discover" => read::<DiscoverRequest>(request).map(|_| Method::Discover),
        "ping" => read::<PingRequest>(request).map(|_| Method::Ping),
        "tools/list" => read::<ListToolsRequest>(request).map(|_| Method::ListTools),
        "tools/call" => {
            read::<CallToolRequest>(request).map(|call| Method::CallTool { tool: call.params.name.into_owned() })
        }
        unknown => Err(RefusedMethod::Unknown(unknown.to_owned())),
    }
}

fn read<T: DeserializeOwned>(request: &Value) -> Result<T, RefusedMethod> {
    T::deserialize(request).map_err(|error| RefusedMethod::Params(error.to_string()))
}

impl RefusedMethod {
    fn answer(self, id: Value, params: Option<&Value>) -> Malformed {
        match self {
            Self::Unknown(method) => Malformed {
                reason: "unknown_method",
                status: unknown_method_status(params),
                id,
                code: code::METHOD_NOT_FOUND,
                message: format!("this server has no method {method:?}"),
            },
            Self::Params(why) => Malformed {
                reason: "invalid_message",
                status: StatusCode::BAD_REQUEST,
                id,
                code: code::INVALID_PARAMS,
                message: format!("the params do not fit the method: {why}"),
            },
        }
    }
}

/// 404 since 2026-07-28, whose requests name their revision in `_meta`. Clients of earlier revisions take a 404 for the
/// end of their session or of the whole server, and look for the JSON-RPC error in a 200.
fn unknown_method_status(params: Option<&Value>) -> StatusCode {
    if names_revision(params) { StatusCode::NOT_FOUND } else { StatusCode::OK }
}

fn names_revision(params: Option<&Value>) -> bool {
    let meta = params.and_then(|params| params.get("_meta"));
    meta.is_some_and(|meta| meta.get("io.modelcontextprotocol/protocolVersion").is_some())
}

fn notification(method: &str) -> Method {
    const KNOWN: [&str; 4] = [
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
        "notifications/roots/list_changed",
    ];
    let known = KNOWN.into_iter().find(|known| *known == method);
    known.map_or(Method::UnknownNotification, Method::Notification)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(body: &str) -> (&'static str, u16, i32) {
        let malformed = parse(body.as_bytes()).unwrap_err();
        (malformed.reason, malformed.status.as_u16(), malformed.code)
    }

    #[test]
    fn a_tool_call_names_its_tool() {
        let body = json!({"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": {"name": "get_user_details"}});
        let (message, anew) = parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(message.method, Method::CallTool { tool: "get_user_details".to_owned() });
        assert_eq!(message.id, Some(json!("a")));
        assert_eq!(anew, body.to_string());
    }

    #[test]
    fn what_is_not_one_json_rpc_message_is_refused() {
        assert_eq!(refused("{"), ("invalid_json", 400, -32700));
        assert_eq!(refused(r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#), ("batch", 400, -32600));
        assert_eq!(refused("[]"), ("batch", 400, -32600));
        for body in [
            r#""ping""#,
            r#"{"id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#,
        ] {
            assert_eq!(refused(body), ("invalid_message", 400, -32600), "{body}");
        }
    }

    #[test]
    fn a_member_that_occurs_twice_is_refused_wherever_it_stands() {
        let twice = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}"#;
        assert_eq!(refused(twice), ("invalid_json", 400, -32700));
        assert_eq!(refused(r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/list"}"#).0, "invalid_json");
    }

    #[test]
    fn params_that_do_not_fit_their_method_are_refused_as_such() {
        for (method, params) in [
            ("tools/call", "{}"),
            ("tools/call", r#"{"name":1}"#),
            ("tools/call", r#"{"name":"a","arguments":[1]}"#),
            ("tools/call", r#"{"name":"a","arguments":"{}"}"#),
            ("tools/call", r#"{"name":"a","_meta":1}"#),
            ("initialize", r#"{"protocolVersion":"2025-11-25"}"#),
            ("server/discover", r#"{"_meta":[]}"#),
            ("ping", r#"{"_meta":1}"#),
        ] {
            let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
            assert_eq!(refused(&request), ("invalid_message", 400, -32602), "{request}");
        }
        for params in [r#"{"name":"a"}"#, r#"{"name":"a","arguments":{"a":[1]}}"#] {
            let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
            assert!(parse(request.as_bytes()).is_ok(), "{request}");
        }
    }

    #[test]
    fn a_handshake_is_an_unknown_method_to_a_client_of_a_revision_without_one() {
        let params = json!({
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "a", "version": "1" },
        });
        let request = |params: Value| json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
        assert_eq!(parse(request(params.clone()).to_string().as_bytes()).unwrap().0.method, Method::Initialize);
        let mut modern = params;
        modern["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
        assert_eq!(refused(&request(modern).to_string()), ("unknown_method", 404, -32601));
    }

    #[test]
    fn an_unknown_method_is_refused_in_the_way_of_its_revision() {
        let modern = r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        assert_eq!(refused(modern), ("unknown_method", 404, -32601));
        assert_eq!(refused(r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#), ("unknown_method", 200, -32601));
        assert_eq!(refused(r#"{"jsonrpc":"2.0","id":1,"method":"resources/list"}"#).0, "unknown_method");
    }

    #[test]
    fn no_request_can_pass_for_a_notification() {
        for method in ["initialize", "server/discover", "ping", "tools/list", "tools/call"] {
            let request = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"name":"a"}}}}"#);
            assert_eq!(refused(&request), ("invalid_message", 400, -32600), "{method}");
        }
    }

    #[test]
    fn a_notification_is_known_or_dropped() {
        let method = |name: &str| {
            let body = json!({ "jsonrpc": "2.0", "method": name });
            parse(body.to_string().as_bytes()).unwrap().0.method
        };
        assert_eq!(method("notifications/initialized"), Method::Notification("notifications/initialized"));
        for unknown in ["notifications/unknown", "notifications/", "$/cancel"] {
            assert_eq!(method(unknown), Method::UnknownNotification, "{unknown}");
        }
    }
}
