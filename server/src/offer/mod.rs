//! The interface of the offer: tools, prompts and resources for callers. It is independent of HTTP and of protocol
//! revisions.
//!
//! [`graph`] has the built-in tools. [`protocol`](crate::protocol) speaks MCP for any offer.

pub mod backend;
mod call;
mod changes;
pub mod graph;
mod listening;
mod notices;
mod offered;
mod parameter_headers;
mod uri_template;

use std::sync::Arc;

use async_trait::async_trait;

pub use call::{
    Arguments, Call, Client, Completion, CompletionReference, CompletionRequest, Failure, Input, InputRequired,
    JsonObject, Lack, Operation, Reply, tool_error,
};
pub use changes::{Change, Changes};
pub use listening::Listening;
pub use notices::{LogLevel, LogMessage, Notice, Notices, Progress, Wanted};
pub use offered::{Listed, Offered, OfferedPrompt, OfferedResource, OfferedTemplate, OfferedTool, PromptArgument};
pub use parameter_headers::parameter_headers;

use crate::entra::SignIn;
use crate::token::Principal;

/// A source of tools, prompts and resources.
///
/// An offer does not authorize: it only receives calls that the policy grants. It is independent of protocol
/// revisions, envelopes, cache hints, cursors and event streams.
#[async_trait]
pub trait Offer: Send + Sync {
    /// Describes the offer to clients, the same for all. A changed description is a new allocation.
    fn about(&self) -> Arc<About>;

    /// Returns the present offer for this caller. The policy decides which parts the caller may use.
    ///
    /// # Errors
    /// If the offer is not available.
    async fn snapshot(&self, principal: &Arc<Principal>) -> Result<Arc<Offered>, Unavailable>;

    /// Answers a call.
    ///
    /// The future is dropped when the client hangs up or the request times out. So a read stops at once. A write that
    /// has been sent must run to its end: spawn it on a tracker that the server's stop waits for, like the client of
    /// Graph, and await its handle here.
    async fn call(&self, call: Call) -> Reply;

    /// Returns suggested values for an argument. The caller may use its prompt or template.
    ///
    /// # Errors
    /// If the prompt or template has no such argument.
    async fn complete(&self, _: CompletionRequest, _: &Arc<Principal>) -> Result<Completion, Failure> {
        Ok(Completion::default())
    }

    /// Begins to listen to resources for this caller, who may read them. Returns those whose updates are told, after a
    /// limited time.
    async fn listen(&self, _: &Arc<Principal>, uris: Vec<String>) -> Listening {
        Listening::to_changes(uris)
    }

    /// Returns the changes of the offer. An offer that never changes has none.
    fn changes(&self) -> Changes {
        Changes::default()
    }
}

/// Description of an offer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Title of the server, for people.
    pub title: String,
    /// Instructions for models about the offer.
    pub instructions: String,
    /// True if there may be prompts.
    pub prompts: bool,
    /// True if there may be resources.
    pub resources: bool,
    /// True if clients may ask for values of arguments.
    pub completions: bool,
    /// True if calls may write to the client's log.
    pub logs: bool,
    /// True if [`Offer::listen`] or [`Offer::changes`] reports changes of resources.
    pub updates_resources: bool,
}

/// The reason why the offer is not available.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Unavailable {
    /// The message with the next step.
    pub text: String,
    /// The caller's sign-in that would help, if any.
    pub sign_in: Option<SignIn>,
}
