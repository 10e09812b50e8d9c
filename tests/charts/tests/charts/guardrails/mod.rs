//! Tests of the guardrails: requests that each allows, and the most similar ones that it refuses.

mod bounds;
pub(crate) mod cluster;
mod hosts;
mod images;
mod installed;
mod managed;
mod orphans;
mod requests;
mod tls;
mod values;
