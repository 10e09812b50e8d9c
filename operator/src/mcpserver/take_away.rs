//! The first writes of a reconcile: the policy is put in force, and what leads clients to the server against its spec is
//! deleted. Nothing is read from the API server before, so that nothing holds up a revocation.

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

/// Results of the step. A failure of one part keeps nothing else from being taken away.
pub(crate) struct Taken {
    pub(crate) in_force: Result<InForce, Failure>,
    pub(crate) hidden: Result<(), Error>,
    /// The server's standing by the claims as they are known.
    pub(crate) standing: Standing,
}

/// The policy that a server's pods are to enforce.
pub(crate) struct InForce {
    pub(crate) policy: Child,
    pub(crate) edition: Edition,
    /// True if the policy's ConfigMap holds what was compiled.
    pub(crate) is_written: bool,
    /// True if there was none: the watch may not show yet that it was written.
    pub(crate) is_new: bool,
    /// True while a pod mounts another one.
    pub(crate) is_moving: bool,
}

/// Puts the policy in force, and deletes the routes of an exposure that is gone or lost. Of a server that is being deleted,
/// all routes go, and go first: its host is free from now on. Of one that cannot be read, the policy is all that is touched.
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

/// Writes the policy where there is one of the server's, or pods that need it, and has the pods mount that: one that cannot
/// be changed is left for the next edition.
async fn put_in_force(applier: &mut Applier<'_>, world: &World, compiled: &Compiled) -> Result<InForce, Failure> {
    let owner = applier.owner;
    loop {
        let edition = applier.memory.frozen.edition(ChildKind::Policy, &world.children, owner)?;
        let policy = build::policy(owner, edition, compiled);
        applier.seen =
            resolve::policy(world, owner, edition).map(|seen| (ChildKind::Policy, seen)).into_iter().collect();
        // As long as there are pods, there is a policy: they go on enforcing one that somebody has deleted.
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

/// Deletes what leads clients to the server from elsewhere than its spec says, whatever becomes of the rest of the spec:
/// the old host may be somebody else's by now.
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

/// Deletes what leads clients to the server.
pub(crate) async fn hide(applier: &mut Applier<'_>, world: &World) -> Result<(), Error> {
    let mut hidden = Ok(());
    for kind in ChildKind::EXPOSING {
        let seen = resolve::watched(world, applier.owner, *kind);
        hidden = hidden.and(applier.prune(*kind, seen).await);
    }
    hidden
}
