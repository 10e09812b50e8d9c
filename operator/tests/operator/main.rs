//! The operator on a real API server, under exactly the role that it ships with: one binary, so that its tests share
//! one control plane and one operator. A namespace a test keeps them apart; one that disturbs the operator starts its
//! own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows them in tests, but does not see that the functions tests share are of tests too"
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
