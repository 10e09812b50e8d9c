//! One question to Graph. It is repeated while Graph is busy, and once with another token if Graph rejects the first.
//!
//! Questions change nothing in Graph, whatever their method, so a repetition is safe. Requests that change something
//! have another type, in `once`.

use std::sync::Arc;
use std::time::Duration;

use reqwest::RequestBuilder;
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::time::timeout;
use url::Url;
use uuid::Uuid;

use super::Graph;
use super::access::Access;
use super::error::{GraphError, GraphRefusal};
use super::turns::Turn;
use crate::entra::GraphToken;
use crate::http_client::{self, Patience};

/// Largest answer of Graph that is read, in bytes.
pub(super) const MAXIMUM_ANSWER: usize = 4 * 1024 * 1024;
/// Longest time of one attempt.
pub(super) const ATTEMPT: Duration = Duration::from_secs(15);
/// Retries like those of Microsoft's own clients, except for the total.
pub(super) const PATIENCE: Patience =
    Patience { repetitions: 3, first_pause: Duration::from_secs(3), total: Duration::from_secs(40) };
/// Longest time for a tool, with all tokens, turns, retries and pages. It is shorter than the time limit of a request
/// to this server.
pub(super) const TOTAL: Duration = Duration::from_secs(50);

/// Returns the answer, or an error after the time limit of a tool.
pub(super) async fn in_time<T>(answer: impl Future<Output = Result<T, GraphError>>) -> Result<T, GraphError> {
    timeout(TOTAL, answer).await.unwrap_or(Err(GraphError::TooSlow { seconds: TOTAL.as_secs() }))
}

/// A question that changes nothing.
pub(super) struct Question<'a> {
    pub(super) url: Url,
    pub(super) query: &'a [(&'a str, &'a str)],
    /// A question with a body is POSTed.
    pub(super) body: Option<&'a Value>,
    pub(super) queue: &'a Queue,
}

/// The queue in which a question waits for its turn.
pub(super) enum Queue {
    /// The queue of a mailbox, by queue name.
    Mailbox(String),
    /// The queue of directory questions.
    Directory,
    /// The queue of membership questions.
    Memberships,
}

impl Graph {
    /// Returns Graph's answer and the token that Graph accepted.
    pub(super) async fn answer(&self, question: &Question<'_>) -> Result<(Value, Arc<GraphToken>), GraphError> {
        let token = self.access.token().await?;
        match self.patient_answer(question, &token).await {
            // The token was revoked, or expired by Graph's clock.
            Err(GraphError::Refused(refusal)) if refusal.is_of_the_token() => {
                let token = self.access.instead_of(&token, refusal.challenge.as_ref()).await?;
                Ok((self.patient_answer(question, &token).await?, token))
            }
            answer => Ok((answer?, token)),
        }
    }

    async fn patient_answer(&self, question: &Question<'_>, token: &Arc<GraphToken>) -> Result<Value, GraphError> {
        // The id of the question in Graph's logs, for all its retries.
        let id = Uuid::new_v4().to_string();
        let mut attempts = 0..;
        let attempt = || self.attempt(question, token, &id, attempts.next().unwrap_or_default());
        let waits = |pause| self.waits.iter().for_each(|tell| tell(pause));
        let answer = PATIENCE.attempt_telling(attempt, GraphError::again, waits).await;
        answer.unwrap_or(Err(GraphError::TooSlow { seconds: PATIENCE.total.as_secs() }))
    }

    pub(super) async fn attempt(
        &self,
        question: &Question<'_>,
        token: &GraphToken,
        id: &str,
        attempt: u32,
    ) -> Result<Value, GraphError> {
        let _turn = self.turn(question.queue).await?;
        let http = &self.client.0.http;
        let mut request = match question.body {
            None => http.get(question.url.clone()).query(question.query),
            Some(body) => http.post(question.url.clone()).json(body),
        };
        if attempt > 0 {
            request = request.header("Retry-Attempt", attempt);
        }
        let request = authorized(request, token, id);
        let unreachable = |source| GraphError::Unreachable { source, client_request_id: id.to_owned() };
        let answer = http_client::exchange(request, MAXIMUM_ANSWER).await.map_err(unreachable)?;
        if !answer.status.is_success() {
            let mut refusal = GraphRefusal::read(&answer, id);
            // An application cannot sign in again.
            refusal.challenge.take_if(|_| matches!(self.access, Access::Application(_)));
            return Err(GraphError::Refused(Box::new(refusal)));
        }
        serde_json::from_slice(&answer.body).map_err(|_| GraphError::NotJson { status: answer.status })
    }

    /// Waits for the caller's turn in this queue.
    pub(super) async fn turn(&self, queue: &Queue) -> Result<Turn, GraphError> {
        let (client, caller) = (&self.client.0, &self.caller);
        let turn = match queue {
            Queue::Mailbox(mailbox) => client.mailboxes.turn(mailbox, &caller.name).await,
            Queue::Directory => client.directory.turn("", &caller.name).await,
            // By user, not by client: each token needs only one answer.
            Queue::Memberships => client.memberships.turn("", &caller.object_id).await,
        };
        turn.ok_or(GraphError::Crowded)
    }
}

/// Adds this token, the id for Graph's logs, and the deadline to the request.
pub(super) fn authorized(request: RequestBuilder, token: &GraphToken, id: &str) -> RequestBuilder {
    request.header("client-request-id", id).bearer_auth(token.access_token.expose_secret()).timeout(ATTEMPT)
}
