//! The children of one server, brought to what was built: what takes something away first, the policy before all, what
//! waits for its turn left alone, and what is no longer asked for deleted last.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use kube::Resource;
use mcp_entra_crds::McpServer;

use crate::{
    fleet::{self, Member, Next, RequestedHash, RollOut, progress},
    mcpserver::{
        apply::{Applier, Failure, conflict},
        build,
        context::Context,
        immutable_config_maps::is_moving,
        pass_memory::ServerMemory,
        resolve,
        resolved::SeenChildren,
        validate::{
            Validated,
            exposure::{exposes, leads},
            refusal::Refusal,
            validate,
        },
    },
    objects::{
        child::{Child, ChildKind},
        config_map_edition::{Edition, Mounted},
        names::{EXPOSES, REQUESTED_HASH},
        observed_child::Seen,
        owner::Owner,
    },
    ownership::{
        Contender, Standing, acquire,
        claim::{ClaimKind, Demand, demands},
        standing,
    },
    policy::compile::Compiled,
    runtime::errors::Error,
    watch::{orphaned::leads_from, stores::World},
};

/// The longest time for which a server waits for another to claim a value first, or for an orphan's route to go. It waits
/// longer for a server that held the value.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What a pass got to before it was done or stopped.
#[derive(Default)]
pub(crate) struct Applied {
    /// Whether the policy's ConfigMap holds what was compiled.
    pub(crate) policy: bool,
    /// What became of the spec, once everything that decides it could be read.
    pub(crate) validated: Option<Result<Validated, Refusal>>,
    /// Its standing among the servers that name the same host or client id.
    pub(crate) standing: Standing,
    /// Kinds that the spec asks for and this cluster lacks.
    pub(crate) missing: BTreeSet<ChildKind>,
    /// Why the pods as built are not rolled out yet.
    pub(crate) upgrade: Option<fleet::Waits>,
    /// The ConfigMaps that the pods are to mount.
    pub(crate) mounted: Mounted,
}

/// The policy that a server's pods are to enforce.
pub(crate) struct InForce {
    policy: Child,
    edition: Edition,
    /// True if the policy's ConfigMap holds what was compiled.
    pub(crate) is_written: bool,
    /// True if there was none: the watch may not show yet that it was written.
    is_new: bool,
    /// True while a pod mounts another one.
    is_moving: bool,
}

