//! The few fields that are read of children and pods: a thousand full ones would take tens of megabytes.

use std::borrow::Cow;

use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::Resource;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use crate::child::ChildKind;

/// What is read of a child, of whatever kind: a member that its kind lacks is empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ChildView {
    pub(crate) metadata: ObjectMeta,
    #[serde(deserialize_with = "readable", skip_serializing_if = "Option::is_none")]
    pub(crate) spec: Option<Box<ChildSpecView>>,
    #[serde(deserialize_with = "readable", skip_serializing_if = "Option::is_none")]
    status: Option<Box<ChildStatusView>>,
}

/// Kinds of others may say what we do not understand; that must not end the watch of all.
fn readable<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(serde_json::Value::deserialize(deserializer)?).ok())
}

/// What is read of a child's spec.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ChildSpecView {
    /// Of a Deployment: how many pods somebody wants, the operator or an autoscaler.
    pub(crate) replicas: Option<i32>,
}

/// What is read of a child's status.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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

    /// Of a Deployment: whether all pods that there are, and as many as wanted, are of the newest spec.
    pub(crate) fn is_rolled_out(&self, wanted: i32) -> bool {
        let status = self.status();
        status.observed_generation == self.metadata.generation
            && status.updated_replicas >= wanted
            && status.replicas == status.updated_replicas
    }
}

/// What one Gateway, or ListenerSet, says of a route.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ParentView {
    pub(crate) parent_ref: ParentReferenceView,
    pub(crate) conditions: Vec<ConditionView>,
}

/// What a Gateway says of one listener of a ListenerSet.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ListenerStatusView {
    pub(crate) conditions: Vec<ConditionView>,
}

/// Which Gateway, or ListenerSet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ParentReferenceView {
    pub(crate) kind: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) section_name: Option<String>,
}

/// What is read of a condition.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, Resource, Serialize, Deserialize)]
#[resource(inherit = Pod)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodView {
    pub(crate) metadata: ObjectMeta,
    pub(crate) status: PodStatusView,
}

/// What is read of a Pod's status.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodStatusView {
    pub(crate) phase: String,
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: Option<String>,
    pub(crate) conditions: Vec<ConditionView>,
    pub(crate) container_statuses: Vec<ContainerStatusView>,
}

/// What is read of a container's status.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerStatusView {
    pub(crate) image: String,
    pub(crate) state: ContainerStateView,
    pub(crate) last_state: ContainerStateView,
}

/// What is read of a container's state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerStateView {
    pub(crate) waiting: Option<StateDetailView>,
    pub(crate) terminated: Option<StateDetailView>,
}

/// Why a container is in its state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LoadBalancerView {
    pub(crate) ingress: Vec<AddressView>,
}

/// An address that an ingress controller announced.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AddressView {
    pub(crate) ip: Option<String>,
    pub(crate) hostname: Option<String>,
}

/// What is read of a Gateway, which is never ours: whether a listener ends TLS.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GatewayView {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: GatewaySpecView,
}

/// What is read of a Gateway's spec.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct GatewaySpecView {
    pub(crate) listeners: Vec<ListenerView>,
}

/// What is read of a listener.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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
