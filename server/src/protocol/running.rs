//! A call that runs: its notices, and its end.

use std::sync::Arc;

use axum::body::Bytes;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::calls::{self, Calling, DEFECT, Finished};
use super::envelope::{self, Kind};
use super::{Exchange, Protocol, Revision};
use crate::authorize::Meta;
use crate::authorize::json_rpc::{ErrorValue, code};
use crate::offer::{
    Call, Client, Completing, Completion, Input, JsonObject, LogLevel, LogMessage, Notice, Notices, Operation,
    Progress, Wanted,
};

/// Values of a completion that clients are told, as MCP limits them.
const MAXIMUM_VALUES: usize = 100;

/// A call that runs. It ends when this is dropped, unless it was detached.
pub struct Running {
    id: Value,
    finishing: BoxFuture<'static, Finished>,
    notices: Option<mpsc::Receiver<Notice>>,
    progress_token: Option<Value>,
    /// Steps that were told to be done.
    done: Option<f64>,
    /// The end, while notices of before it are left.
    finished: Option<Finished>,
}

/// The next thing that a call tells its client.
#[derive(Debug)]
pub enum Step {
    /// A notification, as JSON text.
    Notice(Bytes),
    /// The end.
    Finished(Finished),
}

impl Running {
    fn new(id: Value, finishing: impl Future<Output = Finished> + Send + 'static) -> Self {
        Self { id, finishing: Box::pin(finishing), notices: None, progress_token: None, done: None, finished: None }
    }

    /// The id of the request.
    pub fn id(&self) -> &Value {
        &self.id
    }

    /// Waits for the next notice, or for the end. Nothing is lost when this future is dropped.
    pub async fn next(&mut self) -> Step {
        loop {
            let Some(notices) = &mut self.notices else {
                let finished = self.finished.take();
                return Step::Finished(match finished {
                    Some(finished) => finished,
                    None => (&mut self.finishing).await,
                });
            };
            if self.finished.is_some() {
                match notices.try_recv() {
                    Ok(notice) => {
                        if let Some(text) = self.notification(notice) {
                            return Step::Notice(text);
                        }
                    }
                    Err(_) => self.notices = None,
                }
                continue;
            }
            tokio::select! {
                biased;
                notice = notices.recv() => match notice {
                    Some(notice) => {
                        if let Some(text) = self.notification(notice) {
                            return Step::Notice(text);
                        }
                    }
                    None => self.notices = None,
                },
                finished = &mut self.finishing => self.finished = Some(finished),
            }
        }
    }

    /// Waits for the end, and tells nobody the notices.
    pub async fn finish(mut self) -> Finished {
        match self.finished.take() {
            Some(finished) => finished,
            None => self.finishing.await,
        }
    }

    /// The same call, run like this. A call that does not come to its end is cut off.
    pub fn run_by(
        self,
        run: impl FnOnce(BoxFuture<'static, Finished>) -> BoxFuture<'static, Option<Finished>>,
    ) -> Self {
        let (id, running) = (self.id.clone(), run(self.finishing));
        let finishing = async move { running.await.unwrap_or_else(|| lost(&id)) };
        Self { finishing: Box::pin(finishing), ..self }
    }

    /// The notice as a notification. None for progress that is no more than before: it must increase.
    fn notification(&mut self, notice: Notice) -> Option<Bytes> {
        Some(match notice {
            Notice::Progress(Progress { done, total, message }) => {
                let done = done.unwrap_or(self.done.unwrap_or(0.0) + 1.0);
                if self.done.is_some_and(|before| done <= before) {
                    return None;
                }
                self.done = Some(done);
                let mut params = JsonObject::from_iter([("progress".to_owned(), json!(done))]);
                params.insert("progressToken".to_owned(), json!(self.progress_token));
                total.map(|total| params.insert("total".to_owned(), json!(total)));
                message.map(|message| params.insert("message".to_owned(), json!(message)));
                envelope::notification("notifications/progress", &Value::Object(params))
            }
            Notice::Log(LogMessage { level, data }) => {
                envelope::notification("notifications/message", &json!({ "level": level, "data": data }))
            }
        })
    }
}

/// The end of a call whose task has ended before it.
fn lost(id: &Value) -> Finished {
    let error = ErrorValue::new(code::INTERNAL_ERROR, "the call was cut off; call again");
    Finished { message: Bytes::from(error.answer(id).to_string()), error: Some(error.code), need: None }
}

impl Protocol {
    /// Begins a call that a grant allows.
    pub(super) fn call(
        &self,
        (id, operation, input): (Value, Operation, Input),
        meta: Meta,
        exchange: &Exchange,
    ) -> Running {
        let wanted = self.wanted(&meta, exchange.revision);
        let (notices, heard) = match wanted == Wanted::default() {
            true => (Notices::default(), None),
            false => {
                let (notices, heard) = Notices::heard(wanted);
                (notices, Some(heard))
            }
        };
        let client = Client { capabilities: meta.capabilities.unwrap_or_default(), notices };
        let principal = Arc::clone(&exchange.principal);
        let call = Call { operation, principal, access: exchange.granted.unwrap_or_default(), input, client };
        let calling = Calling::new(&id, exchange.revision, &call, &self.server_info);
        if exchange.granted.is_none() {
            tracing::error!("{DEFECT}");
            return Running::new(id, async { calling.failed(&ErrorValue::new(code::INTERNAL_ERROR, DEFECT)) });
        }
        let offer = Arc::clone(&self.offer);
        let asks = exchange.asks.clone().filter(|_| !exchange.revision.is_modern());
        let running = Running::new(id, async move {
            let reply = match asks {
                Some(asks) => calls::reply_with_input(&*offer, call, &*asks).await,
                None => calls::reply(&*offer, call).await,
            };
            calling.finish(reply)
        });
        Running { notices: heard, progress_token: meta.progress_token, ..running }
    }

    /// Clients of earlier revisions set their log level in a session, and have none here.
    fn wanted(&self, meta: &Meta, revision: Revision) -> Wanted {
        let log = match self.description.about().logs {
            true if !revision.is_modern() => Some(LogLevel::Info),
            true => meta.log_level,
            false => None,
        };
        Wanted { log, ..meta.wanted() }
    }

    /// Begins to look for the values of an argument.
    pub(super) fn complete(&self, id: Value, completing: Completing, exchange: &Exchange) -> Running {
        let (offer, principal) = (Arc::clone(&self.offer), Arc::clone(&exchange.principal));
        let (server_info, revision, granted) = (Arc::clone(&self.server_info), exchange.revision, exchange.granted);
        Running::new(id.clone(), async move {
            let capabilities = JsonObject::new();
            let calling = Calling { id, revision, kind: Kind::Once, is_tool: false, capabilities, server_info };
            if granted.is_none() {
                tracing::error!("{DEFECT}");
                return calling.failed(&ErrorValue::new(code::INTERNAL_ERROR, DEFECT));
            }
            match offer.complete(completing, &principal).await {
                Ok(Completion { values }) => {
                    let (total, told) = (values.len(), values.iter().take(MAXIMUM_VALUES).collect::<Vec<_>>());
                    let completion = json!({ "values": told, "total": total, "hasMore": total > MAXIMUM_VALUES });
                    calling.complete(JsonObject::from_iter([("completion".to_owned(), completion)]), None)
                }
                Err(failure) => calling.failed(&failure.into()),
            }
        })
    }
}
