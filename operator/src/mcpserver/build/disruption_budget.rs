//! The PodDisruptionBudget: of several pods, drained nodes take one at a time. A pod alone would be taken with it as
//! without, so that a server which never has more goes without. A server that others scale may have more at any time.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use crate::objects::{child::ChildKind, owner::Owner};

pub(super) fn disruption_budget(owner: &Owner) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: owner.child_metadata(ChildKind::DisruptionBudget),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector { match_labels: Some(owner.selector()), match_expressions: None }),
            // A pod that does not work anyway must not hold up a node.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            min_available: None,
        }),
        status: None,
    }
}
