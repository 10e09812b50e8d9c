//! Views of children and pods: only the fields that are read. A thousand full objects would take tens of megabytes.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::objects::{
    child::ChildKind,
    full_name::{FullName, Kept},
    names::{
        ADOPT, CONFIGURATION_HASH, CONFIGURATION_VOLUME, EXPOSES, INSTANCE, POLICY_REVISION, POLICY_VOLUME, RECREATE,
        REQUESTED_HASH, ROLL_OUT, SERVER_UID, TEMPLATE_HASH,
    },
    owner::{Controller, has_labels_of_child},
    status_views::{ChildStatusView, ConditionView, ContainerStatusView, LoadBalancerView, is_true},
    watched::{WatchedChild, WatchedPod, WatchedSpec},
};

/// Names of the volumes that contain children.
const VOLUMES: [(ChildKind, &str); 2] =
    [(ChildKind::Configuration, CONFIGURATION_VOLUME), (ChildKind::Policy, POLICY_VOLUME)];

/// Annotations of children that are read.
const ANNOTATIONS: [&str; 6] = [ADOPT, EXPOSES, REQUESTED_HASH, ROLL_OUT, SERVER_UID, TEMPLATE_HASH];

/// The fields of a child that are read, for all kinds. A field that the kind lacks is empty.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(serde::Deserialize), serde(from = "WatchedChild"))]
pub(crate) struct ChildView {
    pub(crate) full_name: FullName,
    pub(crate) uid: Box<str>,
    /// See [`crate::objects::observed_child::Seen::version`].
    pub(crate) version: Box<str>,
    pub(crate) generation: Option<i64>,
    pub(crate) controller: Option<Controller>,
    /// The McpServer that the labels name.
    server: Option<Box<str>>,
    /// True if it has the labels of a child.
    pub(crate) labelled: bool,
    annotations: Box<[(&'static str, Box<str>)]>,
    /// The desired number of pods of a Deployment, set by the operator, an autoscaler or a person.
    pub(crate) replicas: Option<i32>,
    /// True for a paused Deployment.
    pub(crate) paused: bool,
    /// True for a Deployment that stops old pods before it starts new ones.
    pub(crate) recreates: bool,
    /// Names of the ConfigMaps in a Deployment's pod template.
    mounts: Box<[(ChildKind, Box<str>)]>,
    status: Option<Box<ChildStatusView>>,
    /// True if it is being deleted.
    pub(crate) leaving: bool,
}

impl From<&ObjectMeta> for ChildView {
    fn from(metadata: &ObjectMeta) -> Self {
        let found = |name: &'static str| Some((name, boxed(metadata.annotations.as_ref()?.get(name)?)));
        Self {
            full_name: FullName::of(metadata),
            uid: metadata.uid.as_ref().map(boxed).unwrap_or_default(),
            version: version_of(metadata).into(),
            generation: metadata.generation,
            controller: Controller::of(metadata),
            server: named_server(metadata),
            labelled: has_labels_of_child(metadata),
            annotations: ANNOTATIONS.into_iter().filter_map(found).collect(),
            leaving: metadata.deletion_timestamp.is_some(),
            ..Self::default()
        }
    }
}

impl From<PartialObjectMeta<WatchedChild>> for ChildView {
    fn from(watched: PartialObjectMeta<WatchedChild>) -> Self {
        Self::from(&watched.metadata)
    }
}

impl From<WatchedChild> for ChildView {
    fn from(WatchedChild { metadata, spec, status }: WatchedChild) -> Self {
        let status = status.filter(|status| **status != ChildStatusView::default());
        let WatchedSpec { replicas, paused, strategy, template } = spec.unwrap_or_default();
        let recreates = strategy.is_some_and(|strategy| strategy.type_ == RECREATE);
        let pod = template.unwrap_or_default().spec;
        let mounts = VOLUMES.into_iter().filter_map(|(kind, volume)| Some((kind, boxed(pod.config_map(volume)?))));
        let (mounts, paused) = (mounts.collect(), paused.unwrap_or_default());
        Self { replicas, paused, recreates, mounts, status, ..Self::from(&metadata) }
    }
}

fn boxed(text: impl AsRef<str>) -> Box<str> {
    text.as_ref().into()
}

/// Returns the McpServer that the labels of a child or a pod name.
fn named_server(metadata: &ObjectMeta) -> Option<Box<str>> {
    metadata.labels.as_ref()?.get(INSTANCE).map(boxed)
}

/// An object with the labels of children and pods.
pub(crate) trait Labelled: Kept {
    /// Returns the McpServer that the labels name.
    fn server(&self) -> Option<&str>;
}

impl Kept for ChildView {
    fn full_name(&self) -> &FullName {
        &self.full_name
    }
}

impl Labelled for ChildView {
    fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }
}

impl Kept for PodView {
    fn full_name(&self) -> &FullName {
        &self.full_name
    }
}

impl Labelled for PodView {
    fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }
}

