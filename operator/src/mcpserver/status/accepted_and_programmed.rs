//! Conditions Accepted, Programmed and Conflicted: the spec can be built, and the children are as built. Pure.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use mcp_entra_crds::ConditionType;

use crate::{
    conditions::condition::{Reason, Verdict, named},
    fleet::{Progress, Waits, progress},
    mcpserver::{
        apply::{Conflict, NameHolder},
        status::{available::resume, facts::Facts},
        validate::not_offered,
    },
    objects::{child::ChildKind, names::ADOPT, owner::Owner, untrusted_text::bounded},
    runtime::errors::Error,
};

pub(crate) fn accepted(facts: &Facts<'_>, previous: &[Condition]) -> Verdict {
    match &facts.outcome.validated {
        Some(Ok(_)) => {
            let not_offered = Vec::from_iter(facts.server.spec.graph.iter().flat_map(not_offered));
            let tools = match not_offered.as_slice() {
                [] => String::new(),
                tools => format!("; not offered, because spec.graph.scopes lacks the permission: {}", named(tools)),
            };
            Verdict::yes(Reason::Accepted, format!("the spec is valid and allowed{tools}"))
        }
        Some(Err(refusal)) => Verdict::no(refusal.reason, refusal.message.clone()),
        None => Verdict::of_earlier_spec(previous, ConditionType::Accepted).unwrap_or_else(|| {
            Verdict::unknown(
                Reason::Progressing,
                "references in the spec could not be read yet; see the condition Programmed for the cause",
            )
        }),
    }
}

pub(crate) fn programmed(facts: &Facts<'_>) -> Verdict {
    if let Some(error) = facts.outcome.error() {
        let reason = match error {
            Error::Overridden { .. } => Reason::Overridden,
            _ => Reason::ApplyFailed,
        };
        return Verdict::no(
            reason,
            format!(
                "{error}; the operator retries with growing pauses: remove the cause, or ask the cluster's administrators"
            ),
        );
    }
    if let Some((reason, message)) = conflicted(facts) {
        return Verdict::no(reason, message);
    }
    if let Some(Conflict { objects, .. }) = facts.outcome.conflict() {
        return Verdict::no(
            Reason::Progressing,
            format!(
                "children of the deleted McpServer of the same name still exist: {}; wait until they are deleted",
                listed(objects, facts.owner)
            ),
        );
    }
    if facts.server.metadata.deletion_timestamp.is_some() {
        return Verdict::no(
            Reason::Deleting,
            format!(
                "the McpServer is being deleted and is no longer exposed; its pods serve until its finalizers are removed: {}",
                bounded(&facts.server.finalizers().join(", "), SHOWN)
            ),
        );
    }
    if facts.outcome.refusal().is_some() {
        return Verdict::no(
            Reason::NotAccepted,
            "only the policy is applied until the spec is accepted, and the other children stay as they are; see the condition Accepted for the next step",
        );
    }
    if facts.server.spec.suspend {
        return Verdict::unknown(
            Reason::Suspended,
            "spec.suspend is true: only the policy is applied, and the other children stay as they are; set it to false to apply them",
        );
    }
    if facts.is_undecided() {
        return Verdict::no(
            Reason::OwnershipPending,
            "the claims on the host and the client id of the spec are not decided yet; wait a few seconds; if this lasts, ask the administrator of mcp-entra-operator for its log",
        );
    }
    if !facts.outcome.missing.is_empty() {
        return Verdict::no(Reason::KindNotServed, not_served(&facts.outcome.missing));
    }
    let (reason, message) = rolled_out(facts);
    Verdict::yes(reason, message)
}

/// Returns the progress of the built pods, after everything else is applied.
fn rolled_out(facts: &Facts<'_>) -> (Reason, String) {
    let Owner { namespace, name, .. } = facts.owner;
    let deployment = facts.child(ChildKind::Deployment);
    if deployment.is_some_and(|deployment| deployment.paused) || facts.outcome.upgrade == Some(Waits::Paused) {
        let resume = resume(namespace, name);
        return (
            Reason::RollOutPaused,
            format!("the children are applied as built, but changed pods are not rolled out: {resume}"),
        );
    }
    let held = |reason, why: String| {
        let what = "the children are applied as built, except for the pods:";
        (reason, format!("{what} {why}"))
    };
    match &facts.outcome.upgrade {
        Some(Waits::Busy) => {
            return held(Reason::UpgradeWaiting, "they are upgraded after other servers; wait".to_owned());
        }
        Some(Waits::HaltedBy(failed)) => {
            return held(
                Reason::UpgradeHalted,
                format!(
                    "they are not upgraded, because upgraded pods of McpServer {failed} in this namespace do not become ready; remove the cause in its condition Available (kubectl -n {namespace} describe mcpserver {failed})"
                ),
            );
        }
        Some(Waits::Halted) => {
            return held(Reason::UpgradeHalted, "they are not upgraded, because upgraded pods in several namespaces do not become ready; ask the administrator of mcp-entra-operator".to_owned());
        }
        Some(Waits::Paused) | None => {}
    }
    let progress = deployment.map(|deployment| progress(deployment, || facts.answers.pods.clone()));
    let upgraded = "the children are applied as built, but";
    match progress {
        Some(Progress::NoRoom) => (
            Reason::UpgradeNoRoom,
            format!(
                "{upgraded} there is no room for the upgraded pods; the older ones keep serving, and other servers are upgraded first; see the condition Available for the missing resource"
            ),
        ),
        Some(Progress::Failed) => (
            Reason::UpgradeFailed,
            format!(
                "{upgraded} the upgraded pods do not become ready; the older ones keep serving, and no other server of this namespace is upgraded; see the condition Available for the cause"
            ),
        ),
        _ => (Reason::Applied, format!("the children are applied as built{}", moved(facts))),
    }
}

