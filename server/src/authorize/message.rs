//! The parsed message: one JSON-RPC message of a known method, with params that fit it.
//!
//! A body is parsed once, strictly. The message that is judged is that one, and the text that is executed or forwarded is
//! that same message, serialised anew: two readers cannot understand it differently. Additions to the protocol are refused
//! until somebody has decided who may use them. Notifications want no answer, so that an unknown one is dropped.

use rmcp::model::{CallToolRequest, DiscoverRequest, InitializeRequest, ListToolsRequest, PingRequest};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::json_rpc::{ErrorValue, code};
use crate::strict_json;

/// The members of a message. rmcp takes a message with some others for one of another kind.
const MEMBERS: [&str; 4] = ["jsonrpc", "id", "method", "params"];

/// One JSON-RPC message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The request's id, a string or an integer; absent for a notification.
    pub id: Option<Value>,
    /// The method.
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

/// A body that is refused.
#[derive(Debug)]
pub struct Malformed {
    /// The kind of the fault.
    pub fault: Fault,
    /// The request's id; null where none could be read.
    pub id: Value,
    /// English text with the next step.
    pub text: String,
}

/// The kind of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The body is not JSON, or has duplicate members.
    Json,
    /// A batch of messages.
    Batch,
    /// Not a JSON-RPC message.
    Message,
    /// Params that do not fit the method.
    Params,
    /// A method that is not known here.
    UnknownMethod {
        /// True if the request names its revision in `_meta`, as all do since 2026-07-28.
        names_revision: bool,
    },
}

impl Malformed {
    /// The reason for the audit log.
    pub fn reason(&self) -> &'static str {
        match self.fault {
            Fault::Json => "invalid_json",
            Fault::Batch => "batch",
            Fault::Message | Fault::Params => "invalid_message",
            Fault::UnknownMethod { .. } => "unknown_method",
        }
    }

    /// The JSON-RPC error.
    pub fn error(&self) -> ErrorValue {
        let code = match self.fault {
            Fault::Json => code::PARSE_ERROR,
            Fault::Batch | Fault::Message => code::INVALID_REQUEST,
            Fault::Params => code::INVALID_PARAMS,
            Fault::UnknownMethod { .. } => code::METHOD_NOT_FOUND,
        };
        ErrorValue::new(code, self.text.as_str())
    }
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

    /// True if the verdict or the answer depends on what is offered.
    pub fn depends_on_offer(&self) -> bool {
        matches!(self, Self::ListTools | Self::CallTool { .. })
    }

    /// The tool that is asked for, if any.
    pub fn tool(&self) -> Option<&str> {
        match self {
            Self::CallTool { tool } => Some(tool),
            _ => None,
        }
    }
}

impl Message {
    /// The message in these bytes, and the same message serialised anew. All that was read and parsed on the way ends here:
    /// kept while the request is answered, it would add up over all requests.
    pub fn parse(body: &[u8]) -> Result<(Self, String), Malformed> {
        let refused = |fault, text: String| Malformed { fault, id: Value::Null, text };
        let value = strict_json::from_slice(body)
            .map_err(|error| refused(Fault::Json, format!("the body is not acceptable JSON: {error}")))?;
        if value.is_array() {
            return Err(refused(Fault::Batch, "batches are not accepted; send one message a request".to_owned()));
        }
        // A client that waits for the answer knows it by its id.
        let known = value.get("id").filter(|id| id.is_string() || id.is_i64()).cloned().unwrap_or_default();
        let invalid = |text: &str| Malformed { id: known.clone(), ..refused(Fault::Message, text.to_owned()) };
        let jsonrpc = value.get("jsonrpc").and_then(Value::as_str) == Some("2.0");
        let Some(method) = value.get("method").and_then(Value::as_str).filter(|_| jsonrpc) else {
            return Err(invalid(
                "the body is no JSON-RPC 2.0 request or notification; send an object with jsonrpc \"2.0\" and a method",
            ));
        };
        if let Some(unknown) =
            value.as_object().and_then(|message| message.keys().find(|name| !MEMBERS.contains(&&***name)))
        {
            return Err(invalid(&format!("a request or notification has no member {unknown:?}; leave it out")));
        }
        let id = match value.get("id") {
            None => None,
            Some(id) if id.is_string() || id.is_i64() => Some(id.clone()),
            Some(_) => return Err(invalid("the id of a request is a string or an integer of 64 bits")),
        };
        if value.get("params").is_some_and(|params| !params.is_object()) {
            return Err(invalid("params is an object, or absent"));
        }
        let method = match (&id, request_method(method, &value)) {
            (Some(id), request) => request.map_err(|(fault, text)| Malformed { fault, id: id.clone(), text })?,
            (None, Err((Fault::UnknownMethod { .. }, _))) => notification(method),
            (None, _) => return Err(invalid(&format!("{method} is a request; send it with an id"))),
        };
        Ok((Self { id, method }, value.to_string()))
    }

    /// The id that an answer has: null for a notification.
    pub fn answer_id(&self) -> &Value {
        self.id.as_ref().unwrap_or(&Value::Null)
    }
}

