//! Evidence that an McpServer left an object behind after its deletion. Pure: the caches are arguments.

use std::{collections::HashSet, sync::Arc};

use kube::ResourceExt;

use crate::{
    objects::{
        child::ChildKind,
        config_map_edition::Edition,
        full_name::FullName,
        owner::Controller,
        views::{ChildView, Labelled, PodView},
    },
    watch::stores::World,
};

/// Kinds that give access: the policy, and the kinds that route clients to the pods.
const KINDS: [ChildKind; 4] = [ChildKind::Policy, ChildKind::HttpRoute, ChildKind::Ingress, ChildKind::ListenerSet];

/// The reason why an object is considered an orphan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// The object has no controller. A child gets its controller in the same write that creates it, so this is proof.
    NoController,
    /// The object's controller is an McpServer that is not in the cache. This alone is no proof.
    Unseen { server: Box<str>, uid: Box<str> },
}

/// An object with the labels and the name of a child, and the evidence that it is an orphan.
#[derive(Clone, Debug)]
pub(crate) struct Suspect {
    pub(crate) kind: ChildKind,
    pub(crate) object: Arc<ChildView>,
    pub(crate) evidence: Evidence,
}

impl Suspect {
    /// Returns the name of the McpServer that the object belonged to.
    pub(crate) fn server(&self) -> &str {
        self.object.server().unwrap_or_default()
    }

    /// Returns kind and name for a message.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.kind.kind(), self.object.name())
    }

    /// Returns true if the object at the API server gives the same evidence.
    pub(crate) fn is_still(&self, live: &ChildView) -> bool {
        live.uid == self.object.uid && evidence(self.kind, live, |_| false).as_ref() == Some(&self.evidence)
    }
}

/// Returns the evidence that an object is an orphan. It must have the name and labels of a child, so that objects of
/// other owners are never touched.
fn evidence(kind: ChildKind, object: &ChildView, is_shown: impl Fn(&Controller) -> bool) -> Option<Evidence> {
    if !is_like_child(kind, object) {
        return None;
    }
    let Some(controller) = &object.controller else { return Some(Evidence::NoController) };
    let server = controller.server()?;
    (!is_shown(controller)).then(|| Evidence::Unseen { server: server.into(), uid: controller.uid.clone() })
}

fn is_like_child(kind: ChildKind, object: &ChildView) -> bool {
    object.labelled && object.server().is_some_and(|server| Edition::of(kind, server, object.name()).is_some())
}

/// Returns true if an orphan still routes clients from the host to its pods.
pub(crate) fn leads_from(world: &World, host: &str) -> bool {
    let leads = |kind: ChildKind| {
        let is_orphans = |object: &ChildView| evidence(kind, object, |_| true).is_some();
        world.children.filter(kind, |object| object.exposed_host() == Some(host) && is_orphans(object))
    };
    KINDS.into_iter().any(|kind| !leads(kind).is_empty())
}

/// A snapshot of the caches.
pub(crate) struct Suspects {
    /// Policies and routes that may be orphans.
    pub(crate) suspects: Vec<Suspect>,
    /// Namespace and uid of each McpServer that owns its policy.
    owners: HashSet<(String, String)>,
}

impl Suspects {
    pub(crate) fn of(world: &World) -> Self {
        let servers: HashSet<String> = world.servers.state().iter().filter_map(|server| server.uid()).collect();
        let is_shown = |controller: &Controller| servers.contains(&*controller.uid);
        let mut suspects = Vec::new();
        for kind in KINDS {
            let found = world.children.filter(kind, |object| evidence(kind, object, is_shown).is_some());
            suspects.extend(
                found
                    .into_iter()
                    .filter_map(|object| Some(Suspect { kind, evidence: evidence(kind, &object, is_shown)?, object })),
            );
        }
        let owners = match suspects.iter().any(|suspect| suspect.kind == ChildKind::Policy) {
            true => owners(world, is_shown),
            false => HashSet::new(),
        };
        Self { suspects, owners }
    }

    /// Returns the name of the policy that a pod runs, if its server does not own one. A pod of a server that owns its
    /// policy may only carry the labels.
    pub(crate) fn policy_of(&self, pod: &PodView) -> Option<FullName> {
        let is_owned =
            pod.server_uid.as_ref().is_some_and(|uid| self.owners.contains(&owner_of(pod.full_name.namespace(), uid)));
        let server = pod.server().filter(|_| !is_owned && pod.is_running())?;
        let mounted = pod.policy.as_deref().filter(|name| Edition::of(ChildKind::Policy, server, name).is_some());
        let policy = mounted.map_or_else(|| ChildKind::Policy.name(server), str::to_owned);
        Some(FullName::new(pod.full_name.namespace(), &policy))
    }
}

/// Returns a server's uid with its namespace. A pod in another namespace that copies the uid does not match.
fn owner_of(namespace: &str, uid: &str) -> (String, String) {
    (namespace.to_owned(), uid.to_owned())
}

