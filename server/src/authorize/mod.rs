//! Decisions about messages: a caller, a parsed message and what is offered go in, a verdict and its text come out.
//!
//! Everything here is pure, and knows neither HTTP nor standard input. Whoever receives a message parses it
//! ([`Message::parse`]), judges it ([`judge`]), and renders the verdict in the way of its transport.

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
