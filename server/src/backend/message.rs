//! JSON-RPC messages between this server and a backend.

use std::cell::Cell;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::error::{BackendError, PeerError};
use crate::raw_json::RawObject;
use crate::strict_json;

/// Maximum length of a backend's message, in MiB.
pub(super) const MAXIMUM_MIB: usize = 4;
/// Maximum length of a backend's message, in bytes.
pub(super) const MAXIMUM_BYTES: usize = MAXIMUM_MIB * 1024 * 1024;

/// Bounds of a backend's message besides its length. They are far above the bounds of a request.
const BOUNDS: strict_json::Bounds = strict_json::Bounds { depth: 100, values: 200_000 };
/// Maximum length of the text of an error or of progress, in characters.
const LONGEST_TEXT: usize = 4_000;
/// Maximum length of data beside a result, in bytes: the data of an error or a log message. Longer data is left out.
/// It is not counted as the memory of an answer.
const LONGEST_DATA: usize = 16 * 1024;
/// Maximum length of the id of a backend's request, in bytes. Each answer repeats it.
const LONGEST_ID: usize = 256;
/// Maximum length of the reason why a message is malformed, in characters.
const LONGEST_REASON: usize = 200;

const METHOD_NOT_FOUND: i64 = -32601;
const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// A message from a backend.
#[derive(Debug)]
pub(super) enum Incoming {
    /// The answer to the request with this id. Refusals over HTTP may have no id.
    Answer {
        id: Option<u64>,
        outcome: Result<RawObject, PeerError>,
    },
    /// A request to this server.
    Request {
        id: Box<RawValue>,
        method: String,
    },
    Notification(Notification),
}

/// A notification from a backend.
#[derive(Debug)]
pub(super) enum Notification {
    /// Progress of the request with this token.
    Progress { token: u64, notice: Notice },
    /// A log message for the client.
    Log(Notice),
    /// A list has changed.
    ListChanged,
    /// The content of a resource has changed.
    Updated(String),
    /// The stream of the request with this id reports updates of these resources.
    Acknowledged { id: u64, uris: Vec<String> },
    /// A notification that this server ignores.
    Other,
}

/// A notice about a running request.
#[derive(Clone, Debug)]
pub enum Notice {
    /// Progress.
    Progress {
        /// Number of completed steps.
        done: f64,
        /// Number of all steps, if known.
        total: Option<f64>,
        /// Text for people.
        message: Option<String>,
    },
    /// A log message.
    Log {
        /// Severity (RFC 5424), in lower case.
        level: String,
        /// Content, which may be any JSON.
        data: Box<RawValue>,
    },
    /// Acknowledgement of a stream that reports updates of the resources with these URIs.
    Acknowledged(Vec<String>),
}

#[derive(Deserialize)]
struct Members<'a> {
    jsonrpc: Option<&'a str>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<String>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ErrorMembers<'a> {
    code: i64,
    #[serde(default)]
    message: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

impl Incoming {
    /// Returns the message in these bytes.
    ///
    /// # Errors
    /// If they are not a message, or an object has a member twice.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, BackendError> {
        let malformed = |text: &str| BackendError::Malformed(text.chars().take(LONGEST_REASON).collect());
        strict_json::check(bytes, BOUNDS).map_err(|error| malformed(&error.to_string()))?;
        let members: Members = serde_json::from_slice(bytes).map_err(|_| malformed("it is not a JSON-RPC message"))?;
        if members.jsonrpc != Some("2.0") {
            return Err(malformed("jsonrpc is not \"2.0\""));
        }
        match (members.method, members.id) {
            (Some(_), Some(id)) if id.get().len() > LONGEST_ID => Err(malformed("its id is too long")),
            (Some(method), Some(id)) => Ok(Self::Request { id: id.to_owned(), method }),
            (Some(method), None) => Ok(Self::Notification(Notification::new(&method, members.params))),
            (None, id) => {
                let outcome = match (members.result, members.error) {
                    (Some(result), None) => {
                        Ok(RawObject::parse(result.get()).ok_or_else(|| malformed("the result is not an object"))?)
                    }
                    (None, Some(error)) => Err(peer_error(error).ok_or_else(|| malformed("the error is not valid"))?),
                    _ => return Err(malformed("it has neither a result nor an error")),
                };
                Ok(Self::Answer { id: id.and_then(|id| serde_json::from_str(id.get()).ok()), outcome })
            }
        }
    }

    /// Returns the id of a malformed answer. If it has several ids, the first one counts. Returns `None` if this is
    /// not JSON.
    pub(super) fn id_of_malformed(bytes: &[u8]) -> Option<u64> {
        let first = Cell::new(None);
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        FirstId(&first).deserialize(&mut deserializer).and_then(|()| deserializer.end()).ok()?;
        first.get()
    }

    /// Returns the id of an answer with this beginning, if the id comes before the result.
    pub(super) fn id_of_beginning(bytes: &[u8]) -> Option<u64> {
        let first = Cell::new(None);
        // This fails at the end of the beginning.
        _ = FirstId(&first).deserialize(&mut serde_json::Deserializer::from_slice(bytes));
        first.get()
    }
}

