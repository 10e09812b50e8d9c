//! The few fields that are read of children and pods: a thousand full ones would take tens of megabytes.

use std::borrow::Cow;

use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{Resource, ResourceExt};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use crate::{
    build::CONFIGURATION_HASH,
    child::ChildKind,
    exposure::EXPOSES,
    owner::{ADOPT, INSTANCE, SERVER_UID},
    pods::POLICY_REVISION,
    resolve::version_of,
    upgrades::{REQUESTED_HASH, ROLL_OUT, TEMPLATE_HASH},
};

/// What is read of a child, of whatever kind: a member that its kind lacks is empty.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "WatchedChild")]
pub(crate) struct ChildView {
    /// Without labels, and with those annotations alone that are read.
    pub(crate) metadata: ObjectMeta,
    /// The McpServer that the labels name.
    pub(crate) server: Option<String>,
    /// See [`crate::resolve::Seen::version`].
    pub(crate) version: String,
    pub(crate) spec: Option<Box<ChildSpecView>>,
    status: Option<Box<ChildStatusView>>,
}

/// A child as its watch tells of it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct WatchedChild {
    metadata: ObjectMeta,
    #[serde(deserialize_with = "readable")]
    spec: Option<Box<ChildSpecView>>,
    #[serde(deserialize_with = "readable")]
    status: Option<Box<ChildStatusView>>,
}

impl From<WatchedChild> for ChildView {
    fn from(WatchedChild { mut metadata, spec, status }: WatchedChild) -> Self {
        let version = version_of(&metadata);
        let server = trim(&mut metadata, &[ADOPT, EXPOSES, REQUESTED_HASH, ROLL_OUT, TEMPLATE_HASH]);
        let status = status.filter(|status| **status != ChildStatusView::default());
        Self { metadata, server, version, spec, status }
    }
}

/// What carries the labels of children and pods.
pub(crate) trait Labelled: ResourceExt {
    /// The McpServer that the labels name.
    fn server(&self) -> Option<&str>;
}

impl Labelled for ChildView {
    fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }
}

impl Labelled for PodView {
    fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }
}

/// Leaves of an object's metadata what is read, and takes out the McpServer that its labels name: each map takes half a
/// kilobyte, however little is in it, and in annotations others keep whole objects.
fn trim(metadata: &mut ObjectMeta, annotations: &[&str]) -> Option<String> {
    metadata.managed_fields = None;
    metadata.generate_name = None;
    if let Some(found) = &mut metadata.annotations {
        found.retain(|name, _| annotations.contains(&name.as_str()));
    }
    metadata.annotations.take_if(|found| found.is_empty());
    metadata.labels.take()?.remove(INSTANCE)
}

/// Kinds of others may say what we do not understand; that must not end the watch of all.
fn readable<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(serde_json::Value::deserialize(deserializer)?).ok())
}

/// What is read of a child's spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ChildSpecView {
    /// Of a Deployment: how many pods somebody wants, the operator or an autoscaler.
    pub(crate) replicas: Option<i32>,
}

/// What is read of a child's status.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ChildStatusView {
    pub(crate) observed_generation: Option<i64>,
    pub(crate) replicas: i32,
    pub(crate) ready_replicas: i32,
    pub(crate) updated_replicas: i32,
    pub(crate) conditions: Vec<ConditionView>,
    /// Of an Ingress: the addresses that its controller announced.
    pub(crate) load_balancer: LoadBalancerView,
    /// Of an HTTPRoute: what each Gateway says of it.
    pub(crate) parents: Vec<ParentView>,
    /// Of a ListenerSet: what the Gateway says of each listener.
    pub(crate) listeners: Vec<ListenerStatusView>,
    /// Of a Certificate: until when it is valid.
    pub(crate) not_after: Option<Time>,
    /// Of a Certificate: when it should have been renewed.
    pub(crate) renewal_time: Option<Time>,
}

impl ChildView {
    /// What its controller says of it; nothing before it has said something.
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

    /// Of a Deployment: whether all pods that there are, and as many as wanted, are of the newest spec that its controller
    /// has seen.
    pub(crate) fn is_rolled_out(&self, wanted: i32) -> bool {
        let status = self.status();
        status.updated_replicas >= wanted && status.replicas == status.updated_replicas
    }

    /// Of a Deployment: whether its controller has seen the newest spec.
    pub(crate) fn is_observed(&self) -> bool {
        self.status().observed_generation == self.metadata.generation
    }

    /// Of a Deployment: whether it is to have another number of pods than it has.
    pub(crate) fn is_scaling(&self) -> bool {
        let wanted = self.spec.as_ref().and_then(|spec| spec.replicas);
        wanted.is_some_and(|wanted| wanted != self.status().replicas)
    }
}

/// What one Gateway, or ListenerSet, says of a route.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ParentView {
    pub(crate) parent_ref: ParentReferenceView,
    pub(crate) conditions: Vec<ConditionView>,
}

/// What a Gateway says of one listener of a ListenerSet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct ListenerStatusView {
    pub(crate) conditions: Vec<ConditionView>,
}

/// Which Gateway, or ListenerSet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ParentReferenceView {
    pub(crate) kind: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) section_name: Option<String>,
}

/// What is read of a condition.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ConditionView {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) observed_generation: Option<i64>,
}

