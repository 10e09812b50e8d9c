//! Tests of the operator on a real API server, with exactly its shipped role. They are one binary, so that they share
//! one control plane and one operator. Each test has its own namespace. A test that disturbs the operator starts its
//! own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows them in tests, but does not recognise helper functions of tests"
)]

mod adoption;
mod backends;
mod children;

mod cluster_mappings;
mod conflicts;
mod exposure;
mod harness;
mod hosts;
mod immutable;
mod kinds;
mod kstatus;
mod kubelet;
mod leader;
mod mappings;
mod orphans;
mod overridden;
mod ownership;
mod pod_failures;
mod pods;
mod process;
mod pruning;
mod refusals;
mod rendered;
mod replicas;
mod rights;
mod sign_in;
mod starts;
mod telemetry;
mod upgrades;
mod workload;
