//! Standard output of a server, which contains only messages of JSON-RPC, one per line.

use anyhow::{Context, ensure};
use serde_json::Value;

/// Returns the number of messages.
pub(crate) fn check(printed: &str) -> anyhow::Result<usize> {
    for line in printed.lines() {
        let message: Value = serde_json::from_str(line).with_context(|| format!("this is not JSON: {line}"))?;
        let has = |member: &str| message.get(member).is_some();
        let is_message = has("method") || (has("id") && (has("result") != has("error")));
        let version = message.get("jsonrpc").and_then(Value::as_str);
        ensure!(version == Some("2.0") && is_message, "this is not a message of JSON-RPC: {line}");
    }
    Ok(printed.lines().count())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn requests_notifications_and_answers_are_messages() {
        let printed = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}
{"jsonrpc":"2.0","method":"notifications/progress","params":{}}
{"jsonrpc":"2.0","id":1,"result":{}}
{"jsonrpc":"2.0","id":2,"error":{"code":-32601,"message":"no"}}
"#;
        assert_eq!(check(printed).unwrap(), 4);
        assert_eq!(check("").unwrap(), 0);
    }

    #[test]
    fn anything_else_on_standard_output_is_found() {
        let message = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        for stray in ["Please sign in.", "", "{}", "1", r#"{"id":1,"result":{}}"#, r#"{"jsonrpc":"2.0","id":1}"#] {
            assert!(check(&format!("{message}\n{stray}\n{message}\n")).is_err(), "{stray:?}");
        }
    }
}