fn owners(world: &World, is_shown: impl Fn(&Controller) -> bool) -> HashSet<(String, String)> {
    let owner = |policy: &ChildView| {
        let controller = policy.controller.as_ref().filter(|controller| is_shown(controller))?;
        Edition::of(ChildKind::Policy, controller.server()?, policy.name())?;
        Some(owner_of(policy.full_name.namespace(), &controller.uid))
    };
    let policies = world.children.filter(ChildKind::Policy, |object| owner(object).is_some());
    policies.iter().filter_map(|policy| owner(policy)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde_json::json;

    use super::*;
    use crate::objects::fixtures::mk_owner;

    fn mk_metadata(kind: ChildKind) -> ObjectMeta {
        let mut metadata = mk_owner().child_metadata(kind);
        metadata.resource_version = Some("7".into());
        metadata
    }

    fn evidence_of(kind: ChildKind, change: impl FnOnce(&mut ObjectMeta)) -> Option<Evidence> {
        let mut metadata = mk_metadata(kind);
        change(&mut metadata);
        evidence(kind, &ChildView::from(&metadata), |controller| *controller.uid == *mk_owner().uid)
    }

    pub(crate) fn mk_suspect(evidence: Evidence) -> Suspect {
        let object = Arc::new(ChildView::from(&mk_metadata(ChildKind::Policy)));
        Suspect { kind: ChildKind::Policy, object, evidence }
    }

    #[test]
    fn an_object_that_gives_access_is_an_orphan_only_without_its_controller() {
        for kind in KINDS {
            assert_eq!(evidence_of(kind, |_| {}), None, "{kind:?}");
            let orphaned = evidence_of(kind, |metadata| metadata.owner_references = None);
            assert_eq!(orphaned, Some(Evidence::NoController), "{kind:?}");
            let second = format!("{}-2", kind.name("graph"));
            let renamed = evidence_of(kind, |metadata| {
                (metadata.owner_references, metadata.name) = (None, Some(second));
            });
            assert_eq!(renamed.is_some(), kind == ChildKind::Policy, "{kind:?}: only ConfigMaps have later editions");
            let demoted = evidence_of(kind, |metadata| {
                metadata.owner_references.iter_mut().flatten().for_each(|owner| owner.controller = None);
            });
            assert_eq!(demoted, Some(Evidence::NoController), "{kind:?}");
        }
    }

    #[test]
    fn a_controller_that_the_cache_lacks_is_named() {
        let unseen = evidence_of(ChildKind::Policy, |metadata| {
            metadata.owner_references.iter_mut().flatten().for_each(|owner| owner.uid = "gone".into());
        });
        assert_eq!(unseen, Some(Evidence::Unseen { server: "graph".into(), uid: "gone".into() }));
    }

    #[test]
    fn neighbours_are_no_orphans() {
        type Change = fn(&mut ObjectMeta);
        let neighbours: [(&str, Change); 6] = [
            ("no labels", |metadata| metadata.labels = None),
            ("another manager", |metadata| {
                metadata.labels.as_mut().unwrap().insert("app.kubernetes.io/managed-by".into(), "Helm".into());
            }),
            ("another program", |metadata| {
                metadata.labels.as_mut().unwrap().insert("app.kubernetes.io/name".into(), "postgres".into());
            }),
            ("no instance", |metadata| {
                metadata.labels.as_mut().unwrap().remove("app.kubernetes.io/instance");
            }),
            ("the instance of another", |metadata| {
                metadata.labels.as_mut().unwrap().insert("app.kubernetes.io/instance".into(), "grap".into());
            }),
            ("another name", |metadata| metadata.name = Some("graph-policy-backup".into())),
        ];
        for (neighbour, change) in neighbours {
            for kind in KINDS {
                let found = evidence_of(kind, |metadata| {
                    metadata.owner_references = None;
                    change(metadata);
                });
                assert_eq!(found, None, "{kind:?} with {neighbour}");
            }
        }
        let controlled = evidence_of(ChildKind::Policy, |metadata| {
            metadata.owner_references.iter_mut().flatten().for_each(|owner| {
                owner.kind = "Deployment".into();
                owner.uid = "other".into();
            });
        });
        assert_eq!(controlled, None, "another kind of controller");
    }

    #[test]
    fn a_pod_runs_the_policy_that_it_mounts_unless_a_server_of_its_own_namespace_owns_that() {
        let seen = Suspects { suspects: Vec::new(), owners: HashSet::from([owner_of("here", "uid-1")]) };
        let policy = |namespace: &str, uid: &str, mounted: &str| {
            let labels = json!({"app.kubernetes.io/instance": "graph"});
            let annotations = json!({crate::objects::names::SERVER_UID: uid});
            let metadata = json!({"namespace": namespace, "name": "a", "labels": labels, "annotations": annotations});
            let volumes = json!([{"name": "policy", "configMap": {"name": mounted}}]);
            let pod = json!({"metadata": metadata, "spec": {"volumes": volumes}, "status": {"phase": "Running"}});
            let found = seen.policy_of(&serde_json::from_value::<PodView>(pod).unwrap());
            found.map(|name| format!("{}/{}", name.namespace(), name.name()))
        };
        assert_eq!(policy("here", "uid-2", "graph-policy").as_deref(), Some("here/graph-policy"));
        assert_eq!(policy("here", "uid-2", "graph-policy-2").as_deref(), Some("here/graph-policy-2"));
        assert_eq!(policy("here", "uid-2", "mine").as_deref(), Some("here/graph-policy"), "it has another name");
        assert_eq!(policy("here", "uid-1", "graph-policy"), None, "a server owns it");
        assert_eq!(policy("there", "uid-1", "graph-policy").as_deref(), Some("there/graph-policy"), "a uid is copied");
    }

    #[test]
    fn the_object_is_looked_at_again_and_must_still_give_the_same_evidence() {
        let mut metadata = mk_metadata(ChildKind::Policy);
        metadata.uid = Some("uid-2".into());
        let owned = ChildView::from(&metadata);
        metadata.owner_references = None;
        let orphaned = ChildView::from(&metadata);
        let suspect = Suspect { object: Arc::new(orphaned.clone()), ..mk_suspect(Evidence::NoController) };
        assert!(suspect.is_still(&orphaned));
        assert!(!suspect.is_still(&owned), "it was adopted");
        metadata.uid = Some("uid-3".into());
        assert!(!suspect.is_still(&ChildView::from(&metadata)), "it is another object of that name");
    }
}
