//! Editions of a server's immutable ConfigMaps. An immutable ConfigMap cannot be changed, and a kubelet serves its copy
//! by name while any pod on the node refers to it. The content moves to the next name.

use std::collections::HashMap;

use crate::{
    objects::{
        child::ChildKind,
        config_map_edition::Edition,
        observed_child::Seen,
        owner::Owner,
        views::{ChildView, PodView},
    },
    runtime::errors::Error,
    watch::stores::Children,
};

/// Uids of the ConfigMaps that were found immutable, which a watch of metadata does not show.
#[derive(Debug, Default)]
pub(crate) struct Frozen(HashMap<(ChildKind, Edition), String>);

impl Frozen {
    /// Records that a ConfigMap is immutable.
    pub(crate) fn note(&mut self, kind: ChildKind, edition: Edition, uid: String) {
        self.0.insert((kind, edition), uid);
    }

    /// Returns true if an edition of the kind was found immutable.
    pub(crate) fn has_any(&self, kind: ChildKind) -> bool {
        self.0.keys().any(|(frozen, _)| *frozen == kind)
    }

    /// Returns the edition to write: the one that the Deployment mounts, or the first that can be changed.
    pub(crate) fn edition(&self, kind: ChildKind, children: &Children, owner: &Owner) -> Result<Edition, Error> {
        let deployment = children.get(ChildKind::Deployment, owner);
        let deployment = deployment.as_deref().filter(|found| Seen::watched(found, owner).is_for_us());
        let mounted = deployment.and_then(|found| found.mounts(kind));
        let mounted = mounted.and_then(|name| Edition::of(kind, &owner.name, name));
        let can_be_written = |edition: &Edition| {
            let name = edition.name(kind, &owner.name);
            let found = children.config_map(&owner.namespace, &name);
            let is_frozen = self.0.get(&(kind, *edition)).is_some_and(|uid| {
                mounted == Some(*edition) || found.as_ref().is_some_and(|found| *found.uid == **uid)
            });
            // A foreign object with the first name is a conflict, which is reported elsewhere.
            let is_foreign = |found: &ChildView| !Seen::watched(found, owner).is_for_us();
            let is_taken = *edition != Edition::default() && found.as_deref().is_some_and(is_foreign);
            !is_frozen && !is_taken
        };
        mounted.into_iter().chain(Edition::all()).find(can_be_written).ok_or_else(|| {
            let names = Edition::all().map(|edition| edition.name(kind, &owner.name)).collect::<Vec<_>>().join(" ");
            Error::AllImmutable(format!("kubectl -n {} delete configmap {names}", owner.namespace))
        })
    }
}

