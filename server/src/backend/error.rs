//! Reasons why a backend gives no answer.

use axum::http::HeaderMap;
use serde_json::value::RawValue;

/// The reason why a backend gives no answer, with the next step where somebody can take one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BackendError {
    /// It cannot be reached.
    #[error("the backend cannot be reached ({0}); look at the log of the container \"backend\"")]
    Away(String),
    /// It was lost not long ago, and is tried again later.
    #[error(
        "the backend ended {times} times in a row; it is tried again in {seconds} s. Look at the log of the container \"backend\""
    )]
    Resting {
        /// Number of failures in a row.
        times: u32,
        /// Time until the next attempt.
        seconds: u64,
    },
    /// Too many requests wait for its answers.
    #[error("{0} {1} requests under way at the backend; call again when one has ended")]
    Busy(&'static str, usize),
    /// Large answers that are not read yet take the memory that there is for them.
    #[error("{0} large answers have not been read yet, and take all memory for answers; call again when they are")]
    Crowded(&'static str),
    /// The connection ended before the answer.
    #[error("the backend ended before it answered; the call may have had its effect, and is not repeated")]
    Ended,
    /// It does not know the session any longer.
    #[error("the backend has forgotten the session; call again")]
    SessionLost,
    /// No answer in time.
    #[error("the backend gave no answer within {0} s")]
    Silent(u64),
    /// More than is taken.
    #[error("the backend answered with more than {0} MiB, which is refused")]
    TooLarge(usize),
    /// An answer that is none of the protocol.
    #[error("the backend's answer is not MCP ({0})")]
    Malformed(String),
    /// Another status of HTTP than expected.
    #[error("the backend answered with HTTP status {0}")]
    Status(u16),
    /// It wants another token of the user (status 401). These are the headers of its answer.
    #[error("the backend refuses the user's token; an administrator of the backend says what it takes")]
    Unauthorized(Box<HeaderMap>),
    /// It refuses the user, and no token would help (status 403).
    #[error("the backend refuses the user; an administrator of the backend says what it takes")]
    Forbidden,
    /// An error of JSON-RPC.
    #[error("{}", .0.message)]
    Answered(PeerError),
}

/// An error of JSON-RPC, as a backend says it.
#[derive(Clone, Debug)]
pub struct PeerError {
    /// The code.
    pub code: i64,
    /// The text. It is the backend's own.
    pub message: String,
    /// Facts for programs.
    pub data: Option<Box<RawValue>>,
}
