//! The charts, rendered and installed by real Helm on real API servers. What a test does to a release it does to one of
//! its own, on a control plane of its own; those that only look share one, and guardrails another.
#![cfg(test)] // clippy does not see otherwise that the functions tests share are of tests too

mod applied;
mod bed;
mod guardrails;
mod installed;
mod lifecycle;
mod monitoring;
mod namespaces;
mod openapi;
mod rendering;
mod schema;
mod teams;
mod values;
