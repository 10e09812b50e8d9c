//! Client of a scripted backend, for each era and transport.

use serde_json::{Value, json};
use stock_backends::scripted::{Answers, Era, Options, Scripted, start};

use crate::envelope;
use crate::http::Endpoint;
use crate::pipe::Pipe;

/// A backend and its client.
pub(crate) struct Peer {
    pub(crate) era: Era,
    pub(crate) transport: Transport,
    /// Description for messages of failed assertions.
    pub(crate) name: String,
}

pub(crate) enum Transport {
    Pipe(Box<Pipe>),
    Http(Endpoint, Scripted),
}

impl Peer {
    /// One client for each era, transport and form of answers, ready for requests.
    pub(crate) async fn each() -> Vec<Self> {
        let mut peers = Vec::new();
        for era in [Era::Legacy, Era::Modern] {
            peers.push(Self::over_stdio(Options::of(era)).await);
            for answers in [Answers::Json, Answers::Sse] {
                peers.push(Self::over_http(Options { answers, ..Options::of(era) }).await);
            }
        }
        peers
    }

    pub(crate) async fn over_stdio(options: Options) -> Self {
        let transport = Transport::Pipe(Box::new(Pipe::start(&options.launch().unwrap())));
        Self::ready(options.era, transport, format!("{options:?} over stdio")).await
    }

    pub(crate) async fn over_http(options: Options) -> Self {
        let backend = start(options.clone()).await.unwrap();
        let transport = Transport::Http(Endpoint::new(backend.url()), backend);
        Self::ready(options.era, transport, format!("{options:?} over HTTP")).await
    }

    async fn ready(era: Era, mut transport: Transport, name: String) -> Self {
        if era == Era::Legacy {
            match &mut transport {
                Transport::Pipe(pipe) => pipe.initialize().await,
                Transport::Http(endpoint, _) => endpoint.initialize().await,
            };
        }
        Self { era, transport, name }
    }

    /// Sends a request, and returns its answer.
    pub(crate) async fn ask(&mut self, method: &str, mut params: Value) -> Value {
        match (&mut self.transport, self.era) {
            (Transport::Pipe(pipe), Era::Legacy) => pipe.ask(method, params).await,
            (Transport::Pipe(pipe), Era::Modern) => {
                params["_meta"] = with_envelope(&params);
                pipe.ask(method, params).await
            }
            (Transport::Http(endpoint, _), Era::Legacy) => endpoint.ask(method, params).await.message(),
            (Transport::Http(endpoint, _), Era::Modern) => endpoint.ask_modern(method, params).await.message(),
        }
    }

    /// Calls a tool, and returns its answer.
    pub(crate) async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.ask("tools/call", json!({ "name": tool, "arguments": arguments })).await
    }

    /// Calls a tool, and returns its text.
    pub(crate) async fn text(&mut self, tool: &str, arguments: Value) -> String {
        text_of(&self.call(tool, arguments).await)
    }

    /// All entries of a list over all pages, and the number of pages.
    pub(crate) async fn all(&mut self, method: &str, member: &str) -> (Vec<Value>, usize) {
        let (mut entries, mut pages, mut params) = (Vec::new(), 0, json!({}));
        loop {
            let answer = self.ask(method, params).await;
            let page = answer["result"][member].as_array().unwrap_or_else(|| panic!("{}: {answer}", self.name));
            entries.extend(page.iter().cloned());
            pages += 1;
            match answer["result"].get("nextCursor") {
                Some(cursor) => params = json!({ "cursor": cursor }),
                None => return (entries, pages),
            }
        }
    }
}

/// Adds the envelope to the existing `_meta`.
pub(crate) fn with_envelope(params: &Value) -> Value {
    let mut meta = envelope();
    if let (Some(meta), Some(given)) = (meta.as_object_mut(), params["_meta"].as_object()) {
        meta.extend(given.clone());
    }
    meta
}

/// The text of a tool's answer.
pub(crate) fn text_of(answer: &Value) -> String {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}
