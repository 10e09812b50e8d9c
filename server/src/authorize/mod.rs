//! Decisions about messages. Input: a caller, a parsed message and the offer. Output: a verdict and its text.
//!
//! Everything here is pure and independent of the transport. A transport parses a message ([`Message::parse`]),
//! judges it ([`mod@judge`]) and renders the verdict.

pub mod json_rpc;
mod judge;
mod message;
mod method;
mod params;
mod permissions;
mod refusal;

pub use judge::{Verdict, judge};
pub use message::{Fault, Malformed, Message};
pub use method::{Filter, Method};
pub use params::Meta;
pub use permissions::{GroupSource, Permissions, PolicyInForce, Revoked};
pub use refusal::Refusal;
