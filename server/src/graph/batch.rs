//! Several questions in one request. Each has its own answer or refusal. Questions that Graph is too busy for are
//! repeated.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::Graph;
use super::error::{GraphError, GraphRefusal, is_busy};
use super::question::{PATIENCE, Question, Queue, in_time};
use crate::http_client::{Again, Answer};

/// Most questions in one request.
const AT_ONCE: usize = 20;
const PATH: &str = "/$batch";

/// One question of a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchQuestion<'a> {
    /// Path after the user, such as `/messages`.
    pub path: &'static str,
    /// Its query parameters.
    pub query: &'a [(&'a str, &'a str)],
}

type BatchAnswer = Result<Value, Box<GraphRefusal>>;

/// The reason why a request left some questions without an answer.
enum Incomplete {
    /// Graph is too busy for some of them.
    Busy(Option<Duration>),
    /// The request itself has no answer.
    Failed(GraphError),
}

#[derive(Deserialize)]
struct BatchDocument {
    responses: Vec<BatchItem>,
}

#[derive(Deserialize)]
struct BatchItem {
    id: String,
    status: u16,
    #[serde(default)]
    headers: HashMap<String, String>,
    #[serde(default)]
    body: Value,
}

impl Graph {
    /// Returns the answers to these questions, in order.
    pub async fn batch(&self, questions: &[BatchQuestion<'_>]) -> Result<Vec<BatchAnswer>, GraphError> {
        in_time(self.batches(questions)).await
    }

    async fn batches(&self, questions: &[BatchQuestion<'_>]) -> Result<Vec<BatchAnswer>, GraphError> {
        let mut answers = Vec::new();
        let queue = Queue::Mailbox(self.mailbox().await);
        for some in questions.chunks(AT_ONCE) {
            // By position, so that questions without an answer can be repeated.
            let known = Mutex::new(HashMap::new());
            let attempt = || self.ask_the_rest(some, &known, &queue);
            let again = |incomplete: &Incomplete| match incomplete {
                Incomplete::Busy(retry_after) => Again::After(*retry_after),
                Incomplete::Failed(_) => Again::Never,
            };
            if let Some(Err(Incomplete::Failed(error))) = PATIENCE.attempt(attempt, again).await {
                return Err(error);
            }
            let mut known = known.into_inner().unwrap_or_else(PoisonError::into_inner);
            for place in 0..some.len() {
                answers.push(known.remove(&place).ok_or(GraphError::Unexpected { path: PATH })?);
            }
        }
        Ok(answers)
    }

    async fn ask_the_rest(
        &self,
        questions: &[BatchQuestion<'_>],
        known: &Mutex<HashMap<usize, BatchAnswer>>,
        queue: &Queue,
    ) -> Result<(), Incomplete> {
        let is_open = |place: &usize| {
            let known = known.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(place).is_none_or(|answer| answer.as_ref().is_err_and(|refusal| is_busy(refusal.status)))
        };
        let rest = questions.iter().enumerate().filter(|(place, _)| is_open(place));
        let requests: Vec<Value> = rest
            .map(
                |(place, question)| json!({ "id": place.to_string(), "method": "GET", "url": self.relative(question) }),
            )
            .collect();
        let body = json!({ "requests": requests });
        let url = self.client.0.url(PATH);
        let question = Question { url, query: &[], body: Some(&body), queue };
        let (document, _) = self.answer(&question).await.map_err(Incomplete::Failed)?;
        let unexpected = |_| Incomplete::Failed(GraphError::Unexpected { path: PATH });
        let document: BatchDocument = serde_json::from_value(document).map_err(unexpected)?;

        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        for item in document.responses {
            if let Some(place) = item.id.parse().ok().filter(|place| *place < questions.len()) {
                known.insert(place, item.into_answer());
            }
        }
        let busy = known.values().filter_map(|answer| answer.as_ref().err()).filter(|refusal| is_busy(refusal.status));
        // Waits for the longest pause before it repeats any question.
        match busy.map(|refusal| refusal.retry_after).max() {
            Some(retry_after) => Err(Incomplete::Busy(retry_after)),
            None => Ok(()),
        }
    }

    /// Returns the URL of a question in a batch: relative to the version.
    fn relative(&self, question: &BatchQuestion<'_>) -> String {
        let path = format!("/{}{}", self.subject.path(), question.path);
        match question.query {
            [] => path,
            query => format!("{path}?{}", form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish()),
        }
    }
}

impl BatchItem {
    fn into_answer(self) -> BatchAnswer {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_GATEWAY);
        if status.is_success() {
            return Ok(self.body);
        }
        let header = |(name, value): (&String, &String)| {
            Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
        };
        let headers: HeaderMap = self.headers.iter().filter_map(header).collect();
        let body = self.body.to_string().into_bytes();
        Err(Box::new(GraphRefusal::read(&Answer { status, headers, body }, "unknown")))
    }
}