/// Names the ConfigMaps that replace immutable ones.
fn moved(facts: &Facts<'_>) -> String {
    let names = [ChildKind::Policy, ChildKind::Configuration].map(|kind| {
        let (first, name) = (kind.name(&facts.owner.name), facts.outcome.mounted.name(kind, &facts.owner.name));
        (first != name).then(|| format!("; ConfigMap {name} is mounted, because an earlier one is immutable"))
    });
    names.into_iter().flatten().collect()
}

/// Returns the message about kinds that the cluster does not serve, with their origin.
pub(crate) fn not_served(missing: &BTreeSet<ChildKind>) -> String {
    let lacking: Vec<String> = missing
        .iter()
        .map(|kind| format!("{} of {}", kind.kind(), kind.brought_by().unwrap_or("Kubernetes")))
        .collect();
    format!(
        "this cluster does not serve {}, or the operator has no permission to see it, so it cannot be applied; ask the cluster's administrators to install it; the operator then continues by itself",
        lacking.join(", ")
    )
}

/// Returns the names and values that others hold, if they do not become free by themselves.
pub(crate) fn conflicted(facts: &Facts<'_>) -> Option<(Reason, String)> {
    let conflict = facts.outcome.conflict().filter(|conflict| !conflict.collected);
    let not_owned = conflict.map(|conflict| (Reason::NotOwned, conflict_message(conflict, facts.owner)));
    not_owned.or_else(|| facts.outcome.standing.lost().map(|lost| (lost.reason(), lost.message())))
}

/// The most characters of a controller's name in a message, because others choose its length.
const SHOWN: usize = 100;

/// Returns the message about conflicting objects, with one command that adopts all those without a controller.
fn conflict_message(conflict: &Conflict, owner: &Owner) -> String {
    let (owned, nobodys): (Vec<&NameHolder>, Vec<&NameHolder>) =
        conflict.objects.iter().partition(|taken| taken.controller.is_some());
    let mut said = Vec::new();
    if !nobodys.is_empty() {
        said.push(format!("without an owner: {}", listed(nobodys.iter().copied(), owner)));
    }
    said.extend(owned.iter().map(|taken| {
        let controller: String = taken.controller.iter().flat_map(|title| title.chars()).take(SHOWN).collect();
        format!("a child of {controller}: {}", listed([*taken], owner))
    }));
    let adopt = match nobodys.is_empty() {
        true => String::new(),
        false => format!("; to give the unowned objects to this McpServer, run: {}", adopt_command(&nobodys, owner)),
    };
    format!(
        "other objects have names of this McpServer's children; {}; nothing more is applied: delete these objects, or give the McpServer another name{adopt}",
        said.join("; ")
    )
}

fn adopt_command(nobodys: &[&NameHolder], owner: &Owner) -> String {
    let objects: Vec<String> =
        nobodys.iter().map(|taken| taken.kind.kubectl_name(&taken.kind.name(&owner.name))).collect();
    format!("kubectl -n {} annotate {} {ADOPT}={}", owner.namespace, objects.join(" "), owner.name)
}

fn listed<'a>(objects: impl IntoIterator<Item = &'a NameHolder>, owner: &Owner) -> String {
    let names = objects.into_iter().map(|taken| format!("{} {}", taken.kind.kind(), taken.kind.name(&owner.name)));
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::fixtures::mk_owner;

    fn mk_conflict(objects: &[(ChildKind, Option<&str>)]) -> Conflict {
        let objects =
            objects.iter().map(|(kind, controller)| NameHolder { kind: *kind, controller: controller.map(Into::into) });
        Conflict { objects: objects.collect(), collected: false }
    }

    #[test]
    fn one_command_adopts_all_unowned_objects_and_none_of_another_controller() {
        let conflict = mk_conflict(&[
            (ChildKind::Policy, None),
            (ChildKind::Service, Some("Deployment web")),
            (ChildKind::Deployment, None),
        ]);
        let owner = mk_owner();
        let message = conflict_message(&conflict, &owner);
        let command = format!(
            "kubectl -n {} annotate configmap/graph-policy deployment.apps/graph mcp-entra.dev/adopt=graph",
            owner.namespace
        );
        assert!(message.ends_with(&command), "{message}");
        assert!(message.contains("ConfigMap graph-policy, Deployment graph"), "{message}");
        assert!(message.contains("a child of Deployment web: Service graph"), "{message}");

        let message = conflict_message(&mk_conflict(&[(ChildKind::Service, Some("Deployment web"))]), &owner);
        assert!(!message.contains("kubectl"), "{message}");
    }

    #[test]
    fn the_message_stays_short_however_long_the_names_are() {
        let long = "x".repeat(100_000);
        let all: Vec<_> = ChildKind::ALL.iter().map(|kind| (*kind, Some(&*long))).collect();
        let none: Vec<_> = ChildKind::ALL.iter().map(|kind| (*kind, None)).collect();
        let owner = Owner { name: "n".repeat(63), namespace: "s".repeat(63), ..mk_owner() };
        for objects in [all, none] {
            assert!(conflict_message(&mk_conflict(&objects), &owner).len() < 8_000);
        }
    }
}
