//! A raw client over streamable HTTP.

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};

/// An endpoint, and the session there if one is open.
pub(crate) struct Endpoint {
    client: Client,
    url: String,
    session: Option<String>,
}

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// The last message: the body in JSON, or the data of the last event that has any.
    pub(crate) fn message(&self) -> Value {
        let of_events = || self.body.lines().rev().find_map(|line| line.strip_prefix("data: {"));
        let event = if self.body.starts_with('{') { None } else { of_events() };
        serde_json::from_str(&event.map_or_else(|| self.body.clone(), |data| format!("{{{data}"))).unwrap()
    }
}

impl Endpoint {
    pub(crate) fn new(url: String) -> Self {
        Self { client: Client::builder().no_proxy().redirect(Policy::none()).build().unwrap(), url, session: None }
    }

    /// A request with the session.
    pub(crate) fn post(&self, message: &Value) -> RequestBuilder {
        let post = self.client.post(&self.url).header(CONTENT_TYPE, "application/json").body(message.to_string());
        let post = post.header(ACCEPT, "application/json, text/event-stream");
        match &self.session {
            Some(session) => post.header("mcp-session-id", session),
            None => post,
        }
    }

    /// A request for the stream of the session.
    pub(crate) fn get(&self) -> RequestBuilder {
        let get = self.client.get(&self.url).header(ACCEPT, "text/event-stream");
        match &self.session {
            Some(session) => get.header("mcp-session-id", session),
            None => get,
        }
    }

    pub(crate) async fn send(request: RequestBuilder) -> Answer {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        Answer { status, headers, body: answer.text().await.unwrap() }
    }

    /// Asks in the session, or without one.
    pub(crate) async fn ask(&self, method: &str, params: Value) -> Answer {
        Self::send(self.post(&json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }))).await
    }

    /// Asks by 2026-07-28 with its headers and envelope.
    pub(crate) async fn ask_modern(&self, method: &str, mut params: Value) -> Answer {
        params["_meta"] = crate::peer::with_envelope(&params);
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let post = self.post(&message).header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
        Self::send(match params["name"].as_str().or(params["uri"].as_str()) {
            Some(name) => post.header("mcp-name", name.to_owned()),
            None => post,
        })
        .await
    }

    /// Opens a session.
    pub(crate) async fn initialize(&mut self) -> Value {
        let answer = self.ask("initialize", crate::initialization()).await;
        let session = answer.headers.get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
        self.session = session;
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        assert_eq!(Self::send(self.post(&initialized)).await.status, StatusCode::ACCEPTED);
        answer.message()
    }
}
