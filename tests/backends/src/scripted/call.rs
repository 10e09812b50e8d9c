//! A request and its answer.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Era;
use super::backend::{Backend, Source};
use super::message::{self, Message};
use super::outlet::{Outlet, Output};

/// A request, and the means to answer it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) backend: Arc<Backend>,
    pub(super) message: Message,
    /// The exact text of the id.
    pub(super) id: String,
    pub(super) source: Source,
    pub(super) outlet: Outlet,
    /// Cancelled with the call, or with the backend.
    pub(super) stop: CancellationToken,
}

/// An answer with an error of JSON-RPC.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: i32,
    pub(super) message: String,
    pub(super) data: Value,
    /// The status over HTTP in the modern era.
    pub(super) status: u16,
}

impl Refusal {
    pub(super) fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: Value::Null, status: 200 }
    }

    /// Sets the status over HTTP in the modern era.
    pub(super) fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }
}

impl Call {
    pub(super) fn is_modern(&self) -> bool {
        self.backend.options.era == Era::Modern
    }

    pub(super) fn is_http(&self) -> bool {
        !self.source.headers.is_empty()
    }

    /// Arguments of a tool or prompt.
    pub(super) fn argument(&self, name: &str) -> &Value {
        self.message.params.get("arguments").and_then(|arguments| arguments.get(name)).unwrap_or(&Value::Null)
    }

    /// Returns an argument with text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.argument(name).as_str()
    }

    /// Returns an argument with a number.
    pub(super) fn count(&self, name: &str, default: usize) -> usize {
        self.argument(name).as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(default)
    }

    /// Answers with a result.
    pub(super) async fn answer(&self, mut result: Value) {
        if let (true, Some(result)) = (self.is_modern(), result.as_object_mut()) {
            result.entry("resultType").or_insert_with(|| json!("complete"));
        }
        self.outlet.send(Output::Answer(message::result(&self.id, &result))).await;
    }

    /// Answers a call of a tool with text.
    pub(super) async fn answer_text(&self, text: impl Into<String>) {
        self.answer(json!({ "content": [{ "type": "text", "text": text.into() }] })).await;
    }

    /// Answers a call of a tool with a failure.
    pub(super) async fn fail(&self, text: impl Into<String>) {
        self.answer(json!({ "content": [{ "type": "text", "text": text.into() }], "isError": true })).await;
    }

    /// Answers with an error.
    pub(super) async fn refuse(&self, refusal: Refusal) {
        let error = message::error(&self.id, refusal.code, &refusal.message, &refusal.data);
        let output = match refusal.status {
            status if self.is_modern() && self.is_http() && status != 200 => Output::Status(status, None, error),
            _ => Output::Answer(error),
        };
        self.outlet.send(output).await;
    }

    /// Sends a notification that belongs to this request. Returns false if the client does not read any more.
    pub(super) async fn notify(&self, method: &str, params: Value) -> bool {
        self.outlet.send(Output::Message(message::notification(method, &params))).await
    }

    /// Reports progress if the client has asked for it.
    pub(super) async fn progress(&self, progress: u64) {
        if let Some(token) = self.message.meta("progressToken").cloned() {
            let params = json!({ "progressToken": token, "progress": progress, "message": format!("step {progress}") });
            self.notify("notifications/progress", params).await;
        }
    }

    /// Waits until the client cancels the call: by a notification, or in the modern era by closing the HTTP answer.
    pub(super) async fn cancelled(&self) {
        let closes = self.is_modern() && self.is_http();
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.outlet.closed(), if closes => {}
        }
        self.backend.note_cancelled(self.message.text("name"));
    }
}
