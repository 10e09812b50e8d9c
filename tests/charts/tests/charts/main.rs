//! Tests of the charts, rendered and installed by real Helm on real API servers. A test that changes a release has its
//! own release, on its own control plane. Tests that only read share one, and guardrails another.
#![cfg(test)] // without this, clippy does not recognise helper functions of tests

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
