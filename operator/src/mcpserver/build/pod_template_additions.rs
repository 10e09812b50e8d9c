//! What the spec adds to the pods, and where it must not reach: labels and annotations of ours win.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{LocalObjectReference, PodSpec, TopologySpreadConstraint},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use mcp_entra_crds::{Injection, PodTemplate, TopologySpread, WhenUnsatisfiable};

use crate::{mcpserver::validate::Validated, objects::owner::Owner};

/// The label by which azure-workload-identity knows the pods that it is to project a token into.
const USE_WEBHOOK: &str = "azure.workload.identity/use";

/// Where pods are spread by default: over nodes, and over zones.
const SPREAD: [&str; 2] = ["kubernetes.io/hostname", "topology.kubernetes.io/zone"];

/// The pods' metadata; `own` are the annotations that the operator itself needs.
pub(super) fn metadata(server: &Validated, own: BTreeMap<String, String>) -> ObjectMeta {
    let mut labels = server.workload.template.labels.clone();
    labels.extend(server.owner.labels());
    if server.workload.injection == Injection::Webhook {
        labels.insert(USE_WEBHOOK.to_owned(), "true".to_owned());
    }
    let mut annotations = server.workload.template.annotations.clone();
    annotations.extend(own);
    ObjectMeta { labels: Some(labels), annotations: Some(annotations), ..ObjectMeta::default() }
}

/// Adds to the pods where the spec wants them to run.
pub(super) fn place(pod: PodSpec, owner: &Owner, template: &PodTemplate) -> PodSpec {
    let PodTemplate { node_selector, tolerations, image_pull_secrets, .. } = template;
    let pull_secrets = image_pull_secrets.iter().map(|secret| LocalObjectReference { name: secret.name.clone() });
    // An empty list would be ours to defend; none at all is anybody's to fill.
    PodSpec {
        node_selector: (!node_selector.is_empty()).then(|| node_selector.clone()),
        tolerations: (!tolerations.is_empty()).then(|| tolerations.clone()),
        affinity: template.affinity.clone(),
        topology_spread_constraints: Some(spread(owner, &template.topology_spread_constraints)),
        priority_class_name: template.priority_class_name.clone(),
        image_pull_secrets: (!image_pull_secrets.is_empty()).then(|| pull_secrets.collect()),
        ..pod
    }
}

fn spread(owner: &Owner, given: &[TopologySpread]) -> Vec<TopologySpreadConstraint> {
    let constraint = |spread: &TopologySpread| TopologySpreadConstraint {
        max_skew: spread.max_skew,
        topology_key: spread.topology_key.clone(),
        when_unsatisfiable: match spread.when_unsatisfiable {
            WhenUnsatisfiable::DoNotSchedule => "DoNotSchedule".to_owned(),
            WhenUnsatisfiable::ScheduleAnyway => "ScheduleAnyway".to_owned(),
        },
        label_selector: Some(LabelSelector { match_labels: Some(owner.selector()), match_expressions: None }),
        // The pods of an older version are about to go, and count for nothing.
        match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
        ..TopologySpreadConstraint::default()
    };
    if !given.is_empty() {
        return given.iter().map(constraint).collect();
    }
    let anyhow = |topology_key: &str| TopologySpread {
        max_skew: 1,
        topology_key: topology_key.to_owned(),
        when_unsatisfiable: WhenUnsatisfiable::ScheduleAnyway,
    };
    SPREAD.map(|topology_key| constraint(&anyhow(topology_key))).into()
}