impl ChildView {
    /// Returns the status that its controller wrote. It is empty before the first write.
    pub(crate) fn status(&self) -> &ChildStatusView {
        static NOTHING: ChildStatusView = ChildStatusView {
            observed_generation: None,
            replicas: 0,
            ready_replicas: 0,
            updated_replicas: 0,
            conditions: Vec::new(),
            load_balancer: LoadBalancerView { ingress: Vec::new() },
            parents: Vec::new(),
            listeners: Vec::new(),
            not_after: None,
            renewal_time: None,
        };
        self.status.as_deref().unwrap_or(&NOTHING)
    }

    #[cfg(test)]
    pub(crate) fn status_mut(&mut self) -> &mut ChildStatusView {
        self.status.get_or_insert_default()
    }

    pub(crate) fn name(&self) -> &str {
        self.full_name.name()
    }

    /// Returns the exposed host from its annotation.
    pub(crate) fn exposed_host(&self) -> Option<&str> {
        self.annotation(EXPOSES)?.split('/').next()
    }

    /// Returns an annotation, if it is one of those that are read.
    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.iter().find(|(found, _)| *found == name).map(|(_, value)| &**value)
    }

    /// Returns the name of a ConfigMap in a Deployment's pod template.
    pub(crate) fn mounts(&self, kind: ChildKind) -> Option<&str> {
        self.mounts.iter().find(|(found, _)| *found == kind).map(|(_, name)| &**name)
    }

    /// Returns true if all pods of a Deployment, and at least `wanted`, are of the newest spec that its controller has
    /// observed.
    pub(crate) fn is_rolled_out(&self, wanted: i32) -> bool {
        let status = self.status();
        status.updated_replicas >= wanted && status.replicas == status.updated_replicas
    }

    /// Returns true if the controller of a Deployment has observed the newest spec.
    pub(crate) fn is_observed(&self) -> bool {
        self.status().observed_generation == self.generation
    }

    /// Returns true if a Deployment's desired and present numbers of pods differ.
    pub(crate) fn is_scaling(&self) -> bool {
        self.replicas.is_some_and(|wanted| wanted != self.status().replicas)
    }
}

/// The fields of a Pod that are read.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(serde::Deserialize), serde(from = "WatchedPod"))]
pub(crate) struct PodView {
    pub(crate) full_name: FullName,
    pub(crate) uid: Box<str>,
    /// The McpServer that the labels name.
    server: Option<Box<str>>,
    /// The annotation [`SERVER_UID`].
    pub(crate) server_uid: Option<Box<str>>,
    /// The annotation [`CONFIGURATION_HASH`].
    pub(crate) configuration_hash: Option<Box<str>>,
    /// The annotation [`POLICY_REVISION`].
    pub(crate) policy_revision: Option<Box<str>>,
    pub(crate) address: Option<IpAddr>,
    /// The name of the ConfigMap with its policy.
    pub(crate) policy: Option<Box<str>>,
    /// Conditions whose status is `False`.
    pub(crate) trouble: Box<[ConditionView]>,
    /// Containers in another state than a normal run, those that start first at the front.
    pub(crate) containers: Box<[ContainerStatusView]>,
    /// True if it is being deleted.
    pub(crate) leaving: bool,
    has_started: bool,
    says_ready: bool,
}

impl From<WatchedPod> for PodView {
    fn from(WatchedPod { metadata, spec, status }: WatchedPod) -> Self {
        let annotation = |name: &str| metadata.annotations.as_ref()?.get(name).map(boxed);
        // The scheduler's message that no node takes the pod can arrive after the pod got a node.
        let is_stale = |condition: &ConditionView| condition.type_ == "PodScheduled" && spec.node_name.is_some();
        let is_trouble = |condition: &ConditionView| condition.status == "False" && !is_stale(condition);
        let starting = status.init_container_statuses.into_iter().filter(ContainerStatusView::is_telling_of_start);
        let containers = status.container_statuses.into_iter().filter(ContainerStatusView::is_telling);
        Self {
            full_name: FullName::of(&metadata),
            uid: metadata.uid.as_ref().map(boxed).unwrap_or_default(),
            server: named_server(&metadata),
            server_uid: annotation(SERVER_UID),
            configuration_hash: annotation(CONFIGURATION_HASH),
            policy_revision: annotation(POLICY_REVISION),
            policy: spec.config_map(POLICY_VOLUME).map(boxed),
            address: status.pod_ip.and_then(|address| address.parse().ok()),
            says_ready: is_true(&status.conditions, "Ready"),
            trouble: status.conditions.into_iter().filter(is_trouble).collect(),
            containers: starting.chain(containers).collect(),
            leaving: metadata.deletion_timestamp.is_some(),
            has_started: status.phase == "Running",
        }
    }
}

