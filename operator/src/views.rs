//! The few fields that are read of Deployments, Pods and Ingresses: a thousand full ones would take tens of megabytes.

use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod, networking::v1::Ingress},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;
use serde::{Deserialize, Serialize};

/// What is read of a Deployment.
#[derive(Clone, Debug, Default, Resource, Serialize, Deserialize)]
#[resource(inherit = Deployment)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DeploymentView {
    pub(crate) metadata: ObjectMeta,
    pub(crate) status: DeploymentStatusView,
}

/// What is read of a Deployment's status.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DeploymentStatusView {
    pub(crate) observed_generation: Option<i64>,
    pub(crate) replicas: i32,
    pub(crate) ready_replicas: i32,
    pub(crate) updated_replicas: i32,
    pub(crate) conditions: Vec<ConditionView>,
}

/// What is read of a condition of a built-in kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ConditionView {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl DeploymentView {
    /// Whether all pods that there are, and as many as wanted, are of the newest spec.
    pub(crate) fn is_rolled_out(&self, wanted: i32) -> bool {
        let status = &self.status;
        status.observed_generation == self.metadata.generation
            && status.updated_replicas >= wanted
            && status.replicas == status.updated_replicas
    }
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

/// What is read of an Ingress.
#[derive(Clone, Debug, Default, Resource, Serialize, Deserialize)]
#[resource(inherit = Ingress)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct IngressView {
    pub(crate) metadata: ObjectMeta,
    pub(crate) status: IngressStatusView,
}

/// What is read of an Ingress's status.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct IngressStatusView {
    pub(crate) load_balancer: LoadBalancerView,
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
