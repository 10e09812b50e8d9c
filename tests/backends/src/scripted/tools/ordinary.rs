//! Tools that behave correctly.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use crate::scripted::call::{Call, Refusal};
use crate::scripted::http::decoded;

/// Interval between two checks of a file.
const LOOK: Duration = Duration::from_millis(10);

pub(super) async fn add(call: &Call) {
    let (Some(a), Some(b)) = (call.argument("a").as_f64(), call.argument("b").as_f64()) else {
        return call.fail("a and b are required").await;
    };
    let sum = json!({ "sum": a + b });
    let content = json!([{ "type": "text", "text": sum.to_string() }]);
    call.answer(json!({ "content": content, "structuredContent": sum })).await;
}

/// Returns text and structure with `headers`, in which values of one name are joined, and `meta`.
pub(super) async fn whoami(call: &Call) {
    let mut headers = serde_json::Map::new();
    for (name, value) in &call.source.headers {
        let all = match headers.get(name).and_then(Value::as_str) {
            Some(before) => format!("{before}, {value}"),
            None => value.clone(),
        };
        headers.insert(name.clone(), Value::String(all));
    }
    let meta = call.message.params.get("_meta").cloned().unwrap_or_default();
    structured(call, json!({ "headers": headers, "meta": meta })).await;
}

pub(super) async fn regional(call: &Call) {
    let region = call.text("region").unwrap_or_default();
    let header = call.source.headers.iter().find(|(name, _)| name == "mcp-param-region");
    let differs = decoded(header.map_or("", |(_, value)| value)) != region;
    if differs && call.is_modern() && call.is_http() {
        return call.refuse(Refusal::new(-32020, "Mcp-Param-Region does not match the body").with_status(400)).await;
    }
    call.answer_text(region).await;
}

/// Waits for a file or a signal, and reports progress meanwhile.
pub(super) async fn slow(call: &Call) {
    let period = u64::try_from(call.count("progress_ms", 100)).unwrap_or(u64::MAX);
    let mut ticks = interval(Duration::from_millis(period.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let reports = async {
        for step in 0.. {
            ticks.tick().await;
            call.progress(step).await;
        }
    };
    tokio::select! {
        () = released(call) => call.answer_text("released").await,
        () = call.cancelled() => {}
        () = reports => {}
    }
}

pub(super) async fn released(call: &Call) {
    if let Some(file) = call.text("file") {
        while !Path::new(file).exists() {
            tokio::time::sleep(LOOK).await;
        }
        return;
    }
    let mut signals = call.backend.signals.subscribe();
    let signal = call.text("signal").unwrap_or_default();
    // The backend, which holds the sender, outlives its calls.
    signals.wait_for(|given| given.contains(signal)).await.ok();
}

pub(super) async fn release(call: &Call) {
    let signal = call.text("signal").unwrap_or_default().to_owned();
    call.backend.signals.send_modify(|given| {
        given.insert(signal);
    });
    call.answer_text("released").await;
}

pub(super) async fn counts(call: &Call) {
    structured(call, json!({ "sessions": call.backend.sessions(), "cancelled": call.backend.cancelled() })).await;
}

pub(super) async fn received(call: &Call) {
    let received = call.backend.received().into_iter();
    let all: Vec<_> = received.map(|one| json!({ "body": one.body, "headers": one.headers })).collect();
    structured(call, json!({ "received": all })).await;
}

/// Requests the same call with its state, or with the user's input, until it has that.
pub(super) async fn ask_again(call: &Call, name: &str) {
    let params = &call.message.params;
    if name == "needs_input" {
        return match params.get("inputResponses") {
            Some(responses) => call.answer_text(responses.to_string()).await,
            None => call.answer(elicitation()).await,
        };
    }
    let state = params.get("requestState").and_then(Value::as_str);
    let round = state.and_then(|state| state.strip_prefix("round ")?.parse::<usize>().ok()).unwrap_or(0);
    if state.is_some() && round == 0 {
        call.fail("The state is not of this backend.").await;
    } else if round < call.count("rounds", 1) {
        call.answer(json!({ "resultType": "input_required", "requestState": format!("round {}", round + 1) })).await;
    } else {
        call.answer_text(format!("done in round {round}")).await;
    }
}

fn elicitation() -> Value {
    let schema = json!({ "type": "object", "properties": { "name": { "type": "string" } } });
    let request =
        json!({ "method": "elicitation/create", "params": { "message": "Name?", "requestedSchema": schema } });
    json!({ "resultType": "input_required", "inputRequests": { "name": request }, "requestState": "round 1" })
}

/// Answers with a structure, and with the same content as text.
pub(super) async fn structured(call: &Call, content: Value) {
    let text = json!([{ "type": "text", "text": content.to_string() }]);
    call.answer(json!({ "content": text, "structuredContent": content })).await;
}
