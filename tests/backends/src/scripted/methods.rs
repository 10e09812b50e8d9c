//! Methods of the protocol with correct answers.

use serde_json::{Value, json};

use super::backend::lock;
use super::call::{Call, Refusal};
use super::{Era, Listed, lists, tools};

/// The revision of the modern era.
pub(super) const MODERN: &str = "2026-07-28";
/// Revisions of the legacy era, the newest last.
const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
const VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// Ends of URIs whose subscriptions are never answered, and refused.
const SILENT: &str = "silent";
const REFUSED: &str = "/refused";

/// Answers a request.
pub(super) async fn answer(call: Call) {
    if let Err(refusal) = admit(&call) {
        return call.refuse(refusal).await;
    }
    let method = call.message.method.clone().unwrap_or_default();
    let result = match method.as_str() {
        "tools/call" => return tools::run(call).await,
        "server/discover" if call.backend.options.silent_discover => return call.cancelled().await,
        "subscriptions/listen" if call.is_modern() => return listen(call).await,
        "resources/subscribe" if call.message.text("uri").ends_with(SILENT) => return call.cancelled().await,
        "initialize" | "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe"
            if !call.is_modern() =>
        {
            legacy(&call, &method)
        }
        "server/discover" if call.is_modern() => Ok(description(Some(MODERN))),
        "tools/list" if *lock(&call.backend.listed) == Listed::Silent => return call.cancelled().await,
        "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" => lists::page(&call, &method),
        "prompts/get" => prompt(&call),
        "resources/read" => resource(&call),
        "completion/complete" => Ok(completion(&call)),
        _ => Err(Refusal::new(-32601, format!("Method not found: {method}")).with_status(404)),
    };
    match result {
        Ok(result) => call.answer(result).await,
        Err(refusal) => call.refuse(refusal).await,
    }
}

/// Checks whether the request may be answered.
fn admit(call: &Call) -> Result<(), Refusal> {
    let method = call.message.method.as_deref().unwrap_or_default();
    if call.backend.options.era == Era::Legacy {
        let open =
            call.backend.options.stateless && call.is_http() || call.backend.knows_session(call.source.session());
        let early = matches!(method, "initialize" | "ping" | "server/discover");
        return if open || early { Ok(()) } else { Err(Refusal::new(-32602, "Initialize first")) };
    }
    let Some(version) = call.message.meta(VERSION).and_then(Value::as_str) else {
        return Err(Refusal::new(-32602, format!("_meta lacks {VERSION}")).with_status(400));
    };
    if version != MODERN {
        let data = json!({ "supported": [MODERN], "requested": version });
        return Err(Refusal { data, ..Refusal::new(-32022, "Unsupported protocol version").with_status(400) });
    }
    if call.message.meta("io.modelcontextprotocol/clientCapabilities").is_none() {
        return Err(Refusal::new(-32602, "_meta lacks the client's capabilities").with_status(400));
    }
    Ok(())
}

fn legacy(call: &Call, method: &str) -> Result<Value, Refusal> {
    let (session, uri) = (call.source.session(), call.message.text("uri"));
    match method {
        "initialize" => {
            call.backend.open_session(session);
            let asked = call.message.text("protocolVersion");
            let version = LEGACY.into_iter().find(|version| *version == asked).unwrap_or("2025-11-25");
            let mut description = description(None);
            if let Some(description) = description.as_object_mut() {
                description.insert("protocolVersion".to_owned(), json!(version));
            }
            return Ok(description);
        }
        "resources/subscribe" if uri.ends_with(REFUSED) => return Err(Refusal::new(-32602, "No subscription")),
        "resources/subscribe" => call.backend.subscriptions.subscribe(session, uri),
        "resources/unsubscribe" => call.backend.subscriptions.unsubscribe(session, uri),
        _ => {}
    }
    Ok(json!({}))
}

/// Returns capabilities and instructions. With a revision of the modern era, its additional members are included.
fn description(modern: Option<&str>) -> Value {
    let info = json!({ "name": "scripted", "title": "Scripted backend", "version": "1.0.0" });
    let capabilities = json!({
        "tools": { "listChanged": true },
        "prompts": { "listChanged": true },
        "resources": { "listChanged": true, "subscribe": true },
        "completions": {},
        "logging": {},
        "experimental": { "scripted": { "kept": true } },
    });
    let instructions = "Use echo to repeat, and add to add.";
    match modern {
        Some(version) => json!({
            "supportedVersions": [version],
            "capabilities": capabilities,
            "instructions": instructions,
            "ttlMs": 60_000,
            "cacheScope": "public",
            "_meta": { "io.modelcontextprotocol/serverInfo": info },
        }),
        None => json!({ "capabilities": capabilities, "serverInfo": info, "instructions": instructions }),
    }
}

async fn listen(call: Call) {
    let id = serde_json::from_str(&call.id).unwrap_or_default();
    let mut filter = call.message.params.get("notifications").cloned().unwrap_or_default();
    if let Some(uris) = filter.get_mut("resourceSubscriptions").and_then(Value::as_array_mut) {
        let ends = |uri: &Value, end| uri.as_str().is_some_and(|uri| uri.ends_with(end));
        if uris.iter().any(|uri| ends(uri, SILENT)) {
            return call.cancelled().await;
        }
        uris.retain(|uri| !ends(uri, REFUSED));
    }
    tokio::select! {
        () = call.backend.listen(id, filter, call.outlet.clone()) => {}
        () = call.stop.cancelled() => {}
    }
}

fn prompt(call: &Call) -> Result<Value, Refusal> {
    let name = call.message.text("name");
    if !lists::prompt_names().any(|prompt| prompt == name) {
        return Err(Refusal::new(-32602, format!("Unknown prompt: {name}")));
    }
    let text = format!("{name} {}", call.text("name").unwrap_or("nobody"));
    Ok(json!({ "messages": [{ "role": "user", "content": { "type": "text", "text": text } }] }))
}

fn resource(call: &Call) -> Result<Value, Refusal> {
    let uri = call.message.text("uri");
    if !uri.starts_with("scripted://") {
        let code = if call.is_modern() { -32602 } else { -32002 };
        return Err(Refusal { data: json!({ "uri": uri }), ..Refusal::new(code, "Resource not found") });
    }
    let contents = json!([{ "uri": uri, "mimeType": "text/plain", "text": format!("the text of {uri}") }]);
    Ok(lists::cacheable(call, json!({ "contents": contents })))
}

/// Completes the names of people, or the numbers of notes.
fn completion(call: &Call) -> Value {
    let of = |pointer| call.message.params.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let known = if of("/ref/type") == "ref/prompt" { ["Ada", "Alan", "Grace"] } else { ["1", "10", "2"] };
    let values: Vec<_> = known.into_iter().filter(|value| value.starts_with(of("/argument/value"))).collect();
    json!({ "completion": { "values": values, "total": values.len(), "hasMore": false } })
}
