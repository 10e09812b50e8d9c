//! Bytes that are not messages, and HTTP answers without one.

use serde_json::json;

use super::ordinary::released;
use crate::scripted::call::Call;
use crate::scripted::message;
use crate::scripted::outlet::Output;

/// Number of bytes in one write of an endless line.
const PART: usize = 64 << 10;

/// Writes lines that are not messages. Over stdio an answer follows; over HTTP there are only the lines.
pub(super) async fn garbage(call: &Call) {
    let lines = b"Listening on stdio...\n{\"jsonrpc\":\"2.0\",\"id\":1,\n\xff\xfe\x00\n[]\n42\nnull\n\n".to_vec();
    call.outlet.send(Output::Bytes(lines)).await;
    if !call.is_http() {
        call.answer_text("after garbage").await;
    }
}

/// Writes half of an answer, and the rest after a signal.
pub(super) async fn half_answer(call: &Call) {
    let text = "x".repeat(call.count("bytes", 200 << 10));
    let result = json!({ "resultType": "complete", "content": [{ "type": "text", "text": text }] });
    let answer = message::result(&call.id, &result);
    let (first, second) = answer.split_at(answer.len() / 2);
    call.outlet.send(Output::Bytes(first.as_bytes().to_vec())).await;
    released(call).await;
    call.outlet.send(Output::Bytes(second.as_bytes().to_vec())).await;
}

/// Writes a line until the client does not read any more, or up to `bytes` bytes, then waits.
pub(super) async fn long_line(call: &Call) {
    let mut left = call.count("bytes", usize::MAX);
    let start = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"content":[{{"type":"text","text":""#, call.id);
    let framed = if call.is_http() { format!("data: {start}") } else { start };
    if call.is_http() {
        call.outlet.send(Output::Events).await;
    }
    call.outlet.send(Output::Bytes(framed.into_bytes())).await;
    while left > 0 {
        let part = PART.min(left);
        let sent = tokio::select! {
            sent = call.outlet.send(Output::Bytes(vec![b'x'; part])) => sent,
            () = call.stop.cancelled() => false,
        };
        if !sent {
            return;
        }
        left -= part;
    }
    call.cancelled().await;
}

/// Answers by events that only a complete parser of event streams can read.
pub(super) async fn split_events(call: &Call) {
    if !call.is_http() {
        return call.answer_text("split").await;
    }
    let progress = message::notification("notifications/message", &json!({ "level": "info", "data": "split" }));
    let result = json!({ "resultType": "complete", "content": [{ "type": "text", "text": "split" }] });
    let answer = message::result(&call.id, &result);
    let (first, second) = answer.split_at(answer.find(",\"result\"").unwrap_or_default());
    let parts = [
        "\u{feff}: a comment\r\n\r\n".to_owned(),
        "id: 1\r\nretry: 10\r\ndata:\r\n\r\n".to_owned(),
        "id: 2\rdata\r\r".to_owned(),
        ":\n\n\n\n".to_owned(),
        format!("event: message\rid: 3\rdata:{progress}\r\r"),
        "event: other\ndata: not a message\n\n".to_owned(),
        format!("unknown: field\r\ndata: {first}\r\n: within\r\ndata: {second}\r\nevent: message\r\n\r"),
        "\n: after\n\n".to_owned(),
        format!("data: {}", message::result("\"unfinished\"", &json!({}))),
    ];
    call.outlet.send(Output::Events).await;
    for part in parts {
        // Byte by byte, so that no piece is a whole line or character.
        for byte in part.into_bytes() {
            call.outlet.send(Output::Bytes(vec![byte])).await;
        }
    }
}

pub(super) async fn forget_session(call: &Call) {
    call.backend.forget_sessions();
    call.answer_text("forgotten").await;
}

/// Answers with a status, and a location if there is one.
pub(super) async fn status(call: &Call, default: u16) {
    if !call.is_http() {
        return call.fail("This takes HTTP.").await;
    }
    let status = u16::try_from(call.count("status", usize::from(default))).unwrap_or(default);
    let location = call.text("to").map(|to| ("location", to.to_owned()));
    call.outlet.send(Output::Status(status, location, "{\"oops\":true}".to_owned())).await;
}
