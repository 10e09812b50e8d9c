//! Writes of a reconcile in order: first each child that differs, then the deletion of unwanted children.

use std::{collections::BTreeSet, time::Instant};

use kube::Resource;

use crate::{
    fleet::{self, Member, Next, RequestedHash, RollOut, progress},
    mcpserver::{
        apply::{Applier, Failure, conflict},
        context::Context,
        outcome::{Outcome, Stopped},
        plan::{Plan, as_upgrade, template_hash, without_pods},
        resolve,
        resolved::SeenChildren,
        take_away::InForce,
    },
    objects::{
        child::{Child, ChildKind},
        config_map_edition::Mounted,
        names::REQUESTED_HASH,
        observed_child::Seen,
        owner::Owner,
    },
    runtime::errors::Error,
    watch::stores::World,
};

/// Finds the owners of the children's names. It reads from the API server if a name was foreign in the last pass, or
/// may be.
async fn look(
    applier: &mut Applier<'_>,
    context: &Context,
    mounted: Mounted,
    wanted: &[ChildKind],
) -> Result<(), Error> {
    let Context { client, world, .. } = context;
    let seen = resolve::children(world, applier.owner, mounted);
    // Learn all names before the first change of a running server, so that it is not left half changed.
    let is_unknown = |kind: &&ChildKind| !seen.contains_key(kind) && !applier.memory.settled.contains_key(kind);
    let is_to_be_read = seen.contains_key(&ChildKind::Deployment) && wanted.iter().any(|kind| is_unknown(&kind));
    applier.seen = match applier.memory.is_conflicted || is_to_be_read {
        true => resolve::all_children(client, world, applier.owner, mounted, wanted).await?,
        false => seen,
    };
    Ok(())
}

/// Decides if the built pods may be rolled out now, or must wait for their turn.
fn turn(
    context: &Context,
    owner: &Owner,
    (template, requested): (&str, &RequestedHash),
    seen: &SeenChildren,
) -> Result<RollOut, fleet::Waits> {
    let Context { world, options, turns, .. } = context;
    // Without its configuration, no pod could start again.
    if !seen.contains_key(&ChildKind::Configuration) {
        return Ok(RollOut::Requested);
    }
    let live = world.deployment_of(owner);
    let live = live.as_deref().map(|live| (live, progress(live, || world.pods_of(owner))));
    let next = Next { owner, live, template, requested };
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
    fleet::turn(next, fleet, options.at_once.into(), turns, Instant::now())
}

/// Records the present request of the author on a waiting Deployment, if its record is not comparable. A later change
/// by the author then differs from an upgrade, and waits for no turn.
async fn note_request(applier: &mut Applier<'_>, world: &World, requested: &RequestedHash) -> Result<(), Error> {
    let live = world.deployment_of(applier.owner);
    if live.is_none_or(|live| RequestedHash::is_comparable(live.annotation(REQUESTED_HASH))) {
        return Ok(());
    }
    applier.annotate(ChildKind::Deployment, REQUESTED_HASH, requested.as_str()).await
}

/// Executes a plan. Without a conflict, it writes the policy first, and the other children when it is the server's
/// turn.
pub(crate) async fn execute(
    applier: &mut Applier<'_>,
    context: &Context,
    in_force: &InForce,
    plan: Plan,
    mut outcome: Outcome,
) -> Result<Outcome, Stopped> {
    let Plan { children, wanted, missing } = plan;
    outcome.missing = missing;
    let mounted = outcome.mounted;
    look(applier, context, mounted, &wanted).await.map_err(|error| outcome.stopped(error))?;
    // The policy may have been deleted or taken since the first look.
    outcome.policy_is_written &= in_force.is_new || applier.seen.get(&ChildKind::Policy).is_some_and(Seen::is_ours);
    if let Some(conflict) = conflict(&applier.seen, &wanted) {
        return Err(outcome.stopped(Failure::Conflict(conflict)));
    }
    if !outcome.policy_is_written {
        applier.child(&in_force.policy).await.map_err(|failure| outcome.stopped(failure))?;
        outcome.policy_is_written = true;
    }
    let requested = outcome.accepted().map(|validated| validated.requested_hash.clone());
    let Some((children, requested)) = children.zip(requested) else { return Ok(outcome) };

    // The turn is taken last, and given back if it is not used.
    let children = match turn(context, applier.owner, (template_hash(&children), &requested), &applier.seen) {
        Ok(RollOut::Requested) => children,
        Ok(RollOut::Upgrade) => as_upgrade(children),
        Err(waits) => {
            outcome.upgrade = Some(waits);
            let noted = note_request(applier, &context.world, &requested).await;
            noted.map_err(|error| outcome.stopped(error))?;
            without_pods(children)
        }
    };
    let mut converged = converge(applier, &children, &wanted, &outcome.missing).await;
    if converged.is_err() {
        context.turns.take(&applier.owner.uid);
    }
    if let Err(Failure::Conflict(_)) = converged {
        // Report all conflicting names at once.
        applier.memory.is_conflicted = true;
        look(applier, context, mounted, &wanted).await.map_err(|error| outcome.stopped(error))?;
        converged = conflict(&applier.seen, &wanted).map_or(converged, |conflict| Err(Failure::Conflict(conflict)));
    }
    converged.map_err(|failure| outcome.stopped(failure))?;
    Ok(outcome)
}

/// Applies every child, even if one fails. A failed NetworkPolicy ends it, because pods must not start without one. A
/// foreign name ends it as well, and so does a failed child that others refer to, unless it already exists. Then it
/// deletes unwanted children. An autoscaler is deleted before the number of pods is set. The others are deleted last and
/// only after a full success: old pods still need their account, and clients their route. Returns the first failure.
/// Kinds that the cluster does not serve are left alone, because their objects may still exist.
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
        let is_ours = || applier.seen.get(&child.kind()).is_some_and(Seen::is_ours);
        let is_end = match (&result, child.kind()) {
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
