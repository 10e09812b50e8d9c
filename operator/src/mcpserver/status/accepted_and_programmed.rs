//! Accepted, Programmed and Conflicted: whether the spec can be built, and whether the children are as built. Pure.

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
                tools => format!("; not offered, since spec.graph.scopes lacks the permission: {}", named(tools)),
            };
            Verdict::yes(Reason::Accepted, format!("the spec is valid and allowed here{tools}"))
        }
        Some(Err(refusal)) => Verdict::no(refusal.reason, refusal.message.clone()),
        None => Verdict::of_earlier_spec(previous, ConditionType::Accepted).unwrap_or_else(|| {
            Verdict::unknown(
                Reason::Progressing,
                "what the spec refers to could not be read yet; the condition Programmed says why",
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
                "{error}; it is tried again by itself, ever more slowly: remove the cause, or ask whoever runs the cluster"
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
                "the children of the deleted McpServer of this name are being collected, {} among them; wait until they are gone",
                listed(objects, facts.owner)
            ),
        );
    }
    if facts.server.metadata.deletion_timestamp.is_some() {
        return Verdict::no(
            Reason::Deleting,
            format!(
                "the McpServer is being deleted, and nothing leads clients to it any more; its pods serve until its finalizers are gone: {}",
                bounded(&facts.server.finalizers().join(", "), SHOWN)
            ),
        );
    }
    if facts.outcome.refusal().is_some() {
        return Verdict::no(
            Reason::NotAccepted,
            "the children are left as they are, but for the policy, until the spec is accepted; the condition Accepted says what to change",
        );
    }
    if facts.server.spec.suspend {
        return Verdict::unknown(
            Reason::Suspended,
            "spec.suspend is true: the children are left as they are, but for the policy; set it to false to have them applied",
        );
    }
    if facts.is_undecided() {
        return Verdict::no(
            Reason::OwnershipPending,
            "the operator decides who holds the host and the client id that the spec names; wait a few seconds: if this lasts, ask whoever runs mcp-entra-operator for its log",
        );
    }
    if !facts.outcome.missing.is_empty() {
        return Verdict::no(Reason::KindNotServed, not_served(&facts.outcome.missing));
    }
    let (reason, message) = rolled_out(facts);
    Verdict::yes(reason, message)
}

/// The progress of the pods towards those that were built, once everything else is.
fn rolled_out(facts: &Facts<'_>) -> (Reason, String) {
    let Owner { namespace, name, .. } = facts.owner;
    let deployment = facts.child(ChildKind::Deployment);
    if deployment.is_some_and(|deployment| deployment.paused) || facts.outcome.upgrade == Some(Waits::Paused) {
        let resume = resume(namespace, name);
        return (
            Reason::RollOutPaused,
            format!("the children are applied as built, but no changed pod is rolled out: {resume}"),
        );
    }
    let held = |reason, why: String| {
        let what = "the children are applied as built, but for the pods: they are";
        (reason, format!("{what} {why}"))
    };
    match &facts.outcome.upgrade {
        Some(Waits::Busy) => {
            return held(
                Reason::UpgradeWaiting,
                "replaced by those of the operator's version once other servers have been; wait".to_owned(),
            );
        }
        Some(Waits::HaltedBy(failed)) => {
            return held(
                Reason::UpgradeHalted,
                format!(
                    "left as they are, since those of the operator's version do not come up for McpServer {failed} of this namespace; remove the cause that its condition Available names (kubectl -n {namespace} describe mcpserver {failed})"
                ),
            );
        }
        Some(Waits::Halted) => {
            return held(Reason::UpgradeHalted, "left as they are, since those of the operator's version do not come up in several namespaces; ask whoever runs mcp-entra-operator".to_owned());
        }
        Some(Waits::Paused) | None => {}
    }
    let progress = deployment.map(|deployment| progress(deployment, || facts.answers.pods.clone()));
    let upgraded = "the children are applied as built, and the pods of the operator's version";
    match progress {
        Some(Progress::NoRoom) => (
            Reason::UpgradeNoRoom,
            format!(
                "{upgraded} find no room, so that older ones serve on and other servers are upgraded first; the condition Available says what is missing"
            ),
        ),
        Some(Progress::Failed) => (
            Reason::UpgradeFailed,
            format!(
                "{upgraded} do not come up, so that older ones serve on and no other server of this namespace is upgraded; the condition Available says why"
            ),
        ),
        _ => (Reason::Applied, format!("the children are applied as built{}", moved(facts))),
    }
}

/// Names the ConfigMaps that are in use in place of immutable ones.
fn moved(facts: &Facts<'_>) -> String {
    let names = [ChildKind::Policy, ChildKind::Configuration].map(|kind| {
        let (first, name) = (kind.name(&facts.owner.name), facts.outcome.mounted.name(kind, &facts.owner.name));
        (first != name).then(|| format!("; ConfigMap {name} is mounted, since an earlier one cannot be changed"))
    });
    names.into_iter().flatten().collect()
}

/// The kinds that a cluster lacks, and their origin.
pub(crate) fn not_served(missing: &BTreeSet<ChildKind>) -> String {
    let lacking: Vec<String> = missing
        .iter()
        .map(|kind| format!("{} of {}", kind.kind(), kind.brought_by().unwrap_or("Kubernetes")))
        .collect();
    format!(
        "this cluster does not serve {}, or does not show the operator what it needs to see of it, so that it cannot be applied; ask whoever runs the cluster to install it: it is noticed by itself",
        lacking.join(", ")
    )
}

/// The names and values that somebody else has, if they do not become free by themselves.
pub(crate) fn conflicted(facts: &Facts<'_>) -> Option<(Reason, String)> {
    let conflict = facts.outcome.conflict().filter(|conflict| !conflict.collected);
    let not_owned = conflict.map(|conflict| (Reason::NotOwned, conflict_message(conflict, facts.owner)));
    not_owned.or_else(|| facts.outcome.standing.lost().map(|lost| (lost.reason(), lost.message())))
}

/// Characters of a controller's name that a message shows: its length is its writer's choice.
const SHOWN: usize = 100;

/// The objects in the way, and one command that adopts all that have no controller.
fn conflict_message(conflict: &Conflict, owner: &Owner) -> String {
    let (owned, nobodys): (Vec<&NameHolder>, Vec<&NameHolder>) =
        conflict.objects.iter().partition(|taken| taken.controller.is_some());
    let mut said = Vec::new();
    if !nobodys.is_empty() {
        said.push(format!("nobody's children: {}", listed(nobodys.iter().copied(), owner)));
    }
    said.extend(owned.iter().map(|taken| {
        let controller: String = taken.controller.iter().flat_map(|title| title.chars()).take(SHOWN).collect();
        format!("a child of {controller}: {}", listed([*taken], owner))
    }));
    let adopt = match nobodys.is_empty() {
        true => String::new(),
        false => format!("; to give the McpServer what is nobody's, run: {}", adopt_command(&nobodys, owner)),
    };
    format!(
        "objects exist that have names of this McpServer's children and are not its own; {}; nothing more is applied until they are gone: delete them, or give the McpServer another name{adopt}",
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
    fn one_command_adopts_all_that_is_nobodys_and_nothing_of_another_controller() {
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
