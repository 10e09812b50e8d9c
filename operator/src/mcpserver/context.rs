//! Context that all reconciles share.

use std::sync::Arc;

use kube::Client;

use crate::{
    conditions::status_write_failure::Unwritten,
    fleet::Turns,
    mcpserver::pass_memory::Memories,
    ownership::{Ledger, claim_cache::Claims},
    policy::written_policies::ProgrammedPolicies,
    runtime::{metrics::Metrics, options::Options, pass_limits::Passes, ready_gate::Gate},
    watch::stores::World,
};

/// The clients, caches and memories that all reconciles share.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) pods: reqwest::Client,
    pub(crate) options: Options,
    pub(crate) world: World,
    /// The claims of servers on hosts and client ids.
    pub(crate) claims: Claims,
    pub(crate) gate: Gate,
    pub(crate) passes: Passes,
    pub(crate) memories: Memories,
    pub(crate) policies: Arc<ProgrammedPolicies>,
    pub(crate) turns: Turns,
    pub(crate) ledger: Ledger,
    pub(crate) unwritten: Unwritten,
    pub(crate) metrics: Metrics,
}
