//! Answers that a client must not accept.

use serde_json::json;

use crate::scripted::backend::lock;
use crate::scripted::call::Call;
use crate::scripted::message;
use crate::scripted::outlet::Output;

pub(super) async fn other_id(call: &Call) {
    let result = json!({ "content": [{ "type": "text", "text": "for nobody" }] });
    for id in ["987654321", "\"nobody\"", "null"] {
        call.outlet.send(Output::Message(message::result(id, &result))).await;
    }
    call.answer_text("for the caller").await;
}

pub(super) async fn twice(call: &Call) {
    // By events, so that both answers are sent over HTTP, too.
    call.outlet.send(Output::Events).await;
    call.answer_text("the first").await;
    call.answer_text("the second").await;
}

/// Answers a waiting call after the later one. Each gets its argument `value`.
pub(super) async fn cross(call: Call) {
    let held = lock(&call.backend.held).pop();
    let Some(held) = held else {
        let backend = call.backend.clone();
        return lock(&backend.held).push(call);
    };
    for call in [&call, &held] {
        call.answer_text(call.argument("value").to_string()).await;
    }
}

pub(super) async fn duplicate_members(call: &Call) {
    let id = &call.id;
    let answer = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"id":1,"result":{{"content":[],"content":[{{"type":"text","text":"a","text":"b"}}]}},"error":{{"code":-1,"message":"no"}},"result":{{"content":[],"resultType":"complete"}}}}"#
    );
    call.outlet.send(Output::Answer(answer)).await;
}

pub(super) async fn deep(call: &Call) {
    let depth = call.count("depth", 100_000);
    let (id, open, close) = (&call.id, "[".repeat(depth), "]".repeat(depth));
    let answer = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","content":[],"structuredContent":{{"deep":{open}{close}}}}}}}"#
    );
    call.outlet.send(Output::Answer(answer)).await;
}

pub(super) async fn wrong_version(call: &Call) {
    let answer = format!(r#"{{"jsonrpc":"1.0","id":{},"result":{{"content":[]}}}}"#, call.id);
    call.outlet.send(Output::Answer(answer)).await;
}

pub(super) async fn odd(call: &Call) {
    call.outlet.send(Output::Answer(format!(r#"{{"jsonrpc":"2.0","id":{}}}"#, call.id))).await;
}
