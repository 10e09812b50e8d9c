//! The interface of what this server offers to its callers. Knows neither HTTP nor a revision of the protocol.
//!
//! [`graph`] has the built-in tools. [`protocol`](crate::protocol) speaks MCP for any offer.

pub mod backend;
mod call;
mod changes;
pub mod graph;
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
pub use notices::{LogLevel, LogMessage, Notice, Notices, Progress, Wanted};
pub use offered::{Listed, Offered, OfferedPrompt, OfferedResource, OfferedTemplate, OfferedTool, PromptArgument};
pub use parameter_headers::parameter_headers;

use crate::entra::SignIn;
use crate::token::Principal;

/// A source of tools, prompts and resources.
///
/// An offer authorizes nobody: it is called with what the policy grants. It knows no protocol revision, no envelope, no
/// cache hint, no cursor and no event stream.
#[async_trait]
pub trait Offer: Send + Sync {
    /// Describes the offer to clients, the same to all of them. Another description is another allocation.
    fn about(&self) -> Arc<About>;

    /// Returns what is offered to this caller now. What of it they may use is for the policy to say.
    ///
    /// # Errors
    /// If it is not known now.
    async fn snapshot(&self, principal: &Arc<Principal>) -> Result<Arc<Offered>, Unavailable>;

    /// Answers a call.
    ///
    /// The future is dropped when the client hangs up or the request's time limit strikes. So a read stops with it, and
    /// nothing reads on for a client that has gone. A write that has been sent must run to its end: spawn it on a tracker
    /// that the server's stop waits for, as the client of Graph does, and await its handle here.
    async fn call(&self, call: Call) -> Reply;

    /// Returns values that an argument may have. The caller may use the prompt or template that it is of.
    ///
    /// # Errors
    /// If the prompt or template has no such argument.
    async fn complete(&self, _: CompletionRequest, _: &Arc<Principal>) -> Result<Completion, Failure> {
        Ok(Completion::default())
    }

    /// The changes of what is offered. An offer that never changes has none.
    fn changes(&self) -> Changes {
        Changes::default()
    }
}

/// Description of an offer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Title of the server, for people.
    pub title: String,
    /// Words about the use of the offer, for models.
    pub instructions: String,
    /// True if there may be prompts.
    pub prompts: bool,
    /// True if there may be resources.
    pub resources: bool,
    /// True if clients may ask for values of arguments.
    pub completions: bool,
    /// True if calls may write to the client's log.
    pub logs: bool,
    /// True if [`Offer::changes`] tells of resources that change.
    pub updates_resources: bool,
}

/// A reason for which the offer is not known now.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Unavailable {
    /// Words with the next step.
    pub text: String,
    /// The sign-in of the caller that would help.
    pub sign_in: Option<SignIn>,
}
