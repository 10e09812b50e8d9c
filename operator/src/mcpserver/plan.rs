//! Plan of a reconcile: the children that should exist. Pure.

use std::collections::BTreeSet;

use crate::{
    fleet::RollOut,
    mcpserver::{build, validate::Validated},
    objects::{
        child::{Child, ChildKind},
        config_map_edition::Mounted,
        names::{ROLL_OUT, TEMPLATE_HASH},
    },
    ownership::Held,
};

/// The children that should exist.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The built children in the order of applying; none if only the policy is applied.
    pub(crate) children: Option<Vec<Child>>,
    /// The kinds of children that should exist.
    pub(crate) wanted: Vec<ChildKind>,
    /// Kinds that the spec needs and the cluster does not serve.
    pub(crate) missing: BTreeSet<ChildKind>,
}

/// Plans the children of an accepted server that holds its claims, or only the policy.
pub(crate) fn plan(
    server: Option<(&Validated, &Held)>,
    mounted: Mounted,
    missing: impl FnOnce(&[Child]) -> BTreeSet<ChildKind>,
) -> Plan {
    let Some((validated, held)) = server else {
        return Plan { children: None, wanted: wanted(&[]), missing: BTreeSet::new() };
    };
    let mut children = build::children(validated, held, mounted);
    let missing = missing(&children);
    children.retain(|child| !missing.contains(&child.kind()));
    Plan { wanted: wanted(&children), children: Some(children), missing }
}

/// Returns the hash of the built pod template.
pub(crate) fn template_hash(children: &[Child]) -> &str {
    let annotations = children.iter().find_map(|child| match child {
        Child::Deployment(deployment) => deployment.metadata.annotations.as_ref(),
        _ => None,
    });
    annotations.and_then(|annotations| annotations.get(TEMPLATE_HASH)).map_or("", String::as_str)
}

/// Marks the rollout of the children as an upgrade that the author did not ask for.
pub(crate) fn as_upgrade(mut children: Vec<Child>) -> Vec<Child> {
    for child in &mut children {
        if let Child::Deployment(deployment) = child {
            let annotations = deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(ROLL_OUT.to_owned(), RollOut::Upgrade.as_str().to_owned());
        }
    }
    children
}

/// Returns the children without those that change pods, which wait for their turn.
pub(crate) fn without_pods(mut children: Vec<Child>) -> Vec<Child> {
    children.retain(|child| !matches!(child, Child::Deployment(_) | Child::Configuration(_)));
    children
}

/// Returns the wanted kinds: those that every server has, even if its spec is not accepted, and those that were built.
fn wanted(children: &[Child]) -> Vec<ChildKind> {
    let is_built = |kind: &ChildKind| children.iter().any(|child| child.kind() == *kind);
    ChildKind::ALL.iter().copied().filter(|kind| !kind.is_optional() || is_built(kind)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mcpserver::{
            resolved::Resolved,
            validate::{tests::mk_options, validate},
        },
        objects::{
            child::json_of,
            fixtures::{mk_owner, mk_server},
        },
    };

    fn mk_plan(is_accepted: bool, lacks: &[ChildKind]) -> Plan {
        let mut server = mk_server();
        server.spec.replicas = Some(2);
        let validated = validate(&server, &mk_owner(), &Resolved::default(), &mk_options()).unwrap();
        let held = Held { root: true, listener_of: None };
        let server = is_accepted.then_some((&validated, &held));
        plan(server, Mounted::default(), |_| lacks.iter().copied().collect())
    }

    fn kinds(children: &[Child]) -> Vec<ChildKind> {
        children.iter().map(Child::kind).collect()
    }

    #[test]
    fn a_server_that_is_not_accepted_keeps_the_children_that_every_server_has() {
        let plan = mk_plan(false, &[]);
        assert!(plan.children.is_none() && plan.missing.is_empty());
        let every: Vec<ChildKind> = ChildKind::ALL.iter().copied().filter(|kind| !kind.is_optional()).collect();
        assert_eq!(plan.wanted, every);
        assert!(every.contains(&ChildKind::Policy) && every.contains(&ChildKind::Deployment));
    }

    #[test]
    fn built_children_are_wanted_except_for_kinds_that_the_cluster_lacks() {
        let (whole, lacking) = (mk_plan(true, &[]), mk_plan(true, &[ChildKind::Ingress]));
        let built = kinds(whole.children.as_deref().unwrap());
        for kind in [ChildKind::Ingress, ChildKind::DisruptionBudget, ChildKind::Deployment] {
            assert!(built.contains(&kind) && whole.wanted.contains(&kind), "{kind:?}");
        }
        assert!(!whole.wanted.contains(&ChildKind::HttpRoute), "the spec does not need it");
        assert!(built.iter().all(|kind| whole.wanted.contains(kind)));
        assert_eq!(lacking.missing, [ChildKind::Ingress].into());
        assert!(!lacking.wanted.contains(&ChildKind::Ingress));
        assert_eq!(kinds(lacking.children.as_deref().unwrap()).len(), built.len() - 1);
    }

    #[test]
    fn waiting_pods_keep_their_configuration_and_an_upgrade_is_marked_as_one() {
        let children = mk_plan(true, &[]).children.unwrap();
        let waiting = kinds(&without_pods(children.clone()));
        assert!(!waiting.contains(&ChildKind::Deployment) && !waiting.contains(&ChildKind::Configuration));
        assert_eq!(waiting.len(), children.len() - 2);
        let asked_for = |children: &[Child]| {
            let deployment = children.iter().find(|child| child.kind() == ChildKind::Deployment).unwrap();
            json_of(deployment)["metadata"]["annotations"][ROLL_OUT].clone()
        };
        assert_eq!(asked_for(&children), "requested");
        let upgrade = as_upgrade(children.clone());
        assert_eq!(asked_for(&upgrade), "upgrade");
        assert_eq!(upgrade.len(), children.len());
    }
}