/// What is read of a Pod.
#[derive(Clone, Debug, Default, Resource, Deserialize)]
#[resource(inherit = Pod)]
#[serde(from = "WatchedPod")]
pub(crate) struct PodView {
    /// Without labels, annotations and owners.
    pub(crate) metadata: ObjectMeta,
    /// The McpServer that the labels name.
    pub(crate) server: Option<String>,
    /// The annotation [`SERVER_UID`].
    pub(crate) server_uid: Option<String>,
    /// The annotation [`CONFIGURATION_HASH`].
    pub(crate) configuration_hash: Option<String>,
    /// The annotation [`POLICY_REVISION`].
    pub(crate) policy_revision: Option<String>,
    pub(crate) status: PodStatusView,
}

/// A Pod as its watch tells of it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct WatchedPod {
    metadata: ObjectMeta,
    status: PodStatusView,
}

impl From<WatchedPod> for PodView {
    fn from(WatchedPod { mut metadata, mut status }: WatchedPod) -> Self {
        let mut annotations = metadata.annotations.take().unwrap_or_default();
        let server = trim(&mut metadata, &[]);
        metadata.owner_references = None;
        status.conditions.retain(|condition| condition.type_ == "Ready" || condition.status == "False");
        status.conditions.shrink_to_fit();
        status.container_statuses.retain(ContainerStatusView::is_telling);
        status.container_statuses.shrink_to_fit();
        Self {
            metadata,
            server,
            server_uid: annotations.remove(SERVER_UID),
            configuration_hash: annotations.remove(CONFIGURATION_HASH),
            policy_revision: annotations.remove(POLICY_REVISION),
            status,
        }
    }
}

/// What is read of a Pod's status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodStatusView {
    pub(crate) phase: String,
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: Option<String>,
    /// Ready, and what is not as it should be.
    pub(crate) conditions: Vec<ConditionView>,
    /// Those that do not simply run.
    pub(crate) container_statuses: Vec<ContainerStatusView>,
}

/// What is read of a container's status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerStatusView {
    pub(crate) image: String,
    pub(crate) state: ContainerStateView,
    pub(crate) last_state: ContainerStateView,
}

impl ContainerStatusView {
    fn is_telling(&self) -> bool {
        let (now, last) = (&self.state, &self.last_state);
        now.waiting.is_some() || now.terminated.is_some() || last.terminated.is_some()
    }
}

/// What is read of a container's state.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerStateView {
    pub(crate) waiting: Option<StateDetailView>,
    pub(crate) terminated: Option<StateDetailView>,
}

/// Why a container is in its state.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct StateDetailView {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) exit_code: Option<i32>,
}

impl PodView {
    /// Whether requests are routed to the pod.
    pub(crate) fn is_ready(&self) -> bool {
        self.metadata.deletion_timestamp.is_none() && is_true(&self.status.conditions, "Ready")
    }

    /// Whether the pod's containers have been started and it is not being deleted.
    pub(crate) fn is_running(&self) -> bool {
        self.metadata.deletion_timestamp.is_none() && self.status.phase == "Running"
    }
}

/// Whether a condition of that type is `True`.
pub(crate) fn is_true(conditions: &[ConditionView], type_: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True")
}

/// The addresses that an ingress controller announced.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LoadBalancerView {
    pub(crate) ingress: Vec<AddressView>,
}

/// An address that an ingress controller announced.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AddressView {
    pub(crate) ip: Option<String>,
    pub(crate) hostname: Option<String>,
}

/// What is read of a Gateway, which is never ours: whether a listener ends TLS.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GatewayView {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: GatewaySpecView,
}

/// What is read of a Gateway's spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GatewaySpecView {
    pub(crate) listeners: Vec<ListenerView>,
}

/// What is read of a listener.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ListenerView {
    pub(crate) name: String,
    pub(crate) protocol: String,
}

impl Resource for GatewayView {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Gateway".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        ChildKind::HttpRoute.api_resource().group.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        ChildKind::HttpRoute.api_resource().version.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "gateways".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use kube::api::DynamicObject;
    use serde_json::json;

    use super::*;
    use crate::{resolve::Seen, validate::tests::mk_owner, world::server_of};

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
            assert_eq!(server_of(&watched).unwrap().name, owner.name);
        }
    }

    #[test]
    fn what_is_not_read_is_not_kept() {
        let child: ChildView = serde_json::from_value(json!({
            "metadata": {
                "labels": {"a": "b"},
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", ADOPT: "graph"},
                "managedFields": [{"manager": "kubectl"}],
            },
            "status": {"loadBalancer": {}},
        }))
        .unwrap();
        let kept = Some([(ADOPT.to_owned(), "graph".to_owned())].into());
        assert_eq!(child.metadata, ObjectMeta { annotations: kept, ..ObjectMeta::default() });
        assert!(child.status.is_none() && server_of(&child).is_none());

        let pod: PodView = serde_json::from_value(json!({
            "metadata": {"annotations": {SERVER_UID: "uid", "a": "b"}, "labels": {"a": "b"}, "generateName": "graph-"},
            "status": {
                "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"},
                               {"type": "PodScheduled", "status": "False"}],
                "containerStatuses": [{"state": {"running": {}}, "lastState": {}}, {"state": {"waiting": {}}}],
            },
        }))
        .unwrap();
        assert_eq!((pod.metadata.clone(), pod.server_uid.as_deref()), (ObjectMeta::default(), Some("uid")));
        let conditions: Vec<&str> = pod.status.conditions.iter().map(|condition| condition.type_.as_str()).collect();
        assert_eq!((conditions, pod.status.container_statuses.len()), (vec!["Ready", "PodScheduled"], 1));
    }
}