/// Returns true if a pod mounts another policy and is not being deleted.
pub(crate) fn is_moving<'a>(pods: impl IntoIterator<Item = &'a PodView>, policy: &str) -> bool {
    pods.into_iter().any(|pod| !pod.leaving && pod.policy.as_deref().is_some_and(|mounted| mounted != policy))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::objects::fixtures::mk_owner;

    const POLICY: ChildKind = ChildKind::Policy;

    fn mk_config_map(name: &str, uid: &str, ours: bool) -> ChildView {
        let mut metadata = mk_owner().child_metadata(POLICY);
        metadata.name = Some(name.into());
        metadata.uid = Some(uid.into());
        if !ours {
            metadata.owner_references = None;
        }
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn mk_deployment(policy: &str) -> ChildView {
        let volumes = json!([{"name": "policy", "configMap": {"name": policy}}]);
        let spec = json!({"template": {"spec": {"volumes": volumes}}});
        serde_json::from_value(json!({"metadata": mk_owner().child_metadata(ChildKind::Deployment), "spec": spec}))
            .unwrap()
    }

    fn edition(frozen: &Frozen, config_maps: &[ChildView], deployment: Option<&str>) -> Option<u8> {
        let config_maps = config_maps.iter().cloned().map(|found| (POLICY, found));
        let deployment = deployment.map(|policy| (ChildKind::Deployment, mk_deployment(policy)));
        let children = Children::these(config_maps.chain(deployment));
        frozen.edition(POLICY, &children, &mk_owner()).ok().map(|edition| edition.0)
    }

    fn mk_frozen(uids: &[(u8, &str)]) -> Frozen {
        Frozen(uids.iter().map(|(edition, uid)| ((POLICY, Edition(*edition)), (*uid).to_owned())).collect())
    }

    #[test]
    fn an_edition_is_read_from_a_name_of_this_server_only() {
        for edition in Edition::all() {
            for kind in [POLICY, ChildKind::Configuration] {
                assert_eq!(Edition::of(kind, "graph", &edition.name(kind, "graph")), Some(edition));
            }
        }
        assert_eq!(Edition(1).name(POLICY, "graph"), "graph-policy-2");
        let others = ["graph-policy-", "graph-policy-0", "graph-policy-1", "graph-policy-02", "graph-policy-17"];
        for other in others.into_iter().chain(["graph-policy-2-policy", "grap-policy", "graph-policy2", "graph"]) {
            assert_eq!(Edition::of(POLICY, "graph", other), None, "{other}");
        }
        assert_eq!(Edition::of(ChildKind::HttpRoute, "graph", "graph-2"), None, "only ConfigMaps have editions");
    }

    #[test]
    fn an_immutable_edition_is_replaced_by_the_next_free_one() {
        let first = mk_config_map("graph-policy", "u1", true);
        let second = |ours| mk_config_map("graph-policy-2", "u2", ours);
        let frozen = mk_frozen(&[(0, "u1")]);
        assert_eq!(edition(&Frozen::default(), std::slice::from_ref(&first), Some("graph-policy")), Some(0));
        assert_eq!(edition(&frozen, std::slice::from_ref(&first), Some("graph-policy")), Some(1));
        assert_eq!(edition(&frozen, &[first.clone(), second(true)], Some("graph-policy")), Some(1));
        assert_eq!(edition(&frozen, &[first.clone(), second(false)], Some("graph-policy")), Some(2), "somebody else's");
        let both = mk_frozen(&[(0, "u1"), (1, "u2")]);
        assert_eq!(edition(&both, &[first, second(true)], Some("graph-policy-2")), Some(2));
    }

    #[test]
    fn the_mounted_edition_is_kept_even_if_an_earlier_one_is_free_again() {
        let second = mk_config_map("graph-policy-2", "u2", true);
        assert_eq!(edition(&mk_frozen(&[(0, "u1")]), &[second], Some("graph-policy-2")), Some(1));
        assert_eq!(edition(&Frozen::default(), &[], Some("graph-policy-2")), Some(1), "it is created again");
    }

    #[test]
    fn a_deleted_edition_is_not_recreated_while_the_deployment_mounts_the_immutable_copy() {
        let frozen = mk_frozen(&[(0, "u1")]);
        assert_eq!(edition(&frozen, &[], Some("graph-policy")), Some(1));
        let remade = mk_config_map("graph-policy", "u3", true);
        assert_eq!(edition(&frozen, &[remade], Some("graph-policy")), Some(1));
    }

    #[test]
    fn when_no_edition_is_left_the_command_that_frees_them_is_named() {
        let all: Vec<(u8, String)> =
            (0..crate::objects::config_map_edition::MOST).map(|edition| (edition, format!("u{edition}"))).collect();
        let frozen = mk_frozen(&all.iter().map(|(edition, uid)| (*edition, uid.as_str())).collect::<Vec<_>>());
        let found: Vec<ChildView> = all
            .iter()
            .map(|(edition, uid)| mk_config_map(&Edition(*edition).name(POLICY, "graph"), uid, true))
            .collect();
        let children = |found: &[ChildView]| {
            let deployment = (ChildKind::Deployment, mk_deployment("graph-policy-16"));
            Children::these(found.iter().cloned().map(|found| (POLICY, found)).chain([deployment]))
        };
        let error = frozen.edition(POLICY, &children(&found), &mk_owner()).unwrap_err().to_string();
        assert!(error.contains("delete configmap graph-policy graph-policy-2 "), "{error}");
        assert_eq!(frozen.edition(POLICY, &children(&[]), &mk_owner()).ok(), Some(Edition(0)), "they were deleted");
    }

    #[test]
    fn pods_are_moving_while_one_that_stays_mounts_another_policy() {
        let pod = |volumes: Value, leaving: bool| -> PodView {
            let deleted = leaving.then_some("2026-01-01T00:00:00Z");
            let metadata = json!({"name": "a", "deletionTimestamp": deleted});
            serde_json::from_value(json!({"metadata": metadata, "spec": {"volumes": volumes}})).unwrap()
        };
        let mounts = |name: &str| json!([{"name": "policy", "configMap": {"name": name}}, {"name": "trust"}]);
        let is_moving = |pod: PodView| is_moving([&pod], "graph-policy-2");
        assert!(is_moving(pod(mounts("graph-policy"), false)));
        assert!(!is_moving(pod(mounts("graph-policy"), true)), "it is being deleted");
        assert!(!is_moving(pod(mounts("graph-policy-2"), false)));
        assert!(!is_moving(pod(json!([]), false)), "it mounts no policy");
    }
}
