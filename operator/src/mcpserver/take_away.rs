//! First writes of a reconcile: applies the policy, and deletes routes that the spec no longer has. It reads nothing
//! from the API server first, so that nothing delays a revocation.

use mcp_entra_crds::McpServer;

use crate::{
    mcpserver::{
        apply::{Applier, Failure},
        build,
        context::Context,
        immutable_config_maps::is_moving,
        observe::Subject,
        resolve,
        validate::exposure::exposes,
    },
    objects::{
        child::{Child, ChildKind},
        config_map_edition::Edition,
        names::EXPOSES,
    },
    ownership::{Standing, standing},
    policy::compile::Compiled,
    runtime::errors::Error,
    watch::stores::World,
};

/// The results of the step. A failure of one part does not stop the others.
pub(crate) struct Taken {
    pub(crate) in_force: Result<InForce, Failure>,
    pub(crate) hidden: Result<(), Error>,
    /// The standing of the server, from the cached claims.
    pub(crate) standing: Standing,
}

/// The policy that a server's pods should enforce.
pub(crate) struct InForce {
    pub(crate) policy: Child,
    pub(crate) edition: Edition,
    /// True if the policy's ConfigMap contains the compiled policy.
    pub(crate) is_written: bool,
    /// True if the ConfigMap was created now, so that the watch may not show it yet.
    pub(crate) is_new: bool,
    /// True while a pod mounts another policy.
    pub(crate) is_moving: bool,
}

/// Applies the policy, and deletes the routes of a removed or lost exposure. If the server is being deleted, all its
/// routes are deleted first, because its host is free from now on. If it is unreadable, only the policy is written.
pub(crate) async fn take_away(
    applier: &mut Applier<'_>,
    subject: Subject<'_>,
    context: &Context,
    compiled: &Compiled,
) -> Taken {
    let Context { world, claims, ledger, .. } = context;
    let left = match subject {
        Subject::Leaving(_) => hide(applier, world).await,
        Subject::Present(_) | Subject::Unreadable(_) => Ok(()),
    };
    let in_force = put_in_force(applier, world, compiled).await;
    let (standing, hidden) = match subject {
        Subject::Present(server) => {
            let named = |namespace: &str, name: &str| world.server(namespace, name);
            let standing = standing(claims, &named, server, ledger.grace);
            let is_hidden = server.spec.exposure.is_none() || standing.lost().is_some();
            let hidden = if is_hidden { hide(applier, world).await } else { hide_old(applier, world, server).await };
            (standing, hidden)
        }
        Subject::Leaving(_) | Subject::Unreadable(_) => (Standing::default(), left),
    };
    Taken { in_force, hidden, standing }
}

/// Writes the policy if the server has one, or has pods that need one, and makes the Deployment mount it. An immutable
/// policy is replaced by the next edition.
async fn put_in_force(applier: &mut Applier<'_>, world: &World, compiled: &Compiled) -> Result<InForce, Failure> {
    let owner = applier.owner;
    loop {
        let edition = applier.memory.frozen.edition(ChildKind::Policy, &world.children, owner)?;
        let policy = build::policy(owner, edition, compiled);
        applier.seen =
            resolve::policy(world, owner, edition).map(|seen| (ChildKind::Policy, seen)).into_iter().collect();
        // A policy must exist while there are pods: they still enforce one that was deleted.
        let is_absent = applier.seen.is_empty();
        let is_missed = is_absent && !world.pods_of(owner).is_empty();
        let written = match is_missed || applier.memory.frozen.has_any(ChildKind::Policy) {
            true => applier.child(&policy).await.map(|()| true),
            false => applier.in_place(&policy).await,
        };
        let is_written = match written {
            Err(Failure::Error(Error::Immutable(_))) => continue,
            written => written?,
        };
        if let Some(deployment) = world.deployment_of(owner).as_deref()
            && is_written
            && deployment.mounts(ChildKind::Policy).is_some_and(|mounted| mounted != policy.name())
        {
            applier.mount_policy(deployment, policy.name()).await?;
        }
        let is_moving = is_moving(world.pods_of(owner).iter().map(|pod| &**pod), policy.name());
        return Ok(InForce { policy, edition, is_written, is_new: is_written && is_absent, is_moving });
    }
}

/// Deletes children that expose another host or path than the spec, even if the rest of the spec is not accepted.
/// Another server may hold the old host now.
async fn hide_old(applier: &mut Applier<'_>, world: &World, server: &McpServer) -> Result<(), Error> {
    let Some(exposure) = &server.spec.exposure else { return Ok(()) };
    let mut hidden = Ok(());
    for kind in ChildKind::EXPOSING {
        let Some(found) = world.children.get(*kind, applier.owner) else { continue };
        let from = found.annotation(EXPOSES);
        if from.is_some_and(|from| from != exposes(*kind, &exposure.host, &exposure.path)) {
            let seen = resolve::watched(world, applier.owner, *kind);
            hidden = hidden.and(applier.prune(*kind, seen).await);
        }
    }
    hidden
}

/// Deletes all children that route clients to the server.
pub(crate) async fn hide(applier: &mut Applier<'_>, world: &World) -> Result<(), Error> {
    let mut hidden = Ok(());
    for kind in ChildKind::EXPOSING {
        let seen = resolve::watched(world, applier.owner, *kind);
        hidden = hidden.and(applier.prune(*kind, seen).await);
    }
    hidden
}
