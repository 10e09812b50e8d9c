//! The children of a server as the watches show them after its writes.

use crate::{
    mcpserver::{outcome::Outcome, pass_memory::ServerMemory},
    objects::{child::ChildKind, owner::Owner},
    watch::stores::{OwnChildren, World},
};

/// The children of a server as the watches show them after its writes.
#[derive(Debug, Default)]
pub(crate) struct ObservedChildren {
    pub(crate) own: OwnChildren,
    /// The children of the earlier server of this host whose listener this one shares, if it shares one.
    pub(crate) carrying: OwnChildren,
    /// True if the Deployment has been applied and not been seen since.
    pub(crate) deployment_is_stale: bool,
}

impl ObservedChildren {
    /// The children after the steps that led to this outcome.
    pub(crate) fn after(outcome: &Outcome, owner: &Owner, world: &World, memory: &ServerMemory) -> Self {
        let own = world.children.of(owner);
        let carrier = outcome.standing.held().and_then(|held| held.listener_of.as_ref());
        let carrying = carrier.map(|carrier| world.children.of(carrier)).unwrap_or_default();
        let applied = memory.settled.get(&ChildKind::Deployment).filter(|_| outcome.failure.is_none());
        let seen = own.get(&ChildKind::Deployment);
        let deployment_is_stale = seen.zip(applied).is_some_and(|(seen, applied)| seen.generation < applied.generation);
        Self { own, carrying, deployment_is_stale }
    }
}
