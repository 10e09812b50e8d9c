//! Precedence: who claims first where a claim was lost, or after an upgrade from a version without claims. Pure.
//!
//! A server whose status says that it holds the value comes first, then one that was served, then one that clients are led
//! to, then the older. The operator alone writes a status; a route may be anybody's in the namespace. Between servers that
//! nobody has accepted yet the API server decides: whoever creates the claim has it.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use mcp_entra_crds::{ConditionType, McpServer};

use super::claim::{ClaimKind, Demand};

/// A server that names a value, as far as its place in the order depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contender<'a> {
    pub(crate) server: &'a McpServer,
    /// Clients are led to it from the host and path that its spec names.
    pub(crate) is_live: bool,
}

impl Contender<'_> {
    /// Says whether it will claim the value by itself, so that others can wait for it.
    pub(crate) fn will_claim(&self, demand: &Demand) -> bool {
        if self.server.metadata.deletion_timestamp.is_some() {
            return false;
        }
        let is_accepted = !self.server.spec.suspend && is_so(self.server, ConditionType::Accepted);
        is_accepted || self.keeps(demand)
    }

    /// Says whether it claims the value though its spec is not accepted, or it is suspended: it serves with it, as its status
    /// reports, or clients are led to it from that host.
    pub(crate) fn keeps(&self, demand: &Demand) -> bool {
        self.held(demand) || (self.is_live && demand.claimed.kind == ClaimKind::Host)
    }

    /// Says whether it held the value when its status was written, so that others wait for it however long it takes.
    pub(crate) fn held(&self, demand: &Demand) -> bool {
        demand.is_reported_by(self.server)
    }

    /// Orders contenders for a value, the first first.
    pub(crate) fn rank(&self, demand: &Demand) -> impl Ord + use<> {
        let is_served = is_so(self.server, ConditionType::Programmed);
        let is_led_to = self.is_live && demand.claimed.kind == ClaimKind::Host;
        let metadata = &self.server.metadata;
        let age = metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |Time(created)| *created);
        (!self.held(demand), !is_served, !is_led_to, age, metadata.namespace.clone(), metadata.name.clone())
    }
}

/// Says whether a condition is true of the spec as it is.
pub(super) fn is_so(server: &McpServer, type_: ConditionType) -> bool {
    let conditions = server.status.iter().flat_map(|status| &status.conditions);
    conditions
        .filter(|condition| condition.type_ == type_.as_str())
        .any(|condition| condition.status == "True" && condition.observed_generation == server.metadata.generation)
}
