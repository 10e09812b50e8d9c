//! JSON-RPC answers as data, independent of the transport.

use serde_json::{Value, json};

use crate::offer::Failure;

/// Codes of JSON-RPC errors.
pub mod code {
    /// The body is not JSON.
    pub const PARSE_ERROR: i32 = -32700;
    /// The body is not one JSON-RPC message.
    pub const INVALID_REQUEST: i32 = -32600;
    /// There is no such method.
    pub const METHOD_NOT_FOUND: i32 = -32601;
    /// The parameters do not match the method.
    pub const INVALID_PARAMS: i32 = -32602;
    /// There is no such resource, for clients of MCP before 2026-07-28.
    pub const RESOURCE_NOT_FOUND: i32 = -32002;
    /// The server cannot answer.
    pub const INTERNAL_ERROR: i32 = -32603;
    /// A header of the request differs from its body (MCP 2026-07-28).
    pub const HEADER_MISMATCH: i32 = -32020;
    /// The call needs a capability that the client does not declare (MCP 2026-07-28).
    pub const CAPABILITY_MISSING: i32 = -32021;
    /// The revision of the protocol is not supported (MCP 2026-07-28).
    pub const UNSUPPORTED_VERSION: i32 = -32022;
    /// The caller may not do this. The code lies outside -32768 to -32000, which JSON-RPC and MCP reserve.
    pub const FORBIDDEN: i32 = 403;
}

/// The error that answers a failed call.
impl From<Failure> for ErrorValue {
    fn from(Failure { code, message, data }: Failure) -> Self {
        Self { code, message, data }
    }
}

/// A JSON-RPC error without a request id.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorValue {
    /// One of [`code`].
    pub code: i32,
    /// English text with the next step.
    pub message: String,
    /// Data for programs.
    pub data: Option<Value>,
}

impl ErrorValue {
    /// Returns an error without data.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// Returns the answer to the request with this id. The id is null if none could be read.
    pub fn answer(&self, id: &Value) -> Value {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let (Some(data), Some(error)) = (&self.data, error.as_object_mut()) {
            error.insert("data".to_owned(), data.clone());
        }
        json!({ "jsonrpc": "2.0", "id": id, "error": error })
    }
}

/// Returns a tool result that reports an error to a model or a person. Clients show it even if they hide JSON-RPC
/// errors.
pub fn tool_error(id: &Value, text: &str) -> Value {
    let result = json!({ "resultType": "complete", "content": [{ "type": "text", "text": text }], "isError": true });
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_json_rpc_does_not_define_lies_outside_its_range() {
        const DEFINED: [i32; 5] = [-32700, -32600, -32601, -32602, -32603];
        let codes = [
            code::PARSE_ERROR,
            code::INVALID_REQUEST,
            code::METHOD_NOT_FOUND,
            code::INVALID_PARAMS,
            code::INTERNAL_ERROR,
            code::FORBIDDEN,
        ];
        for code in codes {
            assert!(DEFINED.contains(&code) || !(-32768..=-32000).contains(&code), "{code}");
        }
    }

    #[test]
    fn an_error_has_a_member_data_only_if_it_has_data() {
        let mut error = ErrorValue::new(code::FORBIDDEN, "no");
        let bare = json!({ "jsonrpc": "2.0", "id": 7, "error": { "code": 403, "message": "no" } });
        assert_eq!(error.answer(&json!(7)), bare);
        error.data = Some(json!({ "tool": "a" }));
        assert_eq!(error.answer(&Value::Null)["error"]["data"], json!({ "tool": "a" }));
    }
}
