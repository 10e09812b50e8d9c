//! Builds the PodMonitor with which the Prometheus operator finds the pods' metrics. A ServiceMonitor cannot: no
//! Service contains the admin port.

use kube::api::DynamicObject;
use serde_json::json;

use super::{container::ADMIN_PORT_NAME, gateway::object};
use crate::{
    objects::{child::ChildKind, owner::Owner},
    runtime::options::PodMonitors,
};

pub(super) fn pod_monitor(owner: &Owner, monitors: &PodMonitors) -> DynamicObject {
    let spec = json!({
        "selector": {"matchLabels": owner.selector()},
        "podMetricsEndpoints": [{"port": ADMIN_PORT_NAME, "path": "/metrics"}],
    });
    let mut metadata = owner.child_metadata(ChildKind::PodMonitor);
    if let Some((key, value)) = &monitors.label {
        metadata.labels.get_or_insert_default().entry(key.clone()).or_insert_with(|| value.clone());
    }
    object(metadata, ChildKind::PodMonitor, spec)
}
