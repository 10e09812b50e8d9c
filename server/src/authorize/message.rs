//! The parsed message: one JSON-RPC message with a known method and matching params.
//!
//! A body is parsed once and strictly. The judged message is the executed one: nothing parses the body a second time.
//! Unknown requests are refused, so that additions to the protocol need a decision about permissions. Unknown
//! notifications are dropped, because they need no answer.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::json_rpc::{ErrorValue, code};
use super::method::{self, Method};
use super::params::{Meta, Misfit, Params};
use crate::offer::About;
use crate::strict_json;

/// The members of a message.
const MEMBERS: [&str; 4] = ["jsonrpc", "id", "method", "params"];

/// One JSON-RPC message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The request's id, a string or an integer; absent for a notification.
    pub id: Option<Value>,
    /// The method, with its params.
    pub method: Method,
    /// The common params of every request.
    pub meta: Meta,
}

/// A refused body.
#[derive(Debug)]
pub struct Malformed {
    /// The kind of the fault.
    pub fault: Fault,
    /// The request's id, or null if none could be read.
    pub id: Value,
    /// English text with the next step.
    pub text: String,
    /// The common params of every request, as far as they could be read.
    pub meta: Box<Meta>,
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
    /// The params do not match the method.
    Params,
    /// The method is unknown.
    UnknownMethod {
        /// True if the request names its revision in `_meta`, as all requests do since 2026-07-28.
        names_revision: bool,
    },
}

impl Malformed {
    /// Returns the reason for the audit log.
    pub fn reason(&self) -> &'static str {
        match self.fault {
            Fault::Json => "invalid_json",
            Fault::Batch => "batch",
            Fault::Message | Fault::Params => "invalid_message",
            Fault::UnknownMethod { .. } => "unknown_method",
        }
    }

    /// True if another revision of the protocol may know the method or its params.
    pub fn depends_on_revision(&self) -> bool {
        matches!(self.fault, Fault::Params | Fault::UnknownMethod { .. })
    }

    /// Returns the JSON-RPC error.
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

impl Message {
    /// Parses a message.
    ///
    /// # Errors
    /// If the body is not one message with a known method and matching params.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let refused = |fault, text: String| Malformed { fault, id: Value::Null, text, meta: Box::default() };
        let value = strict_json::from_slice(body)
            .map_err(|error| refused(Fault::Json, format!("the body is not acceptable JSON: {error}")))?;
        let mut members = match value {
            Value::Object(members) => members,
            Value::Array(_) => {
                let text = "batches are not accepted; send one message per request";
                return Err(refused(Fault::Batch, text.to_owned()));
            }
            _ => return Err(refused(Fault::Message, NO_MESSAGE.to_owned())),
        };
        let id = members.remove("id");
        // The client needs the id to match the answer to its request.
        let known = id.clone().filter(|id| id.is_string() || id.is_i64());
        let invalid = |fault, text: String| {
            let id = known.clone().unwrap_or_default();
            Malformed { fault, id, text, meta: Box::default() }
        };
        let jsonrpc = members.get("jsonrpc").and_then(Value::as_str) == Some("2.0");
        let method = members.remove("method");
        let Some(Value::String(method)) = method.filter(|_| jsonrpc) else {
            return Err(invalid(Fault::Message, NO_MESSAGE.to_owned()));
        };
        if let Some(unknown) = members.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
            let text = format!("a request or notification has no member {unknown:?}; remove it");
            return Err(invalid(Fault::Message, text));
        }
        if id.is_some() && known.is_none() {
            return Err(invalid(Fault::Message, "the id of a request must be a string or a 64-bit integer".to_owned()));
        }
        let mut params = Params::new(members.remove("params"))
            .ok_or_else(|| invalid(Fault::Message, "params must be an object or absent".to_owned()))?;
        if known.is_none() {
            let method = method::notification(&method, params)
                .ok_or_else(|| invalid(Fault::Message, format!("{method} is a request; send it with an id")))?;
            return Ok(Self { id: None, method, meta: Meta::default() });
        }
        let misfit = |Misfit(text): Misfit| invalid(Fault::Params, text);
        let meta = params.meta().map_err(misfit)?;
        match method::request(&method, params, &meta) {
            None => Err(unknown_method(&method, known.unwrap_or_default(), meta)),
            Some(Ok(method)) => Ok(Self { method: written(method, body), id: known, meta }),
            Some(Err(fault)) => Err(Malformed { meta: Box::new(meta), ..misfit(fault) }),
        }
    }

    /// Returns the message if the offer has its method.
    ///
    /// # Errors
    /// If the offer does not have the method. The error is the same as for an unknown method.
    pub fn served_by(self, about: &About) -> Result<Self, Malformed> {
        match self.method.is_served_by(about) {
            true => Ok(self),
            false => Err(unknown_method(self.method.name(), self.id.unwrap_or_default(), self.meta)),
        }
    }

    /// Returns the id of an answer: null for a notification.
    pub fn answer_id(&self) -> &Value {
        self.id.as_ref().unwrap_or(&Value::Null)
    }
}