impl PodView {
    pub(crate) fn name(&self) -> &str {
        self.full_name.name()
    }

    /// Returns true if requests are routed to the pod.
    pub(crate) fn is_ready(&self) -> bool {
        self.says_ready && !self.leaving
    }

    /// Returns true if the pod's containers have started and it is not being deleted.
    pub(crate) fn is_running(&self) -> bool {
        self.has_started && !self.leaving
    }
}

/// See [`crate::objects::observed_child::Seen::version`].
pub(crate) fn version_of(metadata: &ObjectMeta) -> String {
    match metadata.generation.filter(|generation| *generation > 0) {
        Some(generation) => format!("{generation}-{}", hash_of_what_generations_miss(metadata)),
        None => metadata.resource_version.clone().unwrap_or_default(),
    }
}

fn hash_of_what_generations_miss(metadata: &ObjectMeta) -> String {
    let mut annotations = metadata.annotations.clone().unwrap_or_default();
    // The Deployment controller changes this annotation itself.
    annotations.remove("deployment.kubernetes.io/revision");
    let missed = json!([metadata.labels, annotations, metadata.owner_references]);
    let mut digits = hex::encode(Sha256::digest(missed.to_string()));
    digits.truncate(16);
    digits
}

#[cfg(test)]
mod tests {
    use kube::api::DynamicObject;
    use serde_json::json;

    use super::*;
    use crate::objects::{fixtures::mk_owner, observed_child::Seen};

    #[test]
    fn a_child_is_seen_alike_by_its_watch_and_by_a_look_at_it() {
        let owner = mk_owner();
        for generation in [None, Some(3)] {
            let mut metadata = owner.child_metadata(ChildKind::Service);
            metadata.uid = Some("uid-1".into());
            metadata.resource_version = Some("7".into());
            metadata.generation = generation;
            metadata.annotations = Some([("a".into(), "b".into())].into());
            let object = json!({"metadata": metadata, "status": {"loadBalancer": {}}});
            let looked: DynamicObject = serde_json::from_value(object.clone()).unwrap();
            let watched: ChildView = serde_json::from_value(object).unwrap();
            assert_eq!(Seen::of(&looked.metadata, &owner), Seen::watched(&watched, &owner));
            assert_eq!(watched.server(), Some(&*owner.name));
        }
    }

    #[test]
    fn fields_that_are_not_read_are_not_kept() {
        let child: ChildView = serde_json::from_value(json!({
            "metadata": {
                "labels": {"a": "b"},
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", ADOPT: "graph"},
                "managedFields": [{"manager": "kubectl"}],
            },
            "status": {"loadBalancer": {}},
        }))
        .unwrap();
        assert_eq!(*child.annotations, [(ADOPT, "graph".into())]);
        assert!(child.status.is_none() && child.server().is_none());

        let pod: PodView = serde_json::from_value(json!({
            "metadata": {"annotations": {SERVER_UID: "uid", "a": "b"}, "labels": {"a": "b"}, "generateName": "graph-"},
            "status": {
                "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"},
                               {"type": "PodScheduled", "status": "False"}],
                "containerStatuses": [{"state": {"running": {}}, "lastState": {}}, {"state": {"waiting": {}}}],
            },
        }))
        .unwrap();
        assert_eq!((pod.is_ready(), pod.server_uid.as_deref()), (true, Some("uid")));
        let trouble: Vec<&str> = pod.trouble.iter().map(|condition| condition.type_.as_str()).collect();
        assert_eq!((trouble, pod.containers.len()), (vec!["PodScheduled"], 1));
    }

    #[test]
    fn a_pod_with_a_node_is_not_unschedulable_even_if_its_old_status_says_so() {
        let trouble = |spec: serde_json::Value| {
            let conditions = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]);
            let pod = json!({"metadata": {}, "spec": spec, "status": {"conditions": conditions}});
            serde_json::from_value::<PodView>(pod).unwrap().trouble.len()
        };
        assert_eq!((trouble(json!({})), trouble(json!({"nodeName": "a"}))), (1, 0));
    }

    #[test]
    fn fields_with_an_unexpected_form_are_ignored() {
        let object = json!({"metadata": {"name": "a"}, "spec": {"replicas": "all"}, "status": {"conditions": "fine"}});
        let child: ChildView = serde_json::from_value(object).unwrap();
        assert_eq!((child.name(), child.replicas, child.status.is_none()), ("a", None, true));
    }
}
