//! Views of the statuses of children and pods.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use crate::objects::untrusted_text::Foreign;

/// The fields of a child's status that are read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ChildStatusView {
    pub(crate) observed_generation: Option<i64>,
    pub(crate) replicas: i32,
    pub(crate) ready_replicas: i32,
    pub(crate) updated_replicas: i32,
    pub(crate) conditions: Vec<ConditionView>,
    /// The addresses of an Ingress.
    pub(crate) load_balancer: LoadBalancerView,
    /// The status of an HTTPRoute at each Gateway.
    pub(crate) parents: Vec<ParentView>,
    /// The status of each listener of a ListenerSet.
    pub(crate) listeners: Vec<ListenerStatusView>,
    /// The end of a Certificate's validity.
    pub(crate) not_after: Option<Time>,
    /// The time when a Certificate should have been renewed.
    pub(crate) renewal_time: Option<Time>,
}

/// The status of a route at one Gateway or ListenerSet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ParentView {
    pub(crate) parent_ref: ParentReferenceView,
    pub(crate) conditions: Vec<ConditionView>,
}

/// The status of one listener of a ListenerSet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct ListenerStatusView {
    pub(crate) conditions: Vec<ConditionView>,
}

/// A reference to a Gateway or ListenerSet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ParentReferenceView {
    pub(crate) kind: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) section_name: Option<String>,
}

/// The fields of a condition that are read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ConditionView {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) status: String,
    pub(crate) reason: Foreign,
    pub(crate) message: Foreign,
    pub(crate) observed_generation: Option<i64>,
    pub(crate) last_transition_time: Option<Time>,
}

/// Returns true if a condition of this type is `True`.
pub(crate) fn is_true(conditions: &[ConditionView], type_: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True")
}

/// The fields of a container's status that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerStatusView {
    pub(crate) name: Foreign,
    pub(crate) image: Foreign,
    pub(crate) state: ContainerStateView,
    pub(crate) last_state: ContainerStateView,
}

impl ContainerStatusView {
    pub(super) fn is_telling(&self) -> bool {
        let (now, last) = (&self.state, &self.last_state);
        now.waiting.is_some() || now.terminated.is_some() || last.terminated.is_some()
    }

    /// The same for an init container, whose successful end is normal.
    pub(super) fn is_telling_of_start(&self) -> bool {
        let has_done =
            |state: &ContainerStateView| state.terminated.as_ref().is_some_and(|ended| ended.exit_code == Some(0));
        self.is_telling() && !has_done(&self.state)
    }
}

/// The fields of a container's state that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerStateView {
    pub(crate) waiting: Option<StateDetailView>,
    pub(crate) terminated: Option<StateDetailView>,
}

/// The reason for the state of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct StateDetailView {
    pub(crate) reason: Foreign,
    pub(crate) message: Foreign,
    pub(crate) exit_code: Option<i32>,
}

/// The addresses that an ingress controller has set.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LoadBalancerView {
    pub(crate) ingress: Vec<AddressView>,
}

/// An address that an ingress controller has set.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AddressView {
    pub(crate) ip: Option<Foreign>,
    pub(crate) hostname: Option<Foreign>,
}
