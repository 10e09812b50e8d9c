//! What every reconcile of an McpServer uses.

use std::sync::Arc;

use kube::Client;

use crate::{
    conditions::unwritten::Unwritten,
    fleet::Turns,
    mcpserver::memory::Memories,
    ownership::{Ledger, claims::Claims},
    policy::programmed::ProgrammedPolicies,
    runtime::{metrics::Metrics, options::Options, ready_gate::Gate, work_queue::Passes},
    watch::stores::World,
};

/// What a pass uses.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) pods: reqwest::Client,
    pub(crate) options: Options,
    pub(crate) world: World,
    /// Which server holds which host and client id.
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
