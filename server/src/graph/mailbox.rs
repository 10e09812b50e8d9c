//! Queue names for mailboxes: one queue per mailbox, however the user is named.
//!
//! `me` is the caller's object id. A user principal name, in any case, is resolved to an object id by Graph and
//! cached.
//!
//! Graph does not resolve it for an application without a permission to read users (`User.ReadBasic.All` or more), or
//! if the user does not exist. Then the name gets a queue of its own, beside that of the user's object id. Both
//! queues together may exceed Outlook's limit, and refused questions are repeated. If Graph does not answer, the name
//! gets its own queue for some seconds.

use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;

use super::error::GraphError;
use super::question::{Question, Queue};
use super::subject::{Subject, UserId};
use super::{Graph, groups};

/// Lifetime of a resolved user principal name, or of the knowledge that Graph does not resolve it.
const RELIED_ON: Duration = Duration::from_secs(300);
/// Pause after Graph could not answer. Graph is not asked again during it.
const PAUSE: Duration = Duration::from_secs(10);
/// Most names in the cache; the least used are evicted first.
const KEPT: u64 = 10_000;

/// The queue name of a mailbox and its lifetime in the cache.
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

/// Returns an empty cache of names.
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
    /// Returns the queue of questions about this path.
    pub(super) async fn queue_of(&self, path: &str) -> Queue {
        match path {
            "" => Queue::Directory,
            groups::PATH => Queue::Memberships,
            _ => Queue::Mailbox(self.mailbox().await),
        }
    }

    /// Returns the queue name of the user's mailbox.
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

    /// Returns the user's object id, if Graph returns it at the first attempt.
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
    fn an_unknown_name_is_cached_for_minutes_and_a_failure_for_seconds() {
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
