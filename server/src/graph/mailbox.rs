//! The mailbox that a question is about: one queue for each, however the user is named.
//!
//! `me` is the caller's object id. A user principal name, in whatever case, stands for the object id that Graph says, asked
//! once in a while. Graph does not say it to an application without a permission to read users (`User.ReadBasic.All` or
//! more), nor of a user that it cannot find. Then the name has a queue of its own, beside that of the same user's object
//! id: together they may ask more than Outlook answers at a time, and what it refuses is asked again.

use super::question::Question;
use super::subject::{Subject, UserId};
use super::{Graph, GraphError, groups};

impl Graph {
    /// What the mailbox that lies behind this path is called among the queues. None if the directory lies there.
    pub(super) async fn mailbox_behind(&self, path: &str) -> Option<String> {
        match path {
            "" | groups::PATH => None,
            _ => Some(self.mailbox().await),
        }
    }

    /// What the user's mailbox is called among the queues.
    pub(super) async fn mailbox(&self) -> String {
        match &self.subject {
            Subject::Me => self.caller.object_id.clone(),
            Subject::User(user) if user.is_name() => {
                let named = &self.client.0.named;
                named.get_with_by_ref(user.as_str(), self.object_id_or_name(user)).await
            }
            Subject::User(user) => user.as_str().to_owned(),
        }
    }

    async fn object_id_or_name(&self, user: &UserId) -> String {
        let id = self.object_id().await.ok().flatten();
        id.as_ref().unwrap_or(user).as_str().to_owned()
    }

    /// The user's object id, if Graph says it at the first attempt.
    async fn object_id(&self) -> Result<Option<UserId>, GraphError> {
        let question = Question { url: self.url(""), query: &[("$select", "id")], body: None, mailbox: None };
        let token = self.access.token().await?;
        let answer = self.attempt(&question, &token, &uuid::Uuid::new_v4().to_string(), 0).await?;
        Ok(answer.get("id").and_then(|id| id.as_str()).and_then(UserId::parse))
    }
}