/// Finds the first member `id` of an object, which may have it several times.
struct FirstId<'a>(&'a Cell<Option<u64>>);

impl<'de> DeserializeSeed<'de> for FirstId<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FirstId<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut is_found = false;
        while let Some(name) = map.next_key::<String>()? {
            if !is_found && name == "id" {
                self.0.set(map.next_value::<Value>()?.as_u64());
                is_found = true;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

fn peer_error(error: &RawValue) -> Option<PeerError> {
    let ErrorMembers { code, message, data } = serde_json::from_str(error.get()).ok()?;
    let data = data.filter(|data| data.get().len() <= LONGEST_DATA).map(ToOwned::to_owned);
    Some(PeerError { code, message: cut(message), data })
}

/// Returns a text for people within its limit.
fn cut(text: String) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}

impl Notification {
    fn new(method: &str, params: Option<&RawValue>) -> Self {
        let params = params.and_then(|params| RawObject::parse(params.get())).unwrap_or_default();
        match method {
            "notifications/progress" => match (params.read("progressToken"), params.read("progress")) {
                (Some(token), Some(done)) => {
                    let (total, message) = (params.read("total"), params.read("message").map(cut));
                    Self::Progress { token, notice: Notice::Progress { done, total, message } }
                }
                _ => Self::Other,
            },
            "notifications/message" => match (params.get("level"), params.get("data")) {
                (Some(level), Some(data)) if level.get().len().max(data.get().len()) <= LONGEST_DATA => {
                    let data = data.to_owned();
                    params.read("level").map_or(Self::Other, |level| Self::Log(Notice::Log { level, data }))
                }
                _ => Self::Other,
            },
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed" => Self::ListChanged,
            "notifications/resources/updated" => params.read("uri").map_or(Self::Other, Self::Updated),
            "notifications/subscriptions/acknowledged" => {
                let meta: RawObject = params.read("_meta").unwrap_or_default();
                let accepted: RawObject = params.read("notifications").unwrap_or_default();
                let uris = accepted.read("resourceSubscriptions").unwrap_or_default();
                meta.read(SUBSCRIPTION_ID).map_or(Self::Other, |id| Self::Acknowledged { id, uris })
            }
            _ => Self::Other,
        }
    }
}

/// Returns a request as JSON text.
pub(super) fn request(id: u64, method: &str, params: &RawObject) -> String {
    let method = Value::from(method);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method},"params":{}}}"#, params.to_text())
}

/// Returns a notification as JSON text.
pub(super) fn notification(method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string()
}

/// Returns the notification that cancels a request.
pub(super) fn cancelled(id: u64) -> String {
    notification("notifications/cancelled", &json!({ "requestId": id, "reason": "the client no longer waits" }))
}

