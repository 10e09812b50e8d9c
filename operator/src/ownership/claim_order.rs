//! Order of claimants when a claim is lost, or after an upgrade from a version without claims. Pure.
//!
//! First comes a server whose status says that it holds the value, then one that is programmed, then one with a route,
//! then the older. Only the operator writes a status, but anybody in the namespace can write a route. The API
//! server decides between servers that are not accepted yet: the first to create the claim has it.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use mcp_entra_crds::{ConditionType, McpServer};

use super::claim::{ClaimKind, Demand};

/// A server that names a value, with all that its place in the order depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contender<'a> {
    pub(crate) server: &'a McpServer,
    /// True if a route exists from the host and path in its spec.
    pub(crate) is_live: bool,
}

impl Contender<'_> {
    /// Returns true if it will claim the value by itself, so that others can wait for it.
    pub(crate) fn will_claim(&self, demand: &Demand) -> bool {
        if self.server.metadata.deletion_timestamp.is_some() {
            return false;
        }
        let is_accepted = !self.server.spec.suspend && is_so(self.server, ConditionType::Accepted);
        is_accepted || self.keeps(demand)
    }

    /// Returns true if it claims the value although its spec is not accepted, or it is suspended. Its status reports
    /// the value, or a route from that host exists.
    pub(crate) fn keeps(&self, demand: &Demand) -> bool {
        self.held(demand) || (self.is_live && demand.claimed.kind == ClaimKind::Host)
    }

    /// Returns true if it held the value when its status was written. Others wait for it without a time limit.
    pub(crate) fn held(&self, demand: &Demand) -> bool {
        demand.is_reported_by(self.server)
    }

    /// Returns the sort key of a contender, lowest first.
    pub(crate) fn rank(&self, demand: &Demand) -> impl Ord + use<> {
        let is_served = is_so(self.server, ConditionType::Programmed);
        let is_led_to = self.is_live && demand.claimed.kind == ClaimKind::Host;
        let metadata = &self.server.metadata;
        let age = metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |Time(created)| *created);
        (!self.held(demand), !is_served, !is_led_to, age, metadata.namespace.clone(), metadata.name.clone())
    }
}

/// Returns true if a condition is true for the present generation of the spec.
pub(super) fn is_so(server: &McpServer, type_: ConditionType) -> bool {
    let conditions = server.status.iter().flat_map(|status| &status.conditions);
    conditions
        .filter(|condition| condition.type_ == type_.as_str())
        .any(|condition| condition.status == "True" && condition.observed_generation == server.metadata.generation)
}
