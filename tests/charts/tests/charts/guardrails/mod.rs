//! The guardrails: what each lets in, and the neighbour that it keeps out.

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