/// Returns the answer to a request of the backend. It is a refusal except for `ping`, because this client declares no
/// capabilities.
pub(super) fn refusal(id: &RawValue, method: &str) -> String {
    let id = id.get();
    if method == "ping" {
        return format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
    }
    let error = json!({ "code": METHOD_NOT_FOUND, "message": "this client does not answer requests of servers" });
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Incoming, BackendError> {
        Incoming::parse(text.as_bytes())
    }

    #[test]
    fn an_answer_keeps_its_result_as_it_was_written() {
        let answer = parse(r#"{"jsonrpc":"2.0","id":7,"result":{"b":1.50,"a":[12345678901234567890]}}"#).unwrap();
        let Incoming::Answer { id: Some(7), outcome: Ok(result) } = answer else { panic!("{answer:?}") };
        assert_eq!(result.to_text(), r#"{"b":1.50,"a":[12345678901234567890]}"#);
    }

    #[test]
    fn an_answer_without_a_whole_number_as_id_has_no_id() {
        for id in ["null", "\"7\"", "-7", "7.5", "{}"] {
            let answer = parse(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32000,"message":"no"}}}}"#));
            let Ok(Incoming::Answer { id: None, outcome: Err(error) }) = answer else { panic!("{id} {answer:?}") };
            assert_eq!((error.code, error.message.as_str()), (-32000, "no"));
        }
    }

    #[test]
    fn a_message_that_could_be_read_in_two_ways_is_refused() {
        for text in [
            r#"{"jsonrpc":"2.0","id":7,"id":8,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{"a":{"b":1,"b":2}}}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{},"error":{"code":1,"message":""}}"#,
            r#"{"jsonrpc":"2.0","id":7}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":[]}"#,
            r#"{"jsonrpc":"1.0","id":7,"result":{}}"#,
            r#"{"id":7,"result":{}}"#,
            r#"[{"jsonrpc":"2.0","id":7,"result":{}}]"#,
            "Starting…",
        ] {
            assert!(matches!(parse(text), Err(BackendError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn a_malformed_answer_belongs_to_its_first_id_and_text_without_json_to_none() {
        let deep = format!(r#"{{"id":7,"result":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        for (text, id) in [
            (r#"{"result":{},"id":7,"a":1,"a":2,"id":8}"#, Some(7)),
            (r#"{"result":{"id":8},"id":7}"#, Some(7)),
            (deep.as_str(), Some(7)),
            (r#"{"id":"7","id":8}"#, None),
            (r#"{"id":7,"result":{"#, None),
            ("[7]", None),
            (r#"{"id":7} {}"#, None),
        ] {
            assert_eq!(Incoming::id_of_malformed(text.as_bytes()), id, "{}", text.get(..40).unwrap_or(text));
        }
    }

    #[test]
    fn an_answer_is_recognized_by_an_id_at_its_beginning() {
        for (text, id) in [
            (r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"text":"xx"#, Some(7)),
            (r#"{"jsonrpc":"2.0","result":{"id":7,"content":[{"text":"xx"#, None),
            (r#"{"jsonrpc":"2.0","id":"#, None),
            ("xx", None),
        ] {
            assert_eq!(Incoming::id_of_beginning(text.as_bytes()), id, "{text}");
        }
    }

    #[test]
    fn requests_and_notifications_are_distinguished() {
        assert!(matches!(parse(r#"{"jsonrpc":"2.0","id":"x","method":"roots/list"}"#), Ok(Incoming::Request { .. })));
        for (text, expected) in [
            (r#""notifications/tools/list_changed""#, "ListChanged"),
            (r#""notifications/resources/updated","params":{"uri":"a:b"}"#, "Updated"),
            (r#""notifications/progress","params":{"progressToken":7,"progress":0.5}"#, "Progress"),
            (r#""notifications/progress","params":{"progressToken":"7","progress":0.5}"#, "Other"),
            (r#""notifications/message","params":{"level":"info","data":"x"}"#, "Log"),
            (
                r#""notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":7},"notifications":{"resourceSubscriptions":["a:b"]}}"#,
                r#"Acknowledged { id: 7, uris: ["a:b"] }"#,
            ),
            (r#""notifications/subscriptions/acknowledged","params":{"notifications":{}}"#, "Other"),
            (r#""notifications/else""#, "Other"),
        ] {
            let message = parse(&format!(r#"{{"jsonrpc":"2.0","method":{text}}}"#)).unwrap();
            assert!(format!("{message:?}").contains(expected), "{message:?}");
        }
    }

    #[test]
    fn a_request_with_a_long_id_is_not_answered() {
        let request = |id: usize| format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"ping"}}"#, "x".repeat(id - 2));
        assert!(matches!(parse(&request(LONGEST_ID)), Ok(Incoming::Request { .. })));
        let long = request(LONGEST_ID + 1);
        assert!(matches!(parse(&long), Err(BackendError::Malformed(_))));
        assert_eq!(Incoming::id_of_malformed(long.as_bytes()), None);
    }

    #[test]
    fn texts_and_data_that_no_limit_of_memory_counts_are_short() {
        let long = |length: usize| "x".repeat(length - 2);
        let data_of_error = |length| {
            let message = format!(
                r#"{{"jsonrpc":"2.0","id":7,"error":{{"code":1,"message":"{}","data":"{}"}}}}"#,
                long(LONGEST_DATA),
                long(length)
            );
            let Ok(Incoming::Answer { outcome: Err(error), .. }) = parse(&message) else { panic!("{message}") };
            assert_eq!(error.message.len(), LONGEST_TEXT);
            error.data.map(|data| data.get().len())
        };
        assert_eq!((data_of_error(LONGEST_DATA), data_of_error(LONGEST_DATA + 1)), (Some(LONGEST_DATA), None));

        let log = |level: &str, length| {
            let params = format!(r#"{{"level":"{level}","data":"{}"}}"#, long(length));
            parse(&format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{params}}}"#)).unwrap()
        };
        assert!(matches!(log("info", LONGEST_DATA), Incoming::Notification(Notification::Log(_))));
        for other in [log("info", LONGEST_DATA + 1), log(&long(LONGEST_DATA + 1), 2)] {
            assert!(matches!(other, Incoming::Notification(Notification::Other)), "{other:?}");
        }

        let params = format!(r#"{{"progressToken":7,"progress":1,"message":"{}"}}"#, long(LONGEST_DATA));
        let progress = parse(&format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}"#));
        let Ok(Incoming::Notification(Notification::Progress { notice, .. })) = progress else {
            panic!("{progress:?}")
        };
        let Notice::Progress { message: Some(text), .. } = notice else { panic!("{notice:?}") };
        assert_eq!(text.len(), LONGEST_TEXT);
    }

    #[test]
    fn a_request_of_a_backend_is_answered_that_there_is_no_such_method_and_a_ping_is_answered() {
        let id = RawValue::from_string("\"a\"".to_owned()).unwrap();
        assert!(refusal(&id, "sampling/createMessage").contains("-32601"));
        assert_eq!(refusal(&id, "ping"), r#"{"jsonrpc":"2.0","id":"a","result":{}}"#);
    }
}
