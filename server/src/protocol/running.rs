//! A running call: its notices, and its end.

use axum::body::Bytes;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::calls::Finished;
use super::envelope;
use crate::authorize::json_rpc::{ErrorValue, code};
use crate::offer::{JsonObject, LogMessage, Notice, Progress};

/// A running call. It ends when this is dropped, unless it was detached.
pub struct Running {
    id: Value,
    finishing: BoxFuture<'static, Finished>,
    notices: Option<mpsc::Receiver<Notice>>,
    progress_token: Option<Value>,
    /// Last reported number of finished steps.
    done: Option<f64>,
    /// The end, while earlier notices remain.
    finished: Option<Finished>,
}

/// The next event of a call.
#[derive(Debug)]
pub enum Step {
    /// A notification, as JSON text.
    Notice(Bytes),
    /// The end.
    Finished(Finished),
}

impl Running {
    pub(super) fn new(id: Value, finishing: impl Future<Output = Finished> + Send + 'static) -> Self {
        Self { id, finishing: Box::pin(finishing), notices: None, progress_token: None, done: None, finished: None }
    }

    /// Returns the same call, whose progress is reported with this token.
    pub(super) fn telling(self, notices: Option<mpsc::Receiver<Notice>>, progress_token: Option<Value>) -> Self {
        Self { notices, progress_token, ..self }
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

    /// Waits for the end, and discards the notices.
    pub async fn finish(mut self) -> Finished {
        match self.finished.take() {
            Some(finished) => finished,
            None => self.finishing.await,
        }
    }

    /// Returns the same call, run by this function. A call that does not finish is aborted.
    pub fn run_by(
        self,
        run: impl FnOnce(BoxFuture<'static, Finished>) -> BoxFuture<'static, Option<Finished>>,
    ) -> Self {
        let (id, running) = (self.id.clone(), run(self.finishing));
        let finishing = async move { running.await.unwrap_or_else(|| lost(&id)) };
        Self { finishing: Box::pin(finishing), ..self }
    }

    /// Returns the notice as a notification; `None` for progress that has not increased, since it must.
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

/// Returns the end of a call whose task has ended too early.
fn lost(id: &Value) -> Finished {
    let error = ErrorValue::new(code::INTERNAL_ERROR, "the call was aborted; call again");
    Finished { message: Bytes::from(error.answer(id).to_string()), error: Some(error.code), need: None }
}
