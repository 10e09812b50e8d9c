//! Builds the HorizontalPodAutoscaler, which sets the Deployment's number of pods if `spec.autoscaling` is set.

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget,
    ResourceMetricSource,
};
use mcp_entra_crds::Autoscaling;

use crate::objects::{child::ChildKind, owner::Owner};

pub(super) fn autoscaler(owner: &Owner, autoscaling: &Autoscaling) -> HorizontalPodAutoscaler {
    let deployment = ChildKind::Deployment;
    HorizontalPodAutoscaler {
        metadata: owner.child_metadata(ChildKind::Autoscaler),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some(deployment.api_version()),
                kind: deployment.kind().to_owned(),
                name: deployment.name(&owner.name),
            },
            min_replicas: Some(autoscaling.min_replicas),
            max_replicas: autoscaling.max_replicas,
            metrics: Some(vec![MetricSpec {
                type_: "Resource".to_owned(),
                resource: Some(ResourceMetricSource {
                    name: "cpu".to_owned(),
                    target: MetricTarget {
                        type_: "Utilization".to_owned(),
                        average_utilization: Some(autoscaling.target_cpu_utilization),
                        ..MetricTarget::default()
                    },
                }),
                ..MetricSpec::default()
            }]),
            behavior: None,
        }),
        status: None,
    }
}
