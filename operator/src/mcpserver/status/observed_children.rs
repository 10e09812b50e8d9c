//! Cached children of a server after its writes.

use crate::{
    mcpserver::{outcome::Outcome, pass_memory::ServerMemory},
    objects::{child::ChildKind, owner::Owner},
    watch::stores::{OwnChildren, World},
};

/// The cached children of a server after its writes.
#[derive(Debug, Default)]
pub(crate) struct ObservedChildren {
    pub(crate) own: OwnChildren,
    /// The children of the earlier server whose listener this one shares, if it shares one.
    pub(crate) carrying: OwnChildren,
    /// True if the Deployment was applied and the watch has not shown it since.
    pub(crate) deployment_is_stale: bool,
}

impl ObservedChildren {
    /// Returns the cached children after a reconcile with this outcome.
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
