//! The mailbox that a question is about: one queue for each, however the user is named.
//!
//! `me` is the caller's object id. A user principal name, in whatever case, stands for the object id that Graph says, asked
//! once in a while. Graph does not say it to an application without a permission to read users (`User.ReadBasic.All` or
//! more), nor of a user that it cannot find. Then the name has a queue of its own, beside that of the same user's object
//! id: together they may ask more than Outlook answers at a time, and what it refuses is asked again. Where Graph only does
//! not answer now, the same holds for some seconds.

use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;

use super::error::GraphError;
use super::question::{Question, Queue};
use super::subject::{Subject, UserId};
use super::{Graph, groups};

/// Time in which the object id of a user principal name is relied on, or that Graph does not say it.
const RELIED_ON: Duration = Duration::from_secs(300);
/// Pause before Graph is asked again after it could not answer.
const PAUSE: Duration = Duration::from_secs(10);
/// Most names kept at a time; the least used go first.
const KEPT: u64 = 10_000;

/// The name of a mailbox among the queues, and the time in which it is relied on.
#[derive(Clone)]
pub(super) struct Named {
    mailbox: String,
    relied_on: Duration,
}

struct Lasting;

impl Expiry<String, Named> for Lasting {
    fn expire_after_create(&self, _: &String, named: &Named, _: Instant) -> Option<Duration> {
        Some(named.relied_on)
    }
}

/// No names yet.
pub(super) fn names() -> Cache<String, Named> {
    Cache::builder().max_capacity(KEPT).expire_after(Lasting).build()
}

impl Named {
    fn new(user: &UserId, answer: Result<Option<UserId>, GraphError>) -> Self {
        let relied_on = match &answer {
            Ok(_) => RELIED_ON,
            Err(error) if error.is_about_the_question() => RELIED_ON,
            Err(_) => PAUSE,
        };
        let id = answer.ok().flatten();
        Self { mailbox: id.as_ref().unwrap_or(user).as_str().to_owned(), relied_on }
    }
}

impl Graph {
    /// The queue of questions about what lies behind this path.
    pub(super) async fn queue_of(&self, path: &str) -> Queue {
        match path {
            "" => Queue::Directory,
            groups::PATH => Queue::Memberships,
            _ => Queue::Mailbox(self.mailbox().await),
        }
    }

    /// The name of the user's mailbox among the queues.
    pub(super) async fn mailbox(&self) -> String {
        match &self.subject {
            Subject::Me => self.caller.object_id.clone(),
            Subject::User(user) if user.is_name() => {
                let asking = async { Named::new(user, self.object_id().await) };
                self.client.0.named.get_with_by_ref(user.as_str(), asking).await.mailbox
            }
            Subject::User(user) => user.as_str().to_owned(),
        }
    }

    /// The user's object id, if Graph says it at the first attempt.
    async fn object_id(&self) -> Result<Option<UserId>, GraphError> {
        let question =
            Question { url: self.url(""), query: &[("$select", "id")], body: None, queue: &Queue::Directory };
        let token = self.access.token().await?;
        let answer = self.attempt(&question, &token, &uuid::Uuid::new_v4().to_string(), 0).await?;
        Ok(answer.get("id").and_then(|id| id.as_str()).and_then(UserId::parse))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::super::GraphRefusal;
    use super::*;
    use crate::http_client::{Answer, ExchangeError};

    fn relied_on(error: GraphError) -> Duration {
        Named::new(&UserId::parse("alice@contoso.com").unwrap(), Err(error)).relied_on
    }

    #[test]
    fn what_graph_does_not_say_of_a_name_is_relied_on_for_minutes_and_that_it_did_not_answer_for_seconds() {
        for status in 400..600 {
            let answer =
                Answer { status: StatusCode::from_u16(status).unwrap(), headers: HeaderMap::new(), body: vec![] };
            let refused = relied_on(GraphError::Refused(Box::new(GraphRefusal::read(&answer, "c1"))));
            assert_eq!(refused == RELIED_ON, [400, 403, 404].contains(&status), "{status}");
            assert!(refused == RELIED_ON || refused == PAUSE, "{status}");
        }
        let source = ExchangeError::Network("reset".to_owned());
        let unreachable = GraphError::Unreachable { source, client_request_id: "c1".to_owned() };
        let not_json = GraphError::NotJson { status: StatusCode::OK };
        for error in [GraphError::Crowded, GraphError::TooSlow { seconds: 1 }, unreachable, not_json] {
            assert_eq!(relied_on(error.clone()), PAUSE, "{error}");
        }
    }
}