/// Writes the policy where there is one of the server's, or pods that need it, and has the pods mount that: one that cannot
/// be changed is left for the next edition.
pub(crate) async fn put_in_force(
    applier: &mut Applier<'_>,
    world: &World,
    compiled: &Compiled,
) -> Result<InForce, Failure> {
    let owner = applier.owner;
    loop {
        let edition = applier.memory.frozen.edition(ChildKind::Policy, &world.children, owner)?;
        let policy = build::policy(owner, edition, compiled).map_err(Error::from)?;
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

/// Writes the children. What takes something away comes first, and waits for nothing else to be read, accepted or
/// written: the policy, where it is there and ours, and the routes of an exposure that is gone or lost.
pub(crate) async fn apply(
    server: &McpServer,
    owner: &Owner,
    context: &Context,
    memory: &mut ServerMemory,
    compiled: &Compiled,
    applied: &mut Applied,
) -> Result<(), Failure> {
    let Context { client, world, options, .. } = context;
    let mut applier = Applier { client, owner, seen: SeenChildren::new(), memory };
    let in_force = put_in_force(&mut applier, world, compiled).await;
    let named = |namespace: &str, name: &str| world.server(namespace, name);
    applied.standing = standing(&context.claims, &named, server, context.ledger.grace);
    let is_hidden = server.spec.exposure.is_none() || applied.standing.lost().is_some();
    let hidden = if is_hidden { hide(&mut applier, world).await } else { hide_old(&mut applier, world, server).await };
    applied.policy = in_force.as_ref().is_ok_and(|policy| policy.is_written);

    // A policy that cannot be written keeps nothing from being taken away.
    let resolved = resolve::references(client, world, server, owner, applier.memory).await?;
    let validated = validate(server, owner, &resolved, options);
    applied.validated = Some(validated.clone());
    let is_host_refused = validated.as_ref().is_err_and(Refusal::hides);
    if is_host_refused {
        hide(&mut applier, world).await?;
    }
    let own = Contender { server, is_live: is_live(world, server) };
    let is_accepted = validated.is_ok() && !server.spec.suspend;
    let entitled = |demand: &Demand| {
        is_accepted || (own.keeps(demand) && !(is_host_refused && demand.claimed.kind == ClaimKind::Host))
    };
    let is_undecided = applied.standing == Standing::Open && demands(server).iter().any(entitled);
    let waited = applier.memory.undecided.note(is_undecided, Instant::now());
    if is_undecided {
        // One that could claim and does not must not keep others waiting: the API server decides then.
        let is_patient = waited.is_none_or(|waited| waited < LONGEST_WAIT);
        let is_earlier =
            |other: &McpServer, demand: &Demand| is_to_claim_first(context, other, server, demand, is_patient);
        let must_wait = |demand: &Demand| {
            let servers = world.servers.state();
            let is_host = demand.claimed.kind == ClaimKind::Host;
            (is_patient && is_host && leads_from(world, &demand.claimed.value))
                || servers.iter().filter_map(|other| other.0.as_ref().ok()).any(|other| is_earlier(other, demand))
        };
        applied.standing = acquire(&context.ledger, &context.claims, &named, (server, &entitled), must_wait).await?;
        if applied.standing.lost().is_some() {
            hide(&mut applier, world).await?;
        }
        if applied.standing == Standing::Open && waited.is_some_and(|waited| waited.is_zero()) {
            tracing::info!(
                namespace = owner.namespace,
                server = owner.name,
                "the server waits for a host or client id that another server claims first, or whose claim cannot be read"
            );
        }
    }
    let in_force = in_force?;
    let configuration = applier.memory.frozen.edition(ChildKind::Configuration, &world.children, owner)?;
    let mounted = Mounted { policy: in_force.edition, configuration, is_moving: in_force.is_moving };
    applied.mounted = mounted;
    if server.spec.suspend {
        return Ok(hidden?);
    }
    let held = applied.standing.held().cloned();
    let (Ok(validated), Some(held)) = (&validated, held.as_ref()) else {
        let wanted = wanted(&[]);
        look(&mut applier, context, mounted, &wanted).await?;
        policy_alone(&mut applier, &in_force, &wanted, applied).await?;
        return Ok(hidden?);
    };
    let mut children = build::children(validated, held, mounted, RollOut::Requested).map_err(Error::from)?;
    applied.missing = world.missing(children.iter().map(|child| child.kind));
    children.retain(|child| !applied.missing.contains(&child.kind));
    let wanted = wanted(&children);
    look(&mut applier, context, mounted, &wanted).await?;
    policy_alone(&mut applier, &in_force, &wanted, applied).await?;

    // The turn is taken last, and given back by whoever does not use it.
    let turn = turn(context, validated, mounted, &applier.seen)?;
    match turn {
        Ok(RollOut::Requested) => {}
        Ok(RollOut::Upgrade) => {
            let upgraded = build::children(validated, held, mounted, RollOut::Upgrade).map_err(Error::from)?;
            children = upgraded.into_iter().filter(|child| wanted.contains(&child.kind)).collect();
        }
        Err(held) => {
            applied.upgrade = Some(held);
            children.retain(|child| !matches!(child.kind, ChildKind::Deployment | ChildKind::Configuration));
            note_request(&mut applier, world, &validated.requested_hash).await?;
        }
    }
    let converged = converge(&mut applier, &children, &wanted, &applied.missing).await;
    if converged.is_err() {
        context.turns.take(&owner.uid);
    }
    if let Err(Failure::Conflict(_)) = converged {
        // Whoever is to give one name back learns of all others at once.
        applier.memory.is_conflicted = true;
        look(&mut applier, context, mounted, &wanted).await?;
        if let Some(conflict) = conflict(&applier.seen, &wanted) {
            return Err(Failure::Conflict(conflict));
        }
    }
    converged?;
    Ok(hidden?)
}

/// Looks who has the children's names: where a name was or may be somebody else's, by what no watch shows, too.
async fn look(
    applier: &mut Applier<'_>,
    context: &Context,
    mounted: Mounted,
    wanted: &[ChildKind],
) -> Result<(), Error> {
    let Context { client, world, .. } = context;
    let seen = resolve::children(world, applier.owner, mounted);
    // Before a server that runs is changed, all names are known: it is not left halfway.
    let is_unknown = |kind: &&ChildKind| !seen.contains_key(kind) && !applier.memory.settled.contains_key(kind);
    let is_to_be_read = seen.contains_key(&ChildKind::Deployment) && wanted.iter().any(|kind| is_unknown(&kind));
    applier.seen = match applier.memory.is_conflicted || is_to_be_read {
        true => resolve::all_children(client, world, applier.owner, mounted, wanted).await?,
        false => seen,
    };
    Ok(())
}

/// Takes away what leads clients to a server that is being deleted, and writes its policy. Its children go with it: the garbage
/// collector follows their owner references. As long as somebody's finalizer holds it up, its pods serve, and revocations
/// reach them.
pub(crate) async fn leave(
    owner: &Owner,
    context: &Context,
    memory: &mut ServerMemory,
    compiled: &Compiled,
    applied: &mut Applied,
) -> Result<(), Failure> {
    let Context { client, world, .. } = context;
    let mut applier = Applier { client, owner, seen: SeenChildren::new(), memory };
    // Its host is free from now on, so that nothing may lead from there to it.
    let hidden = hide(&mut applier, world).await;
    let in_force = put_in_force(&mut applier, world, compiled).await?;
    applied.policy = in_force.is_written;
    applied.mounted.policy = in_force.edition;
    Ok(hidden?)
}

/// Says whether clients are led to a server from the host and path that its spec names.
fn is_live(world: &World, server: &McpServer) -> bool {
    let (Some(exposure), Ok(owner)) = (&server.spec.exposure, Owner::of(server)) else { return false };
    leads(&world.children.of(&owner), exposure)
}

/// Says whether another server names the value, too, and is to claim it first. Only a server that held it is waited for
/// without patience.
fn is_to_claim_first(
    context: &Context,
    other: &McpServer,
    server: &McpServer,
    demand: &Demand,
    is_patient: bool,
) -> bool {
    let Context { world, ledger, .. } = context;
    if other.metadata.uid == server.metadata.uid || !demands(other).iter().any(|named| named.claimed == demand.claimed)
    {
        return false;
    }
    let contender = |server| Contender { server, is_live: is_live(world, server) };
    let (other, own) = (contender(other), contender(server));
    let named = |namespace: &str, name: &str| world.server(namespace, name);
    (is_patient || other.held(demand))
        && other.will_claim(demand)
        && other.rank(demand) < own.rank(demand)
        && standing(&context.claims, &named, other.server, ledger.grace).lost().is_none()
}

/// Applies the policy, unless some child's name is somebody else's.
async fn policy_alone(
    applier: &mut Applier<'_>,
    in_force: &InForce,
    wanted: &[ChildKind],
    applied: &mut Applied,
) -> Result<(), Failure> {
    // It may have been taken or deleted since it was looked at first.
    applied.policy &= in_force.is_new || applier.seen.get(&ChildKind::Policy).is_some_and(Seen::is_ours);
    if let Some(conflict) = conflict(&applier.seen, wanted) {
        return Err(Failure::Conflict(conflict));
    }
    if !applied.policy {
        applier.child(&in_force.policy).await?;
        applied.policy = true;
    }
    Ok(())
}

/// Whether the pods as built may be rolled out now, or wait for their turn.
fn turn(
    context: &Context,
    validated: &Validated,
    mounted: Mounted,
    seen: &SeenChildren,
) -> Result<Result<RollOut, fleet::Waits>, Error> {
    let Context { world, options, turns, .. } = context;
    let owner = &validated.owner;
    // Without its configuration no pod would start again.
    if !seen.contains_key(&ChildKind::Configuration) {
        return Ok(Ok(RollOut::Requested));
    }
    let template = build::template_hash(validated, mounted)?;
    let next = Next { owner, template: &template, requested: &validated.requested_hash };
    let live = world.deployment_of(owner);
    let live = live.as_deref().map(|live| (live, progress(live, || world.pods_of(owner))));
    let fleet = || {
        let servers = world.servers.state();
        let members = servers.iter().filter_map(|server| {
            let owner = Owner::of_metadata(server.meta()).ok()?;
            let deployment = world.deployment_of(&owner)?;
            let progress = progress(&deployment, || world.pods_of(&owner));
            Some(Member::new(owner, &deployment, progress))
        });
        members.collect()
    };
    Ok(fleet::turn(next, live, fleet, options.at_once.into(), turns, Instant::now()))
}

/// Notes at a Deployment that has to wait what its author asks of the pods, where that is noted in a way that this version
/// cannot compare. From then on a change of the author's is told from an upgrade, and waits for no turn.
async fn note_request(applier: &mut Applier<'_>, world: &World, requested: &RequestedHash) -> Result<(), Error> {
    let live = world.deployment_of(applier.owner);
    if live.is_none_or(|live| RequestedHash::is_comparable(live.annotation(REQUESTED_HASH))) {
        return Ok(());
    }
    applier.annotate(ChildKind::Deployment, REQUESTED_HASH, requested.as_str()).await
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
async fn hide(applier: &mut Applier<'_>, world: &World) -> Result<(), Error> {
    let mut hidden = Ok(());
    for kind in ChildKind::EXPOSING {
        let seen = resolve::watched(world, applier.owner, *kind);
        hidden = hidden.and(applier.prune(*kind, seen).await);
    }
    hidden
}

/// The children that there are to be: those that every server has, whether or not its spec is accepted now, and those
/// that were built.
fn wanted(children: &[Child]) -> Vec<ChildKind> {
    let is_built = |kind: &ChildKind| children.iter().any(|child| child.kind == *kind);
    ChildKind::ALL.iter().copied().filter(|kind| !kind.is_optional() || is_built(kind)).collect()
}

/// Applies every child though one fails, so that one refusal holds up nothing else but pods that would have to do without
/// their NetworkPolicy, and whatever refers to a name that may be somebody else's. Such a name, once known, ends it. Then
/// deletes what is no longer asked for: an autoscaler before the number of pods is set, the rest last, and only once all
/// else is there: pods that could not be replaced need their account, and clients a way in. The first failure is told.
/// What this cluster lacks now may be there nevertheless.
async fn converge(
    applier: &mut Applier<'_>,
    children: &[Child],
    wanted: &[ChildKind],
    missing: &BTreeSet<ChildKind>,
) -> Result<(), Failure> {
    let unwanted = |kind: &ChildKind| !wanted.contains(kind) && !missing.contains(kind);
    let autoscaler = ChildKind::Autoscaler;
    if unwanted(&autoscaler) {
        applier.prune_seen(autoscaler).await?;
    }
    let mut failed = Ok(());
    for child in children {
        let result = applier.child(child).await;
        let is_ours = || applier.seen.get(&child.kind).is_some_and(Seen::is_ours);
        let is_end = match (&result, child.kind) {
            (Ok(()), _) => false,
            (Err(Failure::Conflict(_)), _) | (_, ChildKind::NetworkPolicy) => true,
            (_, kind) => kind.is_referred_to() && !is_ours(),
        };
        failed = failed.and(result);
        if is_end {
            break;
        }
    }
    failed?;
    let mut pruned = Ok(());
    for kind in ChildKind::ALL.iter().filter(|kind| unwanted(kind)) {
        pruned = pruned.and(applier.prune_seen(*kind).await);
    }
    Ok(pruned?)
}