fn unknown_method(name: &str, id: Value, meta: Meta) -> Malformed {
    let fault = Fault::UnknownMethod { names_revision: meta.revision.is_some() };
    Malformed { fault, id, text: format!("this server has no method {name:?}"), meta: Box::new(meta) }
}

/// Adds the arguments as written in the body to methods that need them. Parsed values lose digits and the order of
/// members.
fn written(method: Method, body: &[u8]) -> Method {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        params: Params<'a>,
    }
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow)]
        arguments: Option<&'a RawValue>,
    }
    let Method::Use { operation, input } = method else { return method };
    let arguments = serde_json::from_slice::<Body<'_>>(body).ok().and_then(|body| body.params.arguments);
    let operation = match arguments {
        Some(arguments) => operation.written(arguments.get()),
        None => operation,
    };
    Method::Use { operation, input }
}

const NO_MESSAGE: &str =
    "the body is not a JSON-RPC 2.0 request or notification; send an object with jsonrpc \"2.0\" and a method";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::offer::{Input, JsonObject, LogLevel, Operation};

    fn refused(body: &str) -> (&'static str, i32) {
        let malformed = Message::parse(body.as_bytes()).unwrap_err();
        (malformed.reason(), malformed.error().code)
    }

    #[test]
    fn a_request_is_read_with_its_params() {
        let meta = json!({
            "progressToken": 3, "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": { "roots": {} },
            "io.modelcontextprotocol/logLevel": "warning", "else": [1],
        });
        let body = json!({ "jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": {
            "name": "echo", "arguments": { "a": [1, null] }, "requestState": "s",
            "inputResponses": { "sure": { "action": "accept" } }, "_meta": meta, "else": {},
        } });
        let message = Message::parse(body.to_string().as_bytes()).unwrap();
        let arguments = serde_json::from_value::<JsonObject>(json!({ "a": [1, null] })).unwrap().into();
        let responses = [("sure".to_owned(), json!({ "action": "accept" }))].into();
        let input = Input { responses, state: Some("s".into()) };
        let operation = Operation::Tool { name: "echo".into(), arguments };
        assert_eq!(message.method, Method::Use { operation, input });
        assert_eq!(message.id, Some(json!("a")));
        let expected = Meta {
            revision: Some("2026-07-28".into()),
            capabilities: Some(serde_json::from_value(json!({ "roots": {} })).unwrap()),
            progress_token: Some(json!(3)),
            log_level: Some(LogLevel::Warning),
        };
        assert_eq!(message.meta, expected);
    }

    #[test]
    fn a_body_that_is_not_one_json_rpc_message_is_refused() {
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
    fn the_id_of_a_request_is_a_string_or_any_integer_of_64_bits() {
        for id in [json!(i64::MIN), json!(-1), json!(0), json!(i64::MAX), json!(""), json!("a")] {
            let request = json!({"jsonrpc": "2.0", "id": id, "method": "ping"}).to_string();
            assert_eq!(Message::parse(request.as_bytes()).unwrap().id, Some(id));
        }
    }

    #[test]
    fn a_duplicate_member_is_refused_at_every_level() {
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
            ("tools/list", r#"{"cursor":1}"#),
            ("prompts/get", "{}"),
            ("prompts/get", r#"{"name":"a","arguments":[]}"#),
            ("resources/read", r#"{"uri":1}"#),
            ("resources/subscribe", "{}"),
            ("resources/unsubscribe", "{}"),
            ("logging/setLevel", r#"{"level":"loud"}"#),
            ("logging/setLevel", "{}"),
            ("tools/call", r#"{"name":"a","inputResponses":[]}"#),
            ("tools/call", r#"{"name":"a","requestState":{}}"#),
            ("tools/call", r#"{"name":"a","_meta":{"progressToken":{}}}"#),
            ("tools/call", r#"{"name":"a","_meta":{"progressToken":1.5}}"#),
            ("completion/complete", r#"{"ref":{"type":"ref/prompt"},"argument":{"name":"a","value":"b"}}"#),
            ("completion/complete", r#"{"ref":{"type":"ref/else","name":"a"},"argument":{"name":"a","value":"b"}}"#),
            ("completion/complete", r#"{"ref":{"type":"ref/prompt","name":"a"},"argument":{"name":"a"}}"#),
            ("ping", r#"{"_meta":1}"#),
        ] {
            let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
            assert_eq!(refused(&request), ("invalid_message", -32602), "{request}");
        }
        let absent = r#"{"name":"a","arguments":null,"inputResponses":null,"requestState":null,"_meta":null}"#;
        for params in [r#"{"name":"a"}"#, r#"{"name":"a","arguments":{"a":[1]}}"#, absent] {
            let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
            assert!(Message::parse(request.as_bytes()).is_ok(), "{request}");
        }
    }

    #[test]
    fn methods_that_one_era_has_are_unknown_in_the_other() {
        let revision = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
        let info = json!({ "name": "a", "version": "1" });
        let handshake = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info });
        for (method, mut params, is_modern) in [
            ("initialize", handshake, false),
            ("ping", json!({}), false),
            ("logging/setLevel", json!({ "level": "info" }), false),
            ("resources/subscribe", json!({ "uri": "a:b" }), false),
            ("resources/unsubscribe", json!({ "uri": "a:b" }), false),
            ("subscriptions/listen", json!({ "notifications": {} }), true),
        ] {
            let parse = |params: &Value| {
                let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
                Message::parse(body.to_string().as_bytes()).map(|message| message.method.name())
            };
            let legacy = parse(&params);
            params["_meta"] = revision.clone();
            let (known, unknown) = if is_modern { (parse(&params), legacy) } else { (legacy, parse(&params)) };
            assert_eq!(known.unwrap(), method);
            assert_eq!(unknown.unwrap_err().fault, Fault::UnknownMethod { names_revision: !is_modern }, "{method}");
        }
        // An earlier revision in `_meta` does not make the client modern.
        let old = json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": "2025-11-25" }, "notifications": {} });
        for (method, is_known) in [("subscriptions/listen", false), ("ping", true), ("initialize", false)] {
            let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": old });
            assert_eq!(Message::parse(body.to_string().as_bytes()).is_ok(), is_known, "{method}");
        }
    }

    #[test]
    fn a_client_listens_to_the_first_100_different_resources_of_its_request() {
        let different = Vec::from_iter((0..101).map(|number| format!("note:{number}")));
        let asked = [&different[..1], &different].concat();
        let params = json!({
            "_meta": { "io.modelcontextprotocol/protocolVersion": "2026-07-28" },
            "notifications": { "resourceSubscriptions": asked },
        });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params });
        let Method::Listen(filter) = Message::parse(body.to_string().as_bytes()).unwrap().method else { panic!() };
        assert_eq!(filter.uris, different[..100]);
    }

    #[test]
    fn an_unknown_method_is_refused_in_the_way_of_its_revision() {
        let modern = r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        assert_eq!(refused(modern), ("unknown_method", -32601));
        assert_eq!(refused(r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#), ("unknown_method", -32601));
        assert_eq!(refused(r#"{"jsonrpc":"2.0","id":1,"method":"tasks/list"}"#).0, "unknown_method");
    }

    #[test]
    fn a_request_is_never_read_as_a_notification() {
        for method in crate::authorize::method::REQUESTS {
            let request = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"name":"a"}}}}"#);
            assert_eq!(refused(&request), ("invalid_message", -32600), "{method}");
        }
    }

    #[test]
    fn a_notification_is_known_or_dropped() {
        let method = |name: &str| {
            let body = json!({ "jsonrpc": "2.0", "method": name, "params": { "requestId": 7 } });
            Message::parse(body.to_string().as_bytes()).unwrap().method
        };
        assert_eq!(method("notifications/initialized"), Method::Notification("notifications/initialized"));
        assert_eq!(method("notifications/cancelled"), Method::Cancelled { request: Some(json!(7)) });
        for unknown in ["notifications/unknown", "notifications/", "$/cancel"] {
            assert_eq!(method(unknown), Method::UnknownNotification, "{unknown}");
        }
    }
}
