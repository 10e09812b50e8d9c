//! The plan of a reconcile: which children there are to be, as built. Pure.

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

/// The children that there are to be.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The children as built, in the order in which they are applied. None while the children are left as they are, but for
    /// the policy.
    pub(crate) children: Option<Vec<Child>>,
    /// The kinds of children that there are to be.
    pub(crate) wanted: Vec<ChildKind>,
    /// Kinds that the spec asks for and this cluster lacks.
    pub(crate) missing: BTreeSet<ChildKind>,
}

/// Plans the children of a server that is accepted and holds what it names, or the policy alone.
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

/// The hash of the pod template as built.
pub(crate) fn template_hash(children: &[Child]) -> &str {
    let annotations = children.iter().find_map(|child| match child {
        Child::Deployment(deployment) => deployment.metadata.annotations.as_ref(),
        _ => None,
    });
    annotations.and_then(|annotations| annotations.get(TEMPLATE_HASH)).map_or("", String::as_str)
}

/// The children as an upgrade that its author did not ask for.
pub(crate) fn as_upgrade(mut children: Vec<Child>) -> Vec<Child> {
    for child in &mut children {
        if let Child::Deployment(deployment) = child {
            let annotations = deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(ROLL_OUT.to_owned(), RollOut::Upgrade.as_str().to_owned());
        }
    }
    children
}

/// The children without the pods, which wait for their turn.
pub(crate) fn without_pods(mut children: Vec<Child>) -> Vec<Child> {
    children.retain(|child| !matches!(child, Child::Deployment(_) | Child::Configuration(_)));
    children
}

/// The children that there are to be: those that every server has, whether or not its spec is accepted now, and those
/// that were built.
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
    fn what_a_server_that_is_not_accepted_has_is_left_and_what_every_server_has_is_wanted() {
        let plan = mk_plan(false, &[]);
        assert!(plan.children.is_none() && plan.missing.is_empty());
        let every: Vec<ChildKind> = ChildKind::ALL.iter().copied().filter(|kind| !kind.is_optional()).collect();
        assert_eq!(plan.wanted, every);
        assert!(every.contains(&ChildKind::Policy) && every.contains(&ChildKind::Deployment));
    }

    #[test]
    fn what_is_built_is_wanted_and_what_the_cluster_lacks_is_neither() {
        let (whole, lacking) = (mk_plan(true, &[]), mk_plan(true, &[ChildKind::Ingress]));
        let built = kinds(whole.children.as_deref().unwrap());
        for kind in [ChildKind::Ingress, ChildKind::DisruptionBudget, ChildKind::Deployment] {
            assert!(built.contains(&kind) && whole.wanted.contains(&kind), "{kind:?}");
        }
        assert!(!whole.wanted.contains(&ChildKind::HttpRoute), "nothing asks for it");
        assert!(built.iter().all(|kind| whole.wanted.contains(kind)));
        assert_eq!(lacking.missing, [ChildKind::Ingress].into());
        assert!(!lacking.wanted.contains(&ChildKind::Ingress));
        assert_eq!(kinds(lacking.children.as_deref().unwrap()).len(), built.len() - 1);
    }

    #[test]
    fn pods_that_wait_for_their_turn_keep_their_configuration_and_an_upgrade_says_that_it_is_one() {
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