/// The method of a request whose params fit it. rmcp would take one whose params do not for an unknown method.
fn request_method(method: &str, request: &Value) -> Result<Method, (Fault, String)> {
    let names_revision = names_revision(request.get("params"));
    let unknown = || (Fault::UnknownMethod { names_revision }, format!("this server has no method {method:?}"));
    match method {
        // Since 2026-07-28 there is no handshake.
        "initialize" if names_revision => Err(unknown()),
        "initialize" => read::<InitializeRequest>(request).map(|_| Method::Initialize),
        "server/discover" => read::<DiscoverRequest>(request).map(|_| Method::Discover),
        "ping" => read::<PingRequest>(request).map(|_| Method::Ping),
        "tools/list" => read::<ListToolsRequest>(request).map(|_| Method::ListTools),
        "tools/call" => {
            read::<CallToolRequest>(request).map(|call| Method::CallTool { tool: call.params.name.into_owned() })
        }
        _ => Err(unknown()),
    }
}

fn read<T: DeserializeOwned>(request: &Value) -> Result<T, (Fault, String)> {
    T::deserialize(request).map_err(|error| (Fault::Params, format!("the params do not fit the method: {error}")))
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

    fn refused(body: &str) -> (&'static str, i32) {
        let malformed = Message::parse(body.as_bytes()).unwrap_err();
        (malformed.reason(), malformed.error().code)
    }

    #[test]
    fn a_tool_call_names_its_tool() {
        let body = json!({"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": {"name": "get_user_details"}});
        let (message, anew) = Message::parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(message.method, Method::CallTool { tool: "get_user_details".to_owned() });
        assert_eq!(message.id, Some(json!("a")));
        assert_eq!(anew, body.to_string());
    }

    #[test]
    fn what_is_not_one_json_rpc_message_is_refused() {
        assert_eq!(refused("{"), ("invalid_json", -32700));
        assert_eq!(refused(r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#), ("batch", -32600));
        assert_eq!(refused("[]"), ("batch", -32600));
        for body in [
            r#""ping""#,
            r#"{"id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":9223372036854775808,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","error":{"code":1,"message":"a"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","else":null}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/initialized","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#,
        ] {
            assert_eq!(refused(body), ("invalid_message", -32600), "{body}");
        }
    }

    #[test]
    fn the_id_of_a_request_is_any_integer_that_rmcp_reads() {
        for id in [i64::MIN, -1, 0, i64::MAX] {
            let request = json!({"jsonrpc": "2.0", "id": id, "method": "ping"}).to_string();
            let (message, anew) = Message::parse(request.as_bytes()).unwrap();
            assert_eq!(message.id, Some(json!(id)));
            let read: rmcp::model::ClientJsonRpcMessage = serde_json::from_str(&anew).unwrap();
            assert!(matches!(read, rmcp::model::JsonRpcMessage::Request(_)), "{read:?}");
        }
    }

    #[test]
    fn a_member_that_occurs_twice_is_refused_wherever_it_stands() {
        let twice = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}"#;
        assert_eq!(refused(twice), ("invalid_json", -32700));
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
            assert_eq!(refused(&request), ("invalid_message", -32602), "{request}");
        }
        for params in [r#"{"name":"a"}"#, r#"{"name":"a","arguments":{"a":[1]}}"#] {
            let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
            assert!(Message::parse(request.as_bytes()).is_ok(), "{request}");
        }
    }

    #[test]
    fn a_handshake_is_an_unknown_method_to_a_client_of_a_revision_without_one() {
        let params = json!({
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "a", "version": "1" },
        });
        let request = |params: Value| json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
        assert_eq!(
            Message::parse(request(params.clone()).to_string().as_bytes()).unwrap().0.method,
            Method::Initialize
        );
        let mut modern = params;
        modern["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
        assert_eq!(refused(&request(modern).to_string()), ("unknown_method", -32601));
    }

    #[test]
    fn an_unknown_method_is_refused_in_the_way_of_its_revision() {
        let modern = r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        assert_eq!(refused(modern), ("unknown_method", -32601));
        assert_eq!(refused(r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#), ("unknown_method", -32601));
        assert_eq!(refused(r#"{"jsonrpc":"2.0","id":1,"method":"resources/list"}"#).0, "unknown_method");
    }

    #[test]
    fn no_request_can_pass_for_a_notification() {
        for method in ["initialize", "server/discover", "ping", "tools/list", "tools/call"] {
            let request = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"name":"a"}}}}"#);
            assert_eq!(refused(&request), ("invalid_message", -32600), "{method}");
        }
    }

    #[test]
    fn a_notification_is_known_or_dropped() {
        let method = |name: &str| {
            let body = json!({ "jsonrpc": "2.0", "method": name });
            Message::parse(body.to_string().as_bytes()).unwrap().0.method
        };
        assert_eq!(method("notifications/initialized"), Method::Notification("notifications/initialized"));
        for unknown in ["notifications/unknown", "notifications/", "$/cancel"] {
            assert_eq!(method(unknown), Method::UnknownNotification, "{unknown}");
        }
    }
}
