//! Reasons why a backend gives no answer.

use axum::http::HeaderMap;
use serde_json::value::RawValue;

/// The reason why a backend gives no answer. The message includes the next step, if there is one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BackendError {
    /// The backend cannot be reached.
    #[error("the backend cannot be reached ({0}); look at the log of the container \"backend\"")]
    Away(String),
    /// The backend failed recently, and is tried again after a pause.
    #[error(
        "the backend ended {times} times in a row; it is tried again in {seconds} s. Look at the log of the container \"backend\""
    )]
    Resting {
        /// Number of failures in a row.
        times: u32,
        /// Time until the next attempt, in seconds.
        seconds: u64,
    },
    /// Too many requests wait for answers of the backend.
    #[error("{0} {1} unfinished requests at the backend; call again when one has ended")]
    Busy(&'static str, usize),
    /// Large answers that clients have not read yet use all memory for answers.
    #[error("{0} large answers use all memory for answers; call again when they have been read")]
    Crowded(&'static str),
    /// The connection ended before the answer.
    #[error("the backend ended before it answered; the call may have had its effect, and is not repeated")]
    Ended,
    /// The backend no longer knows the session.
    #[error("the backend has forgotten the session; call again")]
    SessionLost,
    /// The backend did not answer within this time, in seconds.
    #[error("the backend gave no answer within {0} s")]
    Silent(u64),
    /// The answer is larger than this limit, in MiB.
    #[error("the backend answered with more than {0} MiB, which is refused")]
    TooLarge(usize),
    /// The answer is not valid MCP, for this reason.
    #[error("the backend's answer is not MCP ({0})")]
    Malformed(String),
    /// The backend answered with this unexpected HTTP status.
    #[error("the backend answered with HTTP status {0}")]
    Status(u16),
    /// The backend requires another token of the user (status 401). These are the headers of its answer.
    #[error("the backend refuses the user's token; ask an administrator of the backend which tokens it accepts")]
    Unauthorized(Box<HeaderMap>),
    /// The backend refuses the user, and another token would not help (status 403).
    #[error("the backend refuses the user; ask an administrator of the backend which users it accepts")]
    Forbidden,
    /// The backend answered with a JSON-RPC error.
    #[error("{}", .0.message)]
    Answered(PeerError),
}

/// A JSON-RPC error, as the backend wrote it.
#[derive(Clone, Debug)]
pub struct PeerError {
    /// Code of the error.
    pub code: i64,
    /// Text, which the backend wrote.
    pub message: String,
    /// Additional data for programs.
    pub data: Option<Box<RawValue>>,
}
